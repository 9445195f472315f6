"""The weights that scored best in a run's validations, kept beside its checkpoints.

    <run_dir>/best/<steps done>/params        parameters alone, by Orbax
    <run_dir>/best/<steps done>/config.json   the resolved configuration
    <run_dir>/best/<steps done>/best.json     step, metric, value; written last

Of these folders the newest is the best. The one before it stays until a checkpoint is as new as
the newest: a run that falls back to its checkpoint falls back to what was best then.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax

from dig_jax import checkpoint, distributed
from dig_jax.config import Config, best_score, to_json
from dig_jax.runlog import write_whole

FOLDER, FACTS = "best", "best.json"


class BestKeeper:
    """Keeps the best weights of one run; every process makes one and makes the same calls.

    first_step   steps done when this start begins: what was kept later will be computed again
                 and is removed
    """

    def __init__(self, cfg: Config, first_step: int):
        self._cfg, self._metric = cfg, best_score(cfg)
        self._value: float | None = None
        stands = [f for f in _folders(cfg.run_dir) if first_step and int(f.name) <= first_step]
        if jax.process_index() == 0:
            for folder in _folders(cfg.run_dir):
                if folder not in stands or not _facts(folder):
                    _remove(folder)
        past = [facts for facts in map(_facts, stands) if facts]
        if past and past[-1]["metric"] == self._metric:
            self._value = past[-1]["value"]

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
        folder = _root(self._cfg.run_dir) / str(step)
        checkpoint.save_params(folder, params)
        if jax.process_index() == 0:
            write_whole(folder / "config.json", to_json(self._cfg))
            facts = {"step": step, "metric": self._metric, "value": value}
            write_whole(folder / FACTS, json.dumps(facts) + "\n")
            self._prune(step)
        self._value = value
        return True

    def _prune(self, newest: int) -> None:
        """Leaves the newest, and the one that a fall back to the newest checkpoint needs."""
        saved = checkpoint.latest_step(self._cfg.run_dir) or 0
        steps = [int(folder.name) for folder in _folders(self._cfg.run_dir)]
        needed = {newest, max((step for step in steps if step <= saved), default=newest)}
        for step in set(steps) - needed:
            _remove(_root(self._cfg.run_dir) / str(step))


def read_best(run_dir: str | Path) -> dict:
    """{step, metric, value} of a run's best weights.

    Raises FileNotFoundError where the run has kept none.
    """
    return json.loads((_best_folder(run_dir) / FACTS).read_text())


def best_config(run_dir: str | Path) -> str:
    """The JSON of the configuration that made them."""
    return (_best_folder(run_dir) / "config.json").read_text()


def load_best(run_dir: str | Path, like: Any) -> Any:
    """A run's best parameters, placed as `like` says; all of the tree or part of it."""
    return checkpoint.load_params(_best_folder(run_dir), like)


def _best_folder(run_dir: str | Path) -> Path:
    whole = [folder for folder in _folders(run_dir) if _facts(folder)]
    if not whole:
        raise FileNotFoundError(
            f"{_root(run_dir)} holds no best weights; train with --set eval.every=N and "
            f"checkpoint.best, or use the newest checkpoint"
        )
    return whole[-1]


def _root(run_dir: str | Path) -> Path:
    return Path(run_dir).resolve() / FOLDER


def _folders(run_dir: str | Path) -> list[Path]:
    """Those of kept weights, whole or not, by their steps."""
    root = _root(run_dir)
    found = [path for path in root.iterdir() if path.name.isdigit()] if root.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def _facts(folder: Path) -> dict | None:
    path = folder / FACTS
    return json.loads(path.read_text()) if path.is_file() else None


def _remove(folder: Path) -> None:
    """Not whole first, then gone: a kill in between leaves nothing that passes for whole."""
    (folder / FACTS).unlink(missing_ok=True)
    shutil.rmtree(folder)
