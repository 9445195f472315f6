"""Pictures and questions become the tokens that Hugging Face's processor makes, and tokens texts.

processor    tokenizer and chat template of a checkpoint folder
prompt       chat template, tokens, M-RoPE positions, image slots; answers back to text
images       pictures as the checkpoint's processor would resize them
picture_files  files as pictures: upright, whatever their metadata
buckets      batches of any sizes on a few static shapes
decoding     how generation_config.json wants tokens chosen

Imports: common, config, model.
"""
