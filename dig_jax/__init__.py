"""Differential Grounding (DiG) in JAX: box every difference between two renders.

A pure-functional GRPO learner over Qwen3-VL. Four claims, four packages:

- `model`   the network equals Hugging Face's Qwen3-VL
- `reward`  the reward is what `RewardConfig` says
- `data`    the Blender pairs are what their certificates say
- `train`   the loop is GRPO

Letters in shapes, one meaning each, einsum included (lower case there):
`B` pairs, `G` answers per pair, `P` prompt tokens, `T` answer tokens, `I` images,
`Y X` image rows and columns, `U` patches, `S` image-token slots per image, `D` width,
`N` query heads, `K` key-value heads, `H` head dim, `F` mlp width, `V` vocabulary, `L` layers,
`Q` predicted boxes, `M` true boxes.
"""

__version__ = "0.1.0"
