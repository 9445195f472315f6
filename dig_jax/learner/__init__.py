"""The loop is GRPO: advantages in a group, a clipped surrogate, a KL to the reference.

grpo         the update of a step
state        what a checkpoint holds, and what a stage changes
gradient     loss and gradient of a minibatch, in slices of its pairs
slices, turns, packing       which pairs and answers are computed together
advantage, objective, loss   the pieces and their published variants
optim        AdamW whose rate is a function of the step
trainable    which parameters move
sft, cells, asked   the other learner: cross-entropy on true answers, and on dense labels

Imports: boxes, config, inputs, model, sampler.
"""
