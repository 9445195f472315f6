"""A Hugging Face folder goes in and out bit for bit, or is refused by name.

weights      tensors in, in our layout, on any mesh
settings     config.json and generation_config.json to sizes and special ids, and back
rope         how positions turn queries and keys, in every spelling
files        which files a folder has, here or in a bucket
foreign      what a folder holds instead: adapters, other formats, other keys
export       tensors out, streamed, whole or absent
checksums    what the files of a folder of ours were when it was written
portable     companions in a spelling that Transformers 4.57 and 5 open
safetensors_reader  one tensor at a time, from a disk or a bucket

Imports: common, model.
"""
