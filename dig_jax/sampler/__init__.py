"""G answers are drawn from one encoding of their prompt, and depend on their row alone.

rollout      the sampler; scorer: log-probs of its answers, which the learner shares
stages       shapes in which answers are drawn; staged: growing caches, packed rows
sampling     the pick of a token

Imports: model.
"""
