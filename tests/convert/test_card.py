"""A card says what the run's files say, and that a file is missing where it is."""

import dataclasses
import json
from pathlib import Path

import pytest

from dig_jax.config import Config, DataConfig, OptimConfig, SftConfig
from dig_jax.convert import card

SUMMARY = {"f1": [0.25, 0.125, 0.5], "reward": [1.0, 0.75, 1.25]}


@pytest.fixture
def cfg(tmp_path):
    """A run folder and a data root, both empty."""
    (tmp_path / "run").mkdir()
    data = DataConfig(root=str(tmp_path / "data"), buckets=("single", "dual", "mixed"))
    optim = OptimConfig(rate=3e-4, freeze=("vision",))
    return Config(name="trial", seed=11, run_dir=str(tmp_path / "run"), data=data, optim=optim)


def text_of(cfg: Config, *, source: str = "somewhere/base", step: int = 4) -> str:
    return card.card_text(cfg, step, source=source, dtype="bfloat16")


def section(text: str, title: str) -> str:
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def write_evaluation(cfg: Config, name: str, **protocol) -> None:
    facts = {"split": "heldout", "pairs": 120, "decode": "greedy", "iou_threshold": 0.5}
    body = {"name": name, "protocol": facts | protocol, "summary": SUMMARY, "rows": []}
    (Path(cfg.run_dir) / f"eval_{name}.json").write_text(json.dumps(body))


def write_checkpoint(cfg: Config, step: int) -> None:
    (Path(cfg.run_dir) / "checkpoints" / str(step)).mkdir(parents=True)


def write_manifest(cfg: Config, split: str, *, k_low: int, k_high: int) -> None:
    folder = Path(cfg.data.root) / split
    folder.mkdir(parents=True)
    manifest = {
        "complete": True,
        "pairs": 640,
        "request": {"draw": {"seed": 77, "k_low": k_low, "k_high": k_high}, "pairs": 640},
        "settings": {"width": 96, "height": 64, "samples": 4, "attempts": 9},
        "types": {"color": 5, "remove": 6},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_an_empty_run_is_a_card_of_what_is_missing(cfg):
    text = text_of(cfg)
    assert section(text, "Data").count(card.SEED_MISSING) == 4
    assert "Not evaluated, or not in the run folder: before, after, pixel difference." in text
    assert "no manifest.json in the run folder" in section(text, "Made by")
    head = text.split("---")[1]
    assert "license" not in head
    assert "base_model" not in head


def test_front_matter_is_what_the_hub_reads(cfg, tmp_path):
    source = tmp_path / "models" / "Qwen3-VL-8B-Thinking"
    source.mkdir(parents=True)
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\nlicense: mine\n")
    lines = text_of(cfg, source=str(source)).split("---")[1].strip().splitlines()
    assert lines[:4] == [
        "library_name: transformers",
        "pipeline_tag: image-text-to-text",
        "base_model: Qwen/Qwen3-VL-8B-Thinking",
        "license: apache-2.0",
    ]
    assert lines[4:] == ["tags:", "- qwen3_vl", "- difference-grounding", "- grpo", "- jax"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/x/models--Qwen--Qwen3-VL-2B-Instruct/snapshots/0a1b", "Qwen/Qwen3-VL-2B-Instruct"),
        ("gs://bucket/Qwen3-VL-4B-Instruct/", "Qwen/Qwen3-VL-4B-Instruct"),
        ("assets/tiny_qwen3vl", None),
        ("data/Qwen3-VL-8B-mine", None),
    ],
)
def test_only_a_path_that_shows_a_hub_name_gives_one(source, name):
    assert card.base_model(source) == name


def test_a_license_outside_the_front_matter_is_not_one(tmp_path):
    (tmp_path / "README.md").write_text("# mine\n\nlicense: mit\n")
    assert card.license_of(str(tmp_path)) is None
    assert card.license_of(str(tmp_path / "none")) is None


