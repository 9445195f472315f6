"""Is this run fit to start? Every check in one table, before anything is paid for.

__main__     the command and its list of checks
checks       devices, model, prompt, memory; pairs: the data; folder: the run folder
selftest     the reward on answers whose worth is known
findings     checks that need one another, as a table

Imports: boxes, common, config, data.feed, hf, inputs, learner, mesh, model, reward, run.
"""
