"""Tokenizer and chat template of a checkpoint folder, as transformers opens them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dig_jax.common.json_files import Fields, read_json, refuse_pointer

_NEEDED = ("tokenizer.json", "tokenizer_config.json")
_TEXTS = (".json", ".jinja", ".txt")  # what transformers may read of a folder


@dataclass(frozen=True)
class Processor:
    """The text side of one checkpoint folder.

    tokenizer  Hugging Face's; its chat template comes from the folder
    eos_token  ends an answer in training data; the tokenizer's `eos_token`
    rows       of the model's embedding, where it is known: ids of answers are held against it

    What stops an answer is the model's: `ModelConfig.eos_tokens`.
    """

    tokenizer: Any
    eos_token: int
    rows: int | None = None


def load_processor(folder: str | Path, *, rows: int | None = None) -> Processor:
    """Tokenizer and chat template of a Hugging Face checkpoint folder.

    rows  of the embedding of the model that will read the tokens

    The network is never asked, and code within the folder never run. Raises FileNotFoundError,
    and ValueError naming the file where one is a git-LFS pointer or cannot be opened.
    """
    folder = Path(folder)
    for name in _NEEDED:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}; copy it from the checkpoint that the weights came from"
            )
    for file in sorted(folder.iterdir()):
        if file.suffix in _TEXTS and file.is_file():
            with file.open("rb") as opened:
                refuse_pointer(file, opened.read(64).decode("latin-1"))
    settings = Fields(read_json(folder / _NEEDED[1]), str(folder / _NEEDED[1]))
    # else the text of <|im_start|> is not the token, and <|image_pad|> no place for an image
    settings.only("split_special_tokens", False, default=False)
    tokenizer = _open_tokenizer(folder)
    _load_older_template(tokenizer, folder)
    if not tokenizer.chat_template:
        raise ValueError(f"{folder} has no chat template; add chat_template.jinja")
    if type(tokenizer.eos_token_id) is not int:
        raise ValueError(f"{settings.where} names no eos_token; Qwen's is <|im_end|>")
    return Processor(tokenizer, tokenizer.eos_token_id, rows)


def _open_tokenizer(folder: Path):
    from transformers import AutoTokenizer  # seconds to import

    read_json(folder / "tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        # settings of a wrong type are only met when they are used
        tokenizer.decode(tokenizer("[1]", add_special_tokens=False)["input_ids"])
        return tokenizer
    except Exception as error:  # transformers and tokenizers raise whatever their code meets
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(
            f"the tokenizer of {folder} cannot be opened by transformers ({reason}); copy "
            f"{' and '.join(_NEEDED)} from the checkpoint that the weights came from"
        ) from error


def _load_older_template(tokenizer, folder: Path) -> None:
    """Takes the template of a chat_template.json, which HF's processor reads and its tokenizer not.

    Transformers 4.57 wrote that file; as there, it goes before one in tokenizer_config.json.
    """
    older = folder / "chat_template.json"
    if older.is_file() and not (folder / "chat_template.jinja").is_file():
        tokenizer.chat_template = Fields(read_json(older), str(older)).text("chat_template")
