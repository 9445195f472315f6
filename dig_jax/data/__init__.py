"""Certified difference pairs: planned in NumPy, rendered by Blender, read by Grain."""
