"""What a run is and remembers: it stops, goes on and repeats itself bit for bit.

session      model, prompt and weights on a mesh, checked before anything is compiled
checkpoint   whole or absent, restorable onto any mesh; best: the weights that validated best
arrays       trees by Orbax, parameters without a run; digest: a number for their bits
trained      a run's weights where there is no run; policy: those or a folder's, ready to answer
resume       whether a run may start or go on in its folders, which have one owner at a time
papers       its files, looked through before it goes on
depends      what its numbers depend on beside its configuration; manifest: each of its starts
experience   one draw of answers with their rewards; guard: a step that is not finite
scorer       answers to held-out pairs, scored; validation: while it trains; samples: drawn
runlog       metrics.jsonl, the console line; trackers: TensorBoard and others
start        from a command line to a first step; dryrun: a few real ones of a cut model
memory       bytes that a step holds at least

Imports: common, config, data.feed, hf, inputs, learner, mesh, model, pictures, reward, sampler,
scoring.
"""
