"""What a run's numbers depend on beside its configuration, told in a line for each.

    data.single                   "384 pairs 1f0c7a2b9d3e"   its manifest's counts and checksums
    questions                     "6 files 93ab..."          their names and sizes
    reward.module                 "rewards.py 83d1..."       the file of the user's own function
    source.files, source.weights  the checkpoint folder: its small files, samples of its weights
    flags.jax_enable_x64          "False"                    what JAX rounds and draws by
    versions.jax                  "0.11.0"

The table is kept in manifest.json for every start and in every checkpoint; a resume compares them
(`resume.check_start`). Splits are named by what they hold: `data.root` may move.
"""

import hashlib
import os
import re
from pathlib import Path

import jax
from etils import epath

from dig_jax.config import Config
from dig_jax.data.feed.checks import drawn_splits
from dig_jax.data.feed.fetch import digest_of
from dig_jax.hf.files import digest_files, digest_weights
from dig_jax.reward.custom import source_file
from dig_jax.run import arrays, manifest

COMPARED = "jax jaxlib numpy flax optax orbax-checkpoint grain transformers"
_FLAGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
)
# of XLA_FLAGS those that bear on numbers: others say how many devices, or where to dump
_XLA = r"--(xla_\w*(?:fast_math|determinis|precision)\w*)(?:=(\S+))?"


def depends_on(cfg: Config) -> dict[str, str]:
    """Name -> what it is now; what is not there (yet) is left out."""
    table = {f"data.{name}": digest_of(cfg.data.root, name) for name in drawn_splits(cfg)}
    if cfg.learner == "sft" and cfg.sft.questions_per_step:
        table["questions"] = listing_digest(cfg.sft.questions_root)
    module = source_file(cfg.reward)
    if module:
        digest = hashlib.sha256(module.read_bytes()).hexdigest()[:12]
        table["reward.module"] = f"{module.name} {digest}"
    table |= source_digests(cfg.model.source)
    table |= {f"flags.{name}": str(getattr(jax.config, name)) for name in _FLAGS}
    for name, value in re.findall(_XLA, os.environ.get("XLA_FLAGS", "")):
        table[f"flags.{name}"] = value or "true"
    table["flags.NVIDIA_TF32_OVERRIDE"] = os.environ.get("NVIDIA_TF32_OVERRIDE", "")
    found = manifest.versions()
    table |= {f"versions.{name}": found.get(name) for name in ("python", *COMPARED.split())}
    return {name: value for name, value in table.items() if value is not None}


def differing(recorded: dict[str, str], now: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Name -> (recorded, now), of what both tables have: a later stage may draw another split.

    A flag or an environment variable that one of them lacks is compared with its absence.
    """
    flags = {name for name in {*recorded, *now} if name.startswith("flags.")}
    names = [name for name in dict.fromkeys((*recorded, *now))
             if name in flags or (name in recorded and name in now)]  # fmt: skip
    pairs = {name: (recorded.get(name, ""), now.get(name, "")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def is_accepted(name: str, accept: tuple[str, ...]) -> bool:
    """Whether checkpoint.accept names "versions.jax", or "versions" and so all of them."""
    return any(name == one or name.startswith(one + ".") for one in accept)


def source_digests(source: str) -> dict[str, str | None]:
    """Of a checkpoint folder's small files and of its weights; {} where there is no folder."""
    folder = epath.Path(source)
    if not folder.is_dir():
        return {}
    weights = digest_weights(folder)
    if arrays.has_params(source):  # the files of an import: their table, and its root
        names = (folder / arrays.PARAMS / name for name in ("_METADATA", "manifest.ocdbt"))
        weights = digest_files(path for path in names if path.is_file())
    return {"source.files": digest_files(_small(folder)), "source.weights": weights}


def listing_digest(root: str) -> str | None:
    """ "6 files 1f0c7a2b9d3e" of the names and sizes below a folder; None where it is not there."""
    files = sorted(path for path in Path(root).rglob("*") if path.is_file())
    if not files:
        return None
    told = "".join(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n" for path in files)
    return f"{len(files)} files {hashlib.sha256(told.encode()).hexdigest()[:12]}"


def _small(folder: epath.Path) -> list[epath.Path]:
    """Settings, tokenizer and template: not a card, whose words change nothing."""
    kinds = (".json", ".jinja", ".txt", ".model")
    files = (path for path in folder.iterdir() if path.name.endswith(kinds))
    skipped = (".index.json", "dig_jax.json")
    return sorted(path for path in files if path.is_file() and not path.name.endswith(skipped))
