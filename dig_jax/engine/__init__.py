"""Any number of questions are answered together, each as if it were alone.

slots      rows that answer, at different places; the compiled programs that move them
loop       the host: who waits, who gets a row, who has ended
jobs       questions as prefixes (pictures) and suffixes (text) on a few static shapes

Imports: config, inputs, mesh, model, sampler.
"""
