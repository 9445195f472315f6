"""Which part of a parameter tree is trained: the tree cut in two, and put together again.

A frozen parameter is not in the trained part, so it has no gradient, no moments and no second
copy as reference; nothing has to be masked anywhere.
"""

import difflib
from collections.abc import Callable
from typing import Any

import jax

from dig_jax.config import Config

Tree = dict  # nested dict of arrays, or of anything with one leaf per parameter


def trained_names(cfg: Config, params: Tree) -> frozenset[str]:
    """Paths such as "blocks/wq" of the parameters that a run trains.

    params   arrays or shapes

    With adapters (`lora.rank`) these are the adapters alone, else all but `optim.freeze`. Raises
    ValueError for a `freeze` prefix that names no parameter, and when nothing is left to train.
    """
    names = parameter_names(params)
    if cfg.lora.rank:
        return frozenset(name for name in names if is_below(name, "lora"))
    for prefix in cfg.optim.freeze:
        _check_prefix(prefix, names)
    kept = [name for name in names if not any(is_below(name, p) for p in cfg.optim.freeze)]
    if not kept:
        raise ValueError(
            f"optim.freeze={cfg.optim.freeze} leaves nothing to train; freeze less of "
            f"{', '.join(sorted(params))}"
        )
    return frozenset(kept)


def split(params: Tree, trained: frozenset[str]) -> tuple[Tree, Tree]:
    """(trained, frozen) parts of a tree; a dict left without entries is left out."""
    return _part(params, trained.__contains__), _part(params, lambda name: name not in trained)


def join(one: Tree, other: Tree) -> Tree:
    """The tree that `split` cut; the parts may come in either order."""
    keys = sorted({*one, *other})  # as jax orders a dict, whatever was cut out
    return {k: join(one[k], other[k]) if k in one and k in other else {**other, **one}[k]
            for k in keys}  # fmt: skip


def parameter_names(params: Tree) -> list[str]:
    """ "blocks/wq" for every leaf, in the tree's order."""
    return [
        "/".join(str(key.key) for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]


def is_below(name: str, prefix: str) -> bool:
    """Whether the parameter `name` is the path `prefix` or lies under it."""
    return name == prefix or name.startswith(prefix.rstrip("/") + "/")


def _part(tree: Tree, keep: Callable[[str], bool], path: str = "") -> Any:
    found = {}
    for key, value in tree.items():
        name = f"{path}/{key}" if path else key
        if isinstance(value, dict):
            value = _part(value, keep, name)
            if value:
                found[key] = value
        elif keep(name):
            found[key] = value
    return found


def _check_prefix(prefix: str, names: list[str]) -> None:
    if any(is_below(name, prefix) for name in names):
        return
    parents = {name[:i] for name in names for i, c in enumerate(name) if c == "/"}
    near = difflib.get_close_matches(prefix, [*names, *parents], n=3, cutoff=0.3)
    raise ValueError(
        f"optim.freeze={prefix!r} names no parameter; nearest: {', '.join(near or names)}"
    )
