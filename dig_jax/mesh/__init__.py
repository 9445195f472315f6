"""Arrays live where the mesh says; one device and many compute the same.

sharding     the mesh, two layouts of one tree, host arrays becoming global ones
layout       a model on a mesh; programs: the compiled programs of a step
distributed  several processes as one run; notice: SIGTERM ends it between two steps
flops        FLOPs of a pair by formula, and of a traced program

Imports: common, config, inputs, learner, model, sampler.
"""