def test_data_come_with_seed_and_recipe(cfg):
    write_manifest(cfg, "single", k_low=1, k_high=1)
    write_manifest(cfg, "heldout", k_low=1, k_high=3)
    data = section(text_of(cfg), "Data")
    assert (
        "`single` (training): 640 pairs, seed 77; 1 differences; width 96; height 64; samples 4; "
        "kinds: color 5, remove 6" in data
    )
    assert "`heldout` (held out): 640 pairs, seed 77; 1 to 3 differences" in data
    assert data.count(card.SEED_MISSING) == 2


def test_training_is_the_configuration(cfg):
    training = section(text_of(cfg), "Training")
    for fact in (
        "60 planned, 16 pairs each, seed 11",
        "8 answers a pair, at most 96 tokens, temperature 1",
        "1 format + 1 F1@0.5 + 1 mean IoU, Hungarian matching",
        "KL: 0.01 to the fixed reference",
        "rate: 0.0003, constant after 0 steps",
        "frozen: vision",
        "until step 40 single 0.3, dual 0.7",
    ):
        assert fact in training


def test_a_supervised_run_is_not_called_grpo(cfg):
    """Nor does its card tell of rewards and rollouts, or of pairs that it never saw."""
    sft = SftConfig(questions_per_step=8, questions_root="q", changed_weight=1.0)
    text = text_of(dataclasses.replace(cfg, learner="sft", sft=sft))
    assert "boxes the differences between two images and answers questions about pictures, " in text
    assert "trained by supervised learning" in text
    assert "- sft" in text.split("---")[1]
    training = section(text, "Training")
    assert "60 planned, 16 pairs and 8 questions each, seed 11" in training
    assert "changed_weight 1, things_weight 0" in training
    assert not any(word in training for word in ("reward", "KL", "rollout"))
    assert "Questions of `q`: here." in section(text, "Data")
    alone = dataclasses.replace(sft, pairs_weight=0.0)
    text = text_of(dataclasses.replace(cfg, learner="sft", sft=alone))
    assert "A Qwen3-VL that answers questions about pictures, trained" in text
    assert "Rendered pairs" not in text


def test_scores_come_with_interval_and_protocol(cfg):
    write_checkpoint(cfg, 4)
    write_evaluation(cfg, "before")
    write_evaluation(cfg, "after", decode="4 samples at temperature 1.0")
    scores = section(text_of(cfg), "Scores")
    line = next(line for line in scores.splitlines() if line.startswith("| before"))
    cells = line.split(" | ")
    assert "| F1@0.5 |" in scores
    assert cells[3] == "0.250 [0.125, 0.500]"
    assert cells[1] == "missing"  # precision was not in the file
    assert "- before: split heldout, pairs 120, decode greedy" in scores
    assert "- after: split heldout, pairs 120, decode 4 samples at temperature 1.0" in scores
    assert "Not evaluated, or not in the run folder: pixel difference." in scores
    assert "do not record their step" not in scores


def test_scores_of_another_step_are_not_claimed(cfg):
    write_checkpoint(cfg, 4)
    write_checkpoint(cfg, 8)
    write_evaluation(cfg, "after")
    said = "do not record their step; the newest checkpoint is 8, this export is of 4"
    assert said in section(text_of(cfg), "Scores")
    assert said not in text_of(cfg, step=8)
    write_evaluation(cfg, "other", iou_threshold=0.75)
    assert "F1@" not in section(text_of(cfg), "Scores").partition("Protocol")[0]


def test_the_commit_is_the_last_starts(cfg):
    starts = [{"commit": "old"}, {"commit": "abc+changes", "versions": {"jax": "0.12.0"}}]
    (Path(cfg.run_dir) / "manifest.json").write_text(json.dumps({"starts": starts}))
    made = section(text_of(cfg), "Made by")
    assert "- commit: abc+changes" in made
    assert "- versions: jax 0.12.0" in made
    assert "- device: not recorded" in made


def test_limits_name_what_was_not_measured(cfg):
    other = dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, max_boxes=5))
    limits = section(text_of(other), "Limits")
    assert "nothing here was measured on photographs" in limits
    assert "at most 5 true boxes" in limits
