"""The files of a checkpoint folder, on a disk or in a bucket: tensors, settings, companions.

Companions are whatever travels with the weights: tokenizer, chat template, processor settings.
"""

import contextlib
import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from etils import epath

from dig_jax.common.addresses import is_remote
from dig_jax.common.json_files import Fields, read_json, shown
from dig_jax.hf import foreign
from dig_jax.hf.checksums import CHECKSUMS
from dig_jax.hf.safetensors_reader import CHUNK, Entry, read_header, read_tensor
from dig_jax.model.specs import named_specs

SINGLE, INDEX, HEAD = "model.safetensors", "model.safetensors.index.json", "lm_head.weight"
_WEIGHTS = (".safetensors", ".index.json", *foreign.OTHERS)
_SAMPLES, _SAMPLE = 32, 2**16  # of a file of weights: places, and bytes at each
_SPEAK_FOR_OTHERS = (foreign.ADAPTER, "trainer_state.json")  # of weights that do not travel


@dataclass(frozen=True)
class Stored:
    """One tensor of a folder."""

    file: epath.Path
    entry: Entry


Found = dict[str, Stored]  # HF key, with the leading `model.` -> where it is


def open_folder(source: str | Path) -> epath.Path:
    """The folder of a path or of a gs:// address; raises FileNotFoundError if there is none."""
    folder = epath.Path(source)
    try:
        there = folder.is_dir()
    except ImportError as error:
        raise ValueError(f"{source} cannot be opened: {error}; install dig_jax[gcs]") from error
    if not there:
        raise FileNotFoundError(f"checkpoint folder {folder} does not exist; download or make it")
    return folder


def find_weights(folder: epath.Path) -> Found:
    """Where every tensor is; reads the files' headers alone. Keys may lack the leading `model.`."""
    files = [folder / SINGLE]
    if (folder / INDEX).exists():
        if files[0].exists():
            raise ValueError(f"{folder} has both {SINGLE} and {INDEX}; remove the stale one")
        files = [folder / name for name in _shards(folder / INDEX)]
    elif not files[0].exists():
        raise foreign.no_weights(folder, SINGLE)
    found: Found = {}
    for file in files:
        if not file.exists():
            raise FileNotFoundError(
                f"{folder} has no {file.name}, which {INDEX} names; is the checkpoint complete?"
            )
        for spelled, entry in read_header(file).items():
            bare = spelled.startswith(("visual.", "language_model."))
            key = f"model.{spelled}" if bare else spelled
            if key in found:
                raise ValueError(
                    f"duplicate key {key} in {folder}: in {found[key].file.name} and {file.name}"
                )
            found[key] = Stored(file, entry)
    return found


def _shards(index: epath.Path) -> list[str]:
    """The names of the files that an index spreads the tensors over."""
    spread = Fields(read_json(index), str(index)).section("weight_map")
    names = list(spread.values.values())
    wrong = [n for n in names if not isinstance(n, str) or "/" in n or "\0" in n or n in ("", "..")]
    if wrong or not names:
        what = f"gives {shown(wrong[0])} as a file name" if wrong else "is empty"
        raise ValueError(f"{spread.where} {what}; fetch the index again")
    return sorted(set(names))


def check_weights(folder: epath.Path, found: Found, specs: dict, *, tied: bool) -> None:
    """Raises ValueError naming the first missing, unknown or misshaped key, or an unequal head."""
    wanted = {key: spec.hf_shape for _, spec in named_specs(specs) for key in spec.keys}
    allowed = {**wanted, HEAD: specs["embed"].hf_shape}  # some writers store a tied head again
    missing = [key for key in wanted if key not in found]
    unknown = [key for key in found if key not in allowed]
    if missing == [HEAD]:
        raise ValueError(
            f"missing key {HEAD} in {folder}; config.json says tie_word_embeddings=false, so that "
            f"the head is a tensor of its own: say true in both places if it is the embedding"
        )
    _refuse("missing", missing, folder, unknown, foreign.spelling_hint(wanted, found))
    _refuse("unknown", unknown, folder)
    for key, stored in found.items():
        if stored.entry.shape != allowed[key]:
            raise ValueError(
                f"key {key} in {stored.file} has shape {list(stored.entry.shape)}; config.json "
                f"wants {list(allowed[key])}"
            )
    embed = specs["embed"].hf
    if tied and HEAD in found and not _equal(found[HEAD], found[embed]):
        raise ValueError(
            f"{folder} is tied, but its {HEAD} differs from {embed}; set tie_word_embeddings to "
            f"false in config.json, or drop the head"
        )


