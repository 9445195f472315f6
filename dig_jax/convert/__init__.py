"""Checkpoints between Hugging Face folders and ours, and whether two are the same.

__main__     the command
folders      a run as a Hugging Face folder, such a folder as Orbax arrays
compare      two folders, parameter by parameter and by their logits
card         an export's model card, from what its run wrote down

Imports: common, config, data.feed, hf, inputs, model, run, scoring.
"""
