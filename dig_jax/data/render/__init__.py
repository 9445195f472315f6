"""A plan becomes two pictures with masks and a certificate, or a reason why not.

produce      a request to a certified pair, over a painter; certificates: measured again
blender      the painter of record, a program of its own (bpy is GPL); raytrace: NumPy's, for tests
worker       what both say over a pipe; supervise: workers kept busy, replaced when they die
exr, lighting   Blender's masks, its lamps

Imports: common, data.records, data.scene.
"""
