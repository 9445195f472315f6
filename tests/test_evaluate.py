"""Evaluation reads what it scores, once, and nothing else."""

from functools import partial

import jax
import pytest

from dig_jax import evaluate
from dig_jax.config import Config, DataConfig, EvalConfig, ModelSource
from dig_jax.data import records
from dig_jax.mesh import sharding
from dig_jax.run import session
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

    def by_pixels(session, batches):
        return lambda weights: evaluate.pixel_rows(cfg, batches)

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


def test_training_still_opens_its_buckets_first(tmp_path, monkeypatch):
    one_device = partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(session.sharding, "make_mesh", one_device)
    data = DataConfig(root=str(tmp_path), image_width=96, image_height=64)
    with pytest.raises(FileNotFoundError, match="single holds no rendered pairs"):
        session.open_session(Config(model=ModelSource(str(ASSETS)), data=data))
