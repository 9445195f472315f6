"""Pictures and questions become the tokens that Hugging Face's processor makes, and tokens texts.

processor    tokenizer and chat template of a checkpoint folder
prompt       chat template, tokens, M-RoPE positions, image slots; answers back to text
images       pictures as the checkpoint's processor would resize them
picture_files  files as pictures: upright, whatever their metadata
pair_files   which files of a folder are pairs, and what they show
buckets      batches of any sizes on a few static shapes
shapes       the few static shapes of many prompts
decoding     how generation_config.json wants tokens chosen

Imports: common, config, model.
"""
