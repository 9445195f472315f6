"""What one release of transformers makes of a folder's tokenizer and image processor, as JSON.

PYTHONPATH=<release> python tests/hf/hf_tokens.py FOLDER
"""

import json
import sys

import transformers

TEXT = "<|im_start|>user\nWhat is here? <|image_pad|> 1234 h\u00e9llo<|im_end|>"
TURN = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]


def tokens_of(folder: str) -> dict:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    images = transformers.AutoImageProcessor.from_pretrained(folder)
    ids = tokenizer(TEXT)["input_ids"]
    return {
        "version": transformers.__version__,
        "ids": ids,
        "special": tokenizer.all_special_tokens,
        "text": tokenizer.decode(ids, skip_special_tokens=True),
        "turn": tokenizer.apply_chat_template(TURN, tokenize=False, add_generation_prompt=True),
        "cell": images.patch_size * images.merge_size,
    }


if __name__ == "__main__":
    print(json.dumps(tokens_of(sys.argv[1])))
