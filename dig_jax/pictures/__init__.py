"""Boxes drawn over pairs, curves drawn over steps.

contact      held-out pairs with true and predicted boxes
prediction   what a policy saw in any two pictures
sample_sheet the answers of a training step
curves       a run's metrics over its steps
drawing      what all draw with

Imports: nothing of dig_jax.
"""
