"""The GPU benchmark's parts on a small model here, and what its table says of those that fail."""

import functools
import math
import time
from dataclasses import replace

import jax
import pytest

from dig_jax.config import (
    Config,
    EvalConfig,
    GrpoConfig,
    ModelSource,
    OptimConfig,
    RolloutConfig,
)
from dig_jax.mesh import programs, sharding
from scripts.bench import gpu
from scripts.bench.gpu_parts import filled, parts
from tests import tiny_model
from tpu import compile_phase, slices
from tpu.phases import PromptShape, phases

SHAPE, GIB = PromptShape(tokens=21, image=tiny_model.SIZE), 2**30
CONFIG = Config(
    pairs_per_step=2,
    model=ModelSource(compute_dtype="bfloat16", remat="full"),
    rollout=RolloutConfig(group=2, max_tokens=8, chunk=4),
    grpo=GrpoConfig(kl_coef=0.01, reference="bfloat16", accumulate=2, answer_slices=2),
    optim=OptimConfig(freeze=("vision",)),
    eval=EvalConfig(batch=2),
)
DEFAULTS = {"size": "4B", "config": "configs/pod_4b.py", "settings": [], "card": "h200",
            "rounds": 1, "seconds": 60.0, "work": None}  # fmt: skip


@functools.cache
def bench(*, packed: bool = True) -> parts.Bench:
    model = replace(tiny_model.CONFIG, compute_dtype="bfloat16", remat="full")
    cfg = replace(CONFIG, grpo=replace(CONFIG.grpo, packed=packed))
    layout = tiny_model.QuickLayout(cfg, sharding.make_mesh(cfg.mesh, jax.devices()[:1]), model)
    return parts.Bench(layout, SHAPE, rounds=1)


def plan(tmp_path, **changes) -> gpu.Plan:
    args = DEFAULTS | {"out": str(tmp_path)} | changes
    return gpu.make_plan(gpu.argparse.Namespace(**args))


def shapes(tree):
    return jax.tree.map(lambda a: (a.shape, a.dtype), tree)


def test_what_is_timed_has_the_shapes_that_preflight_compiles():
    on = bench().layout
    state, prompt, seen, rollout, reward, plan = phases(on, SHAPE)["update"].given
    assert shapes(jax.eval_shape(lambda: filled.state(on))) == shapes(state)
    assert shapes(filled.prompt(on, SHAPE)) == shapes(prompt)
    answers = filled.answers(on)
    assert shapes(answers) == shapes((rollout, reward))
    assert shapes(programs.plan_update(on, answers[0])[0]) == shapes(plan)
    pixels = phases(on, SHAPE)["view"].given[2]
    assert shapes(filled.pixels(on, SHAPE)) == shapes(pixels)
    assert seen.tokens.shape[0] == len(filled.pixels(on, SHAPE))


@pytest.mark.parametrize(
    "part",
    [p if p == "machine" else pytest.param(p, marks=pytest.mark.slow) for p in parts.PARTS],
)
def test_every_part_runs_and_its_figures_are_finite(part):
    result = parts.PARTS[part](bench(packed=part != "update"))
    assert result.part == part.removesuffix("_packed")
    assert result.seconds > 0
    assert result.figures  # differences of times among them, so no signs are asked for
    assert all(math.isfinite(value) for value in result.figures.values())


def test_decoding_reads_no_less_than_must_be_read():
    figures = parts._decode_figures(bench(), 1.0)
    assert 0 < figures["floor GB/s"] < figures["read GB/s"]
    assert figures["decode tokens/s"] == 2 * 2 * 8


def test_shares_of_a_peak_are_given_for_cards_that_are_known(monkeypatch):
    assert "MFU" not in parts._rates(1e12, 1.0)
    monkeypatch.setattr(parts, "card_here", lambda: slices.find("h200"))
    assert parts._rates(989e12, 2.0)["MFU"] == pytest.approx(0.5)
    assert parts._decode_figures(bench(), 1.0)["of HBM roofline"] > 0


def test_our_prompts_and_those_of_generate_are_the_same_whatever_ends_an_answer():
    model = tiny_model.CONFIG
    endless = filled.never_ending(model)
    assert filled.prompt_ids(model, SHAPE) == filled.prompt_ids(endless, SHAPE)
    cells = SHAPE.image[0] * SHAPE.image[1] // model.vision.cell**2
    ids = filled.prompt_ids(model, SHAPE)
    assert len(ids) + 2 * (cells - 1) == SHAPE.tokens


def test_a_part_that_fails_or_comes_too_late_is_told_in_its_row(tmp_path):
    found = gpu.run_part(plan(tmp_path), "view", ("json.tool", "--nothing"))
    assert found.startswith("failed with 2: ")
    late = replace(plan(tmp_path), ends=time.monotonic())
    found = gpu.run_part(late, "view", ("json.tool",))
    assert found == "not run: no time was left"
    assert gpu.row("view", found) == ("view", "", "", "", "", "", found)


def test_a_row_compares_the_peak_with_what_preflight_asked_for():
    result = parts.Result("update", 1.5, 60.0, peak=11 * GIB, figures={"MFU": 0.456})
    planned = compile_phase.Result("update", peak=8 * GIB, beside=2 * GIB)
    cells = ("update", "1.500", "60.0", "11.00", "10.00", "+10.0%", "MFU 0.456")
    assert gpu.row("update", result, planned) == cells
    assert gpu.row("update", result)[4:6] == ("", "")


def test_every_part_asks_for_the_released_size_on_one_device(tmp_path):
    for part in gpu.SETTINGS:
        request = plan(tmp_path).request(part)
        cfg = compile_phase.from_json(request.config)
        assert (cfg.mesh.fsdp, cfg.mesh.tensor, cfg.model.compute_dtype) == (1, 1, "bfloat16")
        assert request.size == "4b"
        assert cfg.pairs_per_step * cfg.rollout.group >= (32 if "update" in part else 64)
        assert cfg.grpo.packed == (part != "update")