@contextlib.contextmanager
def open_weights(found: Found) -> Iterator[Callable[[str], np.ndarray]]:
    """read(key) -> that tensor as its file holds it; each file is opened once."""
    with contextlib.ExitStack() as stack:
        files = {}

        def read(key: str) -> np.ndarray:
            file = found[key].file
            if file not in files:
                files[file] = stack.enter_context(file.open("rb"))
            return read_tensor(files[file], found[key].entry)

        yield read


def companions(folder: epath.Path) -> list[epath.Path]:
    """The files of a folder that travel with its weights, config.json among them."""
    files = (file for file in folder.iterdir() if file.is_file())
    names = {file.name: file for file in files if not file.name.endswith(_WEIGHTS)}
    left = names.keys() - {CHECKSUMS, *_SPEAK_FOR_OTHERS}
    return [names[name] for name in sorted(left) if name[0] != "."]


def local_companions(source: str | Path) -> Path:
    """A local folder with the companions of `source`: itself, or a cached copy of a bucket's.

    The copy is made once (in $XDG_CACHE_HOME or ~/.cache) and again when the listing changes.
    """
    if not is_remote(source):
        return Path(source)
    files = companions(open_folder(source))
    listing = [str(source), *(f"{f.name} {f.stat().length} {f.stat().mtime}" for f in files)]
    name = hashlib.sha256("\n".join(listing).encode()).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dig_jax"
    if not (root / name).is_dir():
        partial = root / f".{name}.{os.getpid()}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        for file in files:
            (partial / file.name).write_bytes(file.read_bytes())
        with contextlib.suppress(OSError):  # another process of this machine was first
            partial.rename(root / name)
        shutil.rmtree(partial, ignore_errors=True)
    return root / name


def digest_files(files: Iterable[epath.Path]) -> str | None:
    """Twelve hex digits of names and contents; None of no files."""
    lines = [f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12] if lines else None


def digest_weights(folder: epath.Path) -> str | None:
    """Twelve hex digits of a folder's safetensors; None without any.

    Of each its name, size and header, and `_SAMPLE` bytes at `_SAMPLES` places, the last ones among
    them: training moves every tensor that it trains, so that checkpoints of the same shapes are
    told apart without reading gigabytes. A byte that is changed elsewhere is not seen.
    """
    digest = hashlib.sha256()
    files = sorted(path for path in folder.iterdir() if path.name.endswith(".safetensors"))
    for file in files:
        length = file.stat().length
        digest.update(f"{file.name} {length} ".encode())
        with file.open("rb") as stream:
            size = stream.read(8)
            digest.update(size + stream.read(min(int.from_bytes(size, "little"), CHUNK)))
            for place in range(1, _SAMPLES + 1):
                stream.seek(max(0, length * place // _SAMPLES - _SAMPLE))
                digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()[:12] if files else None


def _refuse(
    what: str, keys: list[str], folder: epath.Path, unknown: list[str] | None = None, hint: str = ""
) -> None:
    if not keys:
        return
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    has = f", which has {unknown[0]} instead" if unknown else ""
    remedy = hint or "config.json asks for others: take it and the weights from one checkpoint"
    raise ValueError(f"{what} key {keys[0]}{more} in {folder}{has}; {remedy}")


def _equal(one: Stored, other: Stored) -> bool:
    """Whether two tensors of one shape hold the same numbers; reads CHUNK bytes at a time."""
    rows = one.entry.shape[0]
    step = max(1, CHUNK * rows // max(1, one.entry.stop - one.entry.start))
    with one.file.open("rb") as a, other.file.open("rb") as b:
        return all(
            np.array_equal(
                read_tensor(a, _rows(one.entry, first, first + step)),
                read_tensor(b, _rows(other.entry, first, first + step)),
            )
            for first in range(0, rows, step)
        )


def _rows(entry: Entry, first: int, stop: int) -> Entry:
    stop = min(stop, entry.shape[0])
    size = (entry.stop - entry.start) // entry.shape[0]
    return dataclasses.replace(
        entry,
        shape=(stop - first, *entry.shape[1:]),
        start=entry.start + first * size,
        stop=entry.start + stop * size,
    )
