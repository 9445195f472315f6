"""Differential Grounding (DiG) in JAX: box every difference between two renders.

Scenes become pairs (`data`), pairs become prompts (`inputs`), a sampler answers (`sampler`), a
reward scores (`reward`), a learner moves the weights (`learner`) of a network (`model`, in and out
of Hugging Face's folders by `hf`), a mesh carries it (`mesh`), a run remembers it (`run`). What it
amounts to is measured (`scoring`) and drawn (`pictures`). `train` is the algorithm on one page; the
files beside it are the other commands that a person types.

A folder is a claim: its docstring says it, and what it may import.

Letters in shapes, one meaning each, einsum included (lower case there):
`B` pairs, `G` answers per pair, `P` prompt tokens, `T` answer tokens, `I` images,
`Y X` image rows and columns, `U` patches, `S` image-token slots per image, `D` width,
`N` query heads, `K` key-value heads, `H` head dim, `F` mlp width, `V` vocabulary, `L` layers,
`Q` predicted boxes, `M` true boxes.
"""

__version__ = "0.1.0"
