"""Configurations as files, as JSON, and as a hash."""

import hashlib
import json
from pathlib import Path

from dig_jax.common import sealed, typed
from dig_jax.config.tree import Config


def load_config(path: str | Path, overrides: list[str] = (), **kwargs: object) -> Config:
    """The configuration of a Python file, with dotted overrides such as `optim.rate=5e-7`.

    path        a file with `get_config(**kwargs) -> Config`
    overrides   applied together, then every rule is checked again

    Raises FileNotFoundError, TypeError (no get_config, wrong return), KeyError (unknown field,
    with the nearest names) or ValueError (a rule).
    """
    return typed.override(typed.run_file(Path(path), Config, **kwargs), list(overrides))


def to_json(config: Config) -> str:
    """The resolved configuration as indented JSON; `from_json` gives back an equal Config."""
    return json.dumps(typed.to_plain(config), indent=2) + "\n"


_OF_A_RUN = ("run", sealed.FIELD)  # what a run folder's config.json has beside


def from_json(text: str) -> Config:
    """Config from `to_json`'s text, or from a run folder's config.json.

    Unknown names raise KeyError, every rule is checked.
    """
    plain = json.loads(text)
    if isinstance(plain, dict):
        plain = {name: value for name, value in plain.items() if name not in _OF_A_RUN}
    return typed.from_plain(Config, plain)


# Fields that came later: at their defaults all is as it was without them, and so is the hash.
_LATER = {
    "grpo": ("packed", "sapo_up", "sapo_down", "mismatch", "mismatch_level", "mismatch_cap",
             "entropy_share"),
}  # fmt: skip


def config_hash(config: Config) -> str:
    """Twelve hex digits of the configuration, blind to where the run is written."""
    plain = typed.to_plain(config) | {"run_dir": ""}
    for name in ("root", "accept"):  # where, and what may differ: not what is computed
        del plain["checkpoint"][name]
    known = typed.to_plain(Config())
    for section, names in _LATER.items():
        for name in names:
            if plain[section][name] == known[section][name]:
                del plain[section][name]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def config_text(config: Config) -> str:
    """The configuration for the console: one line per field."""
    return typed.tree_text(config)
