"""Splits on a disk are what their manifests say, whoever made them and however often.

plans        every scene decided beforehand; feasible: refused with what would do
splits       a split rendered, shard by shard; manifest: its settings and counters
cluster      the same by Ray
on_disk      the splits of a folder; verify: every certificate again

Imports: common, data.records, data.render, data.scene.
"""
