"""The weights that scored best in a run's validations, kept beside its checkpoints.

    <root>/best/<steps done>/params        parameters alone, by Orbax
    <root>/best/<steps done>/config.json   the resolved configuration
    <root>/best/<steps done>/best.json     step, metric, value, protocol; written last

The root is that of the checkpoints (`checkpoint.root_of`), a folder or one in a bucket. Of these
folders the newest is the best. The one before it stays until a checkpoint is as new as the
newest: a run that falls back to its checkpoint falls back to what was best then. A score is held
against one of the same protocol: after another, the next validation is the best by itself.
"""

import json
from pathlib import Path
from typing import Any

import jax
from etils import epath

from dig_jax.common.addresses import folder_at, is_remote
from dig_jax.common.files import read_json, write_text
from dig_jax.common.typed import differences
from dig_jax.config import Config, best_score, to_json
from dig_jax.data.feed.fetch import digest_of
from dig_jax.mesh import distributed
from dig_jax.run import arrays, checkpoint

FOLDER, FACTS = "best", "best.json"


class BestKeeper:
    """Keeps the best weights of one run; every process makes one and makes the same calls.

    first_step   steps done when this start begins: what was kept later will be computed again
                 and is removed
    """

    def __init__(self, cfg: Config, first_step: int):
        self._cfg, self._metric = cfg, best_score(cfg)
        self._root = checkpoint.root_of(cfg)
        self._value: float | None = None
        stands = [f for f in _folders(self._root) if first_step and int(f.name) <= first_step]
        if jax.process_index() == 0:
            for folder in _folders(self._root):
                if folder not in stands or not _facts(folder):
                    _remove(folder)
        past = [facts for facts in map(_facts, stands) if facts]
        self._protocol = protocol_of(cfg, self._metric) if self._metric else {}
        if past and past[-1]["metric"] == self._metric:
            changed = differences(past[-1].get("protocol", self._protocol), self._protocol)
            if not changed:
                self._value = past[-1]["value"]
            elif jax.process_index() == 0:
                told = ", ".join(f"{n} {old!r} -> {now!r}" for n, (old, now) in changed.items())
                print(f"best weights: judged anew by another validation ({told})", flush=True)

    def offer(self, step: int, scores: dict[str, float], params: Any) -> bool:
        """Keeps `params` where they score better than all before them; whether it did.

        step     steps done
        scores   of a validation, the one of `best_score` among them; of equals the first is kept
        """
        if not self._metric:
            return False
        value = float(scores[self._metric])
        # process 0 has kept the others and deletes them: what it has seen there counts
        if not distributed.first_says(self._value is None or value > self._value):
            return False
        folder = _home(self._root) / str(step)
        arrays.save_params(folder, params)
        if jax.process_index() == 0:
            _write(folder / "config.json", to_json(self._cfg))
            facts = {"step": step, "metric": self._metric, "value": value}
            facts["protocol"] = self._protocol
            _write(folder / FACTS, json.dumps(facts) + "\n")
            self._prune(step)
        self._value = value
        return True

    def _prune(self, newest: int) -> None:
        """Leaves the newest, and the one that a fall back to the newest checkpoint needs."""
        saved = checkpoint.latest_step(self._root) or 0
        steps = [int(folder.name) for folder in _folders(self._root)]
        needed = {newest, max((step for step in steps if step <= saved), default=newest)}
        for step in set(steps) - needed:
            _remove(_home(self._root) / str(step))


def protocol_of(cfg: Config, metric: str) -> dict[str, Any]:
    """What a score of a validation is a score of: equal protocols give comparable values."""
    mode, _, rest = metric.partition("/")
    split = rest.rpartition("/")[0]
    split = {"": cfg.data.eval_split, "controls": cfg.eval.controls}.get(split, split)
    protocol = {
        "split": split,
        "pairs": cfg.eval.pairs,
        "holds": digest_of(cfg.data.root, split) or "",
    }
    if mode == "sampled":
        protocol |= {"samples": max(1, cfg.eval.samples), "decoding": cfg.eval.decoding}
    return protocol


def read_best(root: str | Path) -> dict:
    """{step, metric, value} of a run's best weights; the root as `checkpoint.find_root` says it.

    Raises FileNotFoundError where the run has kept none.
    """
    facts = _facts(_best_folder(root))
    return {name: facts[name] for name in ("step", "metric", "value")}


def best_config(root: str | Path) -> str:
    """The JSON of the configuration that made them."""
    return (_best_folder(root) / "config.json").read_text()


def load_best(root: str | Path, like: Any) -> Any:
    """A run's best parameters, placed as `like` says; all of the tree or part of it."""
    return arrays.load_params(_best_folder(root), like)


def _best_folder(root: str | Path) -> epath.Path:
    whole = [folder for folder in _folders(root) if _facts(folder)]
    if not whole:
        raise FileNotFoundError(
            f"{_home(root)} holds no best weights; train with --set eval.every=N and "
            f"checkpoint.best, or use the newest checkpoint"
        )
    return whole[-1]


def _home(root: str | Path) -> epath.Path:
    return folder_at(root) / FOLDER


def _folders(root: str | Path) -> list[epath.Path]:
    """Those of kept weights, whole or not, by their steps."""
    home = _home(root)
    found = [path for path in home.iterdir() if path.name.isdigit()] if home.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def _facts(folder: epath.Path) -> dict | None:
    path = folder / FACTS
    return read_json(path, f"move {folder} away to go on", missing={}) or None


def _write(path: epath.Path, text: str) -> None:
    """An object of a bucket is there completely or not at all without any help."""
    path.write_text(text) if is_remote(path) else write_text(path, text)


def _remove(folder: epath.Path) -> None:
    """Not whole first, then gone: a kill in between leaves nothing that passes for whole."""
    (folder / FACTS).unlink(missing_ok=True)
    folder.rmtree()
