"""A scene is an exact plan: things, differences, and what of them can be seen.

draws        how many pairs of which kind; presets: named sets of them
look         size, samples, noise, camera; colors
scene        things on a ground; placement: where they may stand
differences  what B has otherwise; visibility: what hides what
labels       boxes from masks, and when a pair is certified

Imports: common.
"""
