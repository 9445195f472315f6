"""Evaluation reads what it scores, once, and nothing else."""

from functools import partial

import jax
import pytest

from dig_jax import evaluate
from dig_jax.config import Config, DataConfig, EvalConfig, ModelSource
from dig_jax.data import records
from dig_jax.mesh import sharding
from dig_jax.report import beside_text, read_beside, read_evaluations
from dig_jax.run import session
from dig_jax.scoring.table import read_evaluation
from tests.corpora import plain_pair, write_split
from tests.tiny_model import ASSETS


def test_only_the_scored_split_is_opened_and_each_shard_hashed_once(tmp_path, monkeypatch):
    """Where one split is rendered and no training bucket is there (R22)."""
    pairs = [plain_pair((8, 8, 30, 30), size=(64, 96), seed=i) for i in range(2)]
    write_split(tmp_path, "test_noise", pairs)
    one_device = partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(session.sharding, "make_mesh", one_device)
    hashed, sha256 = [], records.file_sha256
    monkeypatch.setattr(records, "file_sha256", lambda path: hashed.append(path) or sha256(path))
    monkeypatch.setattr(evaluate, "load_weights", lambda session, source: None)

    def by_pixels(session):
        return lambda weights, batches: evaluate.pixel_rows(cfg, batches)

    monkeypatch.setattr(evaluate, "make_evaluator", by_pixels)
    cfg = Config(
        run_dir=str(tmp_path / "run"),
        model=ModelSource(str(ASSETS)),
        data=DataConfig(
            root=str(tmp_path), image_width=96, image_height=64, eval_split="test_noise"
        ),
        eval=EvalConfig(pairs=2, batch=2, every=0),
    )
    args = ("--name", "noise", "--source", str(ASSETS))
    monkeypatch.setattr(evaluate, "config_from", lambda args: cfg)
    evaluate.main(["--config", "unused", *args])
    assert [path.parent.name for path in hashed] == ["test_noise"]
    assert (tmp_path / "run" / "eval_noise.json").is_file()


def test_more_scores_the_greedy_answer_and_the_splits_beside(tmp_path, monkeypatch):
    """A baseline has no other answer: only the splits. The report shows what has both ends."""
    for name, seed in (("heldout", 0), ("test_noise", 5)):
        pairs = [plain_pair((8, 8, 30, 30), size=(64, 96), seed=seed + i) for i in range(3)]
        write_split(tmp_path, name, pairs)
    one_device = partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(session.sharding, "make_mesh", one_device)
    monkeypatch.setattr(evaluate, "load_weights", lambda session, source: None)

    def by_pixels(session):
        return lambda weights, batches: evaluate.pixel_rows(session.cfg, batches)

    monkeypatch.setattr(evaluate, "make_evaluator", by_pixels)
    cfg = Config(
        run_dir=str(tmp_path / "run"),
        model=ModelSource(str(ASSETS)),
        data=DataConfig(root=str(tmp_path), image_width=96, image_height=64),
        eval=EvalConfig(pairs=3, batch=2, samples=2, every=0, splits=("test_noise",)),
    )
    monkeypatch.setattr(evaluate, "config_from", lambda args: cfg)
    for name, how in (("before", ()), ("after", ()), ("pixel_diff", ("--pixel-diff",))):
        evaluate.main(["--config", "unused", "--name", name, "--more", *how])
    found = {path.stem for path in (tmp_path / "run").glob("eval_*.json")}
    both = {f"eval_{name}{end}" for name in ("before", "after") for end in
            ("", "_greedy", "_test_noise")}  # fmt: skip
    assert found == both | {"eval_pixel_diff", "eval_pixel_diff_test_noise"}
    read = read_evaluation(tmp_path / "run" / "eval_after_greedy.json")
    assert (read["protocol"]["decode"], read["protocol"]["pairs"]) == ("greedy", 3)
    assert read_evaluation(tmp_path / "run" / "eval_after.json")["protocol"]["decode"].startswith(
        "2"
    )
    told = read_beside(tmp_path / "run", read_evaluations(tmp_path / "run"))
    assert {name: list(some) for name, some in told.items()} == {
        "greedy": ["before", "after", "pixel_diff"],
        "test_noise": ["before", "after", "pixel_diff"],
    }
    assert "The greedy answer to 3 pairs of `test_noise`:" in "\n".join(beside_text(told))


def test_training_still_opens_its_buckets_first(tmp_path, monkeypatch):
    one_device = partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(session.sharding, "make_mesh", one_device)
    data = DataConfig(root=str(tmp_path), image_width=96, image_height=64)
    with pytest.raises(FileNotFoundError, match="single holds no rendered pairs"):
        session.open_session(Config(model=ModelSource(str(ASSETS)), data=data))
