"""Texts, files and terminals: what any program has, and nothing of what this one does.

typed        dataclass trees as text: checks, JSON, overrides, differences
addresses    a folder of this machine or of a bucket
commandline  --set, the width of a printed line, errors without a traceback
progress     how far a long job is
files        there whole or not at all; sealed: JSON that tells whether it was changed
machine      the processor's family, running processes
parallel     one function over several cores

Imports: nothing of dig_jax.
"""
