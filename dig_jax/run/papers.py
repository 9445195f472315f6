"""The files of a run folder, looked through before the run goes on."""

from pathlib import Path

from dig_jax.common import rows
from dig_jax.config import Config
from dig_jax.run import best, checkpoint, resume, runlog, samples, trackers


def check_papers(cfg: Config) -> None:
    """Raises ValueError naming a file that is damaged or another run's, and what to do about it.

    Every process calls it; the run folder that counts is that of process 0.
    """
    resume.check_on_first(lambda: _read(cfg), "a file of the run folder")


def _read(cfg: Config) -> str:
    run = checkpoint.run_number(cfg)
    for name in (runlog.METRICS, samples.ROWS):
        rows.read_lines(Path(cfg.run_dir) / name, run)
    trackers.read_ids(cfg.run_dir, run)
    best.check_best(checkpoint.root_of(cfg), run)
    return ""
