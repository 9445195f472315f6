"""A batch is a function of the step: the curriculum's pairs, decoded ahead.

curriculum   one index table, exact in every prefix
batch        what a step is given; source: a split, pair by pair
pipeline     batches of training and of evaluation; workers: processes that decode
shared_memory  where their batches wait: how much of it, and who removes it
checks       splits that a run will read, opened before it starts
fetch        splits of a bucket, copied once; decoded: pairs as raw pixels

Imports: boxes, common, config, data.records, data.scene, inputs.
"""
