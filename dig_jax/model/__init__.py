"""The network equals Hugging Face's Qwen3-VL, as pure functions over a dictionary of parameters.

config       sizes of the text decoder and of the vision tower
specs        the one table of all parameters; params: what is derived from it
inputs       what the model reads: prompts as static arrays
qwen3vl      encode_prompt, score_tokens, decode_token
text         the decoder; vision: the tower; rope, layers (remat, scan), lora: their parts
attention    who reads whom, and which kernel computes it; splash: Pallas on TPUs
logprob      log-probabilities, a block of the vocabulary at a time
placement    activations on a mesh
coldinit     a tiny model's first weights; sizes: the released ones

Imports: nothing of dig_jax.
"""
