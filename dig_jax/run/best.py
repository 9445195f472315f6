"""The weights that scored best in a run's validations, kept beside its checkpoints.

    <root>/best/<steps done>/params        parameters alone, by Orbax
    <root>/best/<steps done>/config.json   the resolved configuration
    <root>/best/<steps done>/best.json     step, metric, value, protocol, the run's number, and the
                                           checksums of the other files; sealed, written last

The root is that of the checkpoints (`checkpoint.root_of`), a folder or one in a bucket. Of these
folders the newest is the best. The one before it stays until a checkpoint is as new as the
newest: a run that falls back to its checkpoint falls back to what was best then. A score is held
against one of the same protocol: after another, the next validation is the best by itself.
"""

import json
import math
from pathlib import Path
from typing import Any

import jax
from etils import epath

from dig_jax.common.addresses import folder_at
from dig_jax.common.files import file_sha256, read_sealed
from dig_jax.common.sealed import sealed
from dig_jax.common.typed import differences
from dig_jax.config import Config, best_score, to_json
from dig_jax.data.feed.fetch import digest_of
from dig_jax.mesh import distributed
from dig_jax.run import arrays, checkpoint
from dig_jax.run.manifest import RUN, SETTINGS, check_number, number_of
from dig_jax.run.runlog import read_rows

FOLDER, FACTS = "best", "best.json"
_BESIDE = (SETTINGS, arrays.DIGEST)


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
        if self._metric and jax.process_index() == 0:
            _tell_lost(cfg, first_step, self._metric, past)
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
            arrays.write_anywhere(folder / SETTINGS, to_json(self._cfg))
            facts = {"step": step, "metric": self._metric, "value": value}
            facts |= {"protocol": self._protocol, RUN: number_of(self._cfg.run_dir)}
            facts["beside"] = {name: file_sha256(folder / name) for name in _BESIDE}
            arrays.write_anywhere(folder / FACTS, json.dumps(sealed(facts)) + "\n")
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


def _tell_lost(cfg: Config, first_step: int, metric: str, past: list[dict]) -> None:
    """Says where the rows tell of a better validation than that of the weights that are kept."""
    rows = read_rows(cfg.run_dir, kind="eval") if first_step else []
    scores = {row["step"] + 1: row[metric] for row in rows if metric in row}
    scores = {step: value for step, value in scores.items() if step <= first_step}
    kept = past[-1]["value"] if past and past[-1]["metric"] == metric else -math.inf
    best = max(scores, key=scores.get, default=None)
    if best is not None and scores[best] > kept:
        print(
            f"the best weights of step {best} ({metric} {scores[best]:.4g} by its row) are not in "
            f"{_home(checkpoint.root_of(cfg))}: those of later validations are judged without",
            flush=True,
        )


def read_best(root: str | Path) -> dict:
    """{step, metric, value} of a run's best weights; the root as `checkpoint.find_root` says it.

    Raises FileNotFoundError where the run has kept none.
    """
    facts = _facts(_best_folder(root))
    return {name: facts[name] for name in ("step", "metric", "value")}


def best_config(root: str | Path) -> str:
    """The JSON of the configuration that made them."""
    return (_best_folder(root) / SETTINGS).read_text()


def load_best(root: str | Path, like: Any) -> Any:
    """A run's best parameters, placed as `like` says; all of the tree or part of it."""
    folder = _best_folder(root)
    return arrays.load_params(folder, like, remedy=_remedy(folder))


def _best_folder(root: str | Path) -> epath.Path:
    run, folders = _number(root), _folders(root)
    whole = [folder for folder in folders if _facts(folder, run)]
    if whole and whole[-1] != folders[-1]:
        print(f"{folders[-1]} has no {FACTS}, so it is not whole: using {whole[-1]}", flush=True)
    if not whole:
        raise FileNotFoundError(
            f"{_home(root)} holds no best weights; train with --set eval.every=N and "
            f"checkpoint.best, or use the newest checkpoint"
        )
    return whole[-1]


def _number(root: str | Path) -> str | None:
    """Of the run whose checkpoints lie there, if any does."""
    step = checkpoint.latest_step(root)
    return checkpoint.saved_record(root, step).get(RUN) if step else None


def check_best(root: str | Path, run: str | None) -> None:
    """Raises ValueError where a file beside kept weights is damaged, or another run's."""
    for folder in _folders(root):
        _facts(folder, run)


def _home(root: str | Path) -> epath.Path:
    return folder_at(root) / FOLDER


def _folders(root: str | Path) -> list[epath.Path]:
    """Those of kept weights, whole or not, by their steps."""
    home = _home(root)
    found = [path for path in home.iterdir() if path.name.isdigit()] if home.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def _facts(folder: epath.Path, run: str | None = None) -> dict | None:
    """Of a folder that is whole; None of another.

    run   the number of the run, where it is known

    Raises ValueError naming a file that is not what was written, or is another run's.
    """
    path, remedy = folder / FACTS, _remedy(folder)
    facts = read_sealed(path, remedy, missing={})
    check_number(path, facts, run, remedy)
    for name, wanted in facts.get("beside", {}).items():
        if not (folder / name).is_file() or file_sha256(folder / name) != wanted:
            raise ValueError(f"{folder / name} is not what was written; {remedy}")
    return facts or None


def _remedy(folder: epath.Path) -> str:
    return f"take its copy back, or move {folder} away to go on without"


def _remove(folder: epath.Path) -> None:
    """Not whole first, then gone: a kill in between leaves nothing that passes for whole."""
    (folder / FACTS).unlink(missing_ok=True)
    folder.rmtree()
