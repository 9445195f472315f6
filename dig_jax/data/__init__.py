"""Certified difference pairs: planned in NumPy, rendered by Blender, read by Grain.

scene        what is to be seen, and what differs
render       from a plan to pictures and certificates
records      a pair as bytes, shards of pairs, splits as checked folders
corpus       splits on a disk: planned, made, shared out, verified
inspect      what a corpus is like, for people
exchange     to and from other formats
questions    about single pictures, in the formats of benchmarks
feed         what training and evaluation read

At this root are the verbs of `python -m dig_jax.data`.

Imports: common, data.corpus, data.inspect, data.render, data.scene.
"""
