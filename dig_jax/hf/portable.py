"""The files that travel with the weights, in a spelling that Transformers 4.57 and 5 both open.

Only tokenizer_config.json is ever rewritten: 5 calls its class by a name that 4.57 does not know,
and writes a list where 4.57 wants a mapping. All else goes unchanged.
"""

import json

from etils import epath

from dig_jax.common.json_files import read_json

TOKENIZER = "tokenizer_config.json"
# 5 has the older name as an alias of the newer one: the tokenizer is the same.
_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}


def portable_bytes(file: epath.Path) -> bytes:
    """What an export holds as the companion `file` of its source."""
    if file.name != TOKENIZER:
        return file.read_bytes()
    settings = read_json(file)
    changed = older_spelling(settings)
    if changed == settings:
        return file.read_bytes()
    return (json.dumps(changed, indent=2, ensure_ascii=False) + "\n").encode()


def older_spelling(settings: dict) -> dict:
    """A tokenizer_config.json as 4.57 wrote it, which 5 reads to the same tokenizer."""
    changed = dict(settings)
    name = changed.get("tokenizer_class")
    if isinstance(name, str) and name in _CLASSES:
        changed["tokenizer_class"] = _CLASSES[name]
    if isinstance(changed.get("extra_special_tokens"), list):
        changed["additional_special_tokens"] = changed.pop("extra_special_tokens")
    return changed
