"""An answer's text becomes boxes, and boxes a reward: what `RewardConfig` says, no more.

parse        text to boxes and a verdict; parse_batch: the same for a batch, fast
matching     the cheapest assignment of predicted to true boxes
reward       DiG's: format, F1, mean IoU; jitted
neighbours   the rewards of others; functions: all by name; custom: your own
sample       what a reward function is given; answers: what a run calls

Imports: boxes, common, config.
"""
