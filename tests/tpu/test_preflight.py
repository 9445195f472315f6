"""The preflight's arithmetic against arrays that are really placed, and its programs' lowering."""

import functools
import importlib.util
import json
import math
import re
import types
from dataclasses import replace

import jax
import numpy as np
import pytest

from dig_jax.common import typed
from dig_jax.config import (
    Config,
    EvalConfig,
    GrpoConfig,
    MeshConfig,
    ModelSource,
    OptimConfig,
    RolloutConfig,
    SftConfig,
    to_json,
)
from dig_jax.mesh import programs, sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model.sizes import released
from dig_jax.reward.reward import Reward
from dig_jax.run.experience import learned_reward
from tests import tiny_model
from tpu import compile_phase, gpu_target, hlo_report, preflight, slices, table
from tpu.compile_phase import Request, Result
from tpu.phases import PromptShape, bytes_per_device, names_of, phases
from tpu.prompt_shape import bound

PAIRS, GIB = 8, 2**30
CONFIG = Config(
    pairs_per_step=PAIRS,
    model=ModelSource(compute_dtype="bfloat16", remat="full"),
    rollout=RolloutConfig(group=2, max_tokens=6),
    grpo=GrpoConfig(kl_coef=0.01, reference="bfloat16", answer_slices=2),
    optim=OptimConfig(freeze=("vision",)),
    eval=EvalConfig(batch=PAIRS),
    mesh=MeshConfig(fsdp=2, tensor=4),
)
SHAPE = PromptShape(tokens=21, image=tiny_model.SIZE)
POD = ["--config", "configs/pod_8b.py", "--model", "8B"]
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="compiling for TPUs needs libtpu: pip install -c constraints.txt -e '.[tpu]'",
)


class QuickLayout(tiny_model.QuickLayout):
    """Whose rollout may be computed in another split."""

    split = "heads"

    @property
    def rollout_model(self):
        return replace(super().rollout_model, split=self.split)


@functools.cache
def layout(kind: str = "xla") -> QuickLayout:
    """The micro model on 2 x 4 of the virtual devices."""
    model = replace(tiny_model.CONFIG, compute_dtype="bfloat16", remat="full", attention=kind)
    return QuickLayout(CONFIG, sharding.make_mesh(CONFIG.mesh), model)


def held(tree) -> int:
    """Bytes of placed arrays on the first device."""
    first = jax.devices()[0]
    shards = [s for leaf in jax.tree.leaves(tree) for s in leaf.addressable_shards]
    return sum(s.data.nbytes for s in shards if s.device == first)


# The table of slices


@pytest.mark.parametrize("name", slices.names())
def test_a_slice_has_as_many_devices_as_its_topology_and_its_mesh(name):
    on = slices.find(name)
    chips = math.prod(int(n) for n in on.topology.split(":")[-1].split("x"))
    assert on.devices == chips * (2 if name.startswith("tpu7x") else 1)
    assert math.prod(on.mesh) == on.devices
    assert on.hbm_gib > 15
    assert 50 < on.peak / on.bandwidth < 1000  # FLOP a byte: no unit is off by a thousand


@pytest.mark.parametrize("size", ["4b", "8b"])
@pytest.mark.parametrize("name", slices.names())
def test_a_suggested_mesh_divides_the_released_sizes(name, size):
    on = slices.find(name)
    assert slices.check_mesh(on, on.mesh, released(size), pairs=on.devices) is None


def test_an_unknown_slice_lists_the_nearest():
    with pytest.raises(ValueError, match=r"'v5e16' is not known; nearest: v5e-16"):
        slices.find("v5e16")
    assert slices.find("v5e-16").devices == 16


@pytest.mark.parametrize(
    ("mesh", "pairs", "told"),
    [
        ((1, 64), 64, r"heads=32 is not divisible .* --set mesh.fsdp=4 --set mesh.tensor=16"),
        ((4, 8), 64, r"32 devices, but the slice has 64; .*mesh.fsdp=8 --set mesh.tensor=8"),
        ((8, 8), 48, r"64 devices do not divide the 48 pairs .*; no mesh of 64 devices works"),
    ],
)
def test_a_mesh_that_does_not_divide_is_refused_with_the_nearest_that_does(mesh, pairs, told):
    on = slices.find("v5e-64")
    with pytest.raises(ValueError, match=told) as caught:
        slices.check_mesh(on, mesh, released("8b"), pairs)
    near = re.search(r"mesh.fsdp=(\d+) --set mesh.tensor=(\d+)$", str(caught.value))
    if near:
        slices.check_mesh(on, tuple(map(int, near.groups())), released("8b"), pairs)
    else:  # "give each of them a pair, or take fewer"
        slices.check_mesh(on, mesh, released("8b"), 64)
        slices.check_mesh(slices.find("v5e-16"), (4, 4), released("8b"), pairs)


def test_a_config_is_taken_to_the_slice_unless_told_otherwise():
    on = slices.find("v5e-64")
    cfg, changes = preflight.fit_config(CONFIG, on, [])
    assert (cfg.mesh.fsdp, cfg.mesh.tensor, cfg.pairs_per_step) == (8, 8, 64)
    assert "mesh.fsdp=8" in changes
    assert "pairs_per_step=64" in changes
    same, changes = preflight.fit_config(CONFIG, slices.find("v5e-8"), [])
    assert (same, changes) == (CONFIG, [])


def test_settings_need_not_be_valid_on_the_mesh_that_the_config_came_with():
    """8 gradient slices of 8 pairs: one pair at a time, which one device takes and eight do not."""
    cfg, changes = preflight.fit_config(CONFIG, slices.find("h200"), ["grpo.accumulate=8"])
    assert (cfg.pairs_per_step, cfg.grpo.accumulate, cfg.mesh.tensor) == (PAIRS, 8, 1)
    cfg, changes = preflight.fit_config(CONFIG, slices.find("v5e-16"), ["grpo.accumulate=2"])
    assert cfg.pairs_per_step == 32
    assert "pairs_per_step=32" in changes


# What lies on a device


def test_resident_bytes_are_those_of_placed_arrays():
    on = layout()
    params = jax.device_put(tiny_model.make_tiny(jax.random.key(0)), on.shardings)
    start = functools.partial(programs.start_state, on)
    state = on.jit(start, out_shardings=programs.state_shardings(on))(params)
    assert bytes_per_device(programs.state_shapes(on)) == held(state)
    weights = programs.jit_reshard(on)(params)
    assert bytes_per_device(programs.rollout_shapes(on)) == held(weights)
    prompt, images = sharding.shard_global(tiny_model.pairs_of(PAIRS), on.mesh)
    given = phases(on, PromptShape(prompt.tokens.shape[1], tiny_model.SIZE))["view"].given
    assert bytes_per_device(given[1:]) == held((prompt, images))


def test_what_the_host_keeps_is_not_on_the_device():
    cfg = replace(CONFIG, grpo=replace(CONFIG.grpo, reference="host"))
    state = programs.state_shapes(replace(layout(), cfg=cfg))
    assert bytes_per_device(state) == bytes_per_device(state.replace(reference=None))


def test_each_phase_takes_what_the_one_before_gives():
    """Shapes and dtypes of the arguments, from tracing the programs that make them."""
    found = phases(layout(), SHAPE)
    assert list(found) == ["reshard", "view", "sample", "update"]

    def gives(name):
        return jax.eval_shape(found[name].program, *found[name].given)

    def same(made, wanted):
        pairs = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), made, wanted)
        return all(jax.tree.leaves(pairs))

    assert same(gives("reshard"), found["sample"].given[0])
    assert same(gives("view"), found["sample"].given[2])
    assert same(gives("sample"), found["update"].given[3])
    assert same(gives("update")[0], found["update"].given[0])


def test_an_update_that_learns_from_parts_is_given_parts():
    """Of the shape that `train` gives it, or it cannot be traced."""
    cfg = typed.override(CONFIG, ["grpo.advantage=parts", "reward.overlong_buffer=1"])
    update = phases(replace(layout(), cfg=cfg), SHAPE)["update"]
    parts = {name: np.zeros(update.given[4].shape[:2]) for name in cfg.reward.parts}
    reward = learned_reward(cfg, Reward(total=parts["format"], parts=parts))
    assert reward.shape == update.given[4].shape
    assert jax.eval_shape(update.program, *update.given)[0].step.shape == ()


def test_a_supervised_step_is_one_phase_that_takes_what_a_run_gives_it(tmp_path):
    """Rows as `lessons` makes them, on the mesh; there is no rollout, and no reference."""
    sft = SftConfig(questions_per_step=16, questions_root="q", accumulate=2)
    cfg = replace(CONFIG, learner="sft", pairs_per_step=16, sft=sft)
    on = replace(layout(), cfg=cfg)
    found = phases(on, SHAPE)
    assert list(found) == names_of(cfg, seen=True) == ["sft_update"]
    state, lessons = found["sft_update"].given
    assert state.reference is None
    assert lessons.pairs.images.shape == (16, 2, *tiny_model.SIZE, 3)
    assert lessons.questions.images.shape == (16, 1, *tiny_model.SIZE, 3)
    cells = tiny_model.CONFIG.cells(*tiny_model.SIZE)
    assert lessons.questions.prompt.tokens.shape == (16, SHAPE.tokens - cells)
    made = jax.eval_shape(found["sft_update"].program, state, lessons)[0]
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), made, state)
    assert all(jax.tree.leaves(same))


def test_the_vision_tower_is_seen_by_the_update_where_it_is_trained():
    cfg = replace(CONFIG, optim=OptimConfig())
    found = phases(replace(layout(), cfg=cfg), SHAPE)
    assert "view" not in found
    assert found["update"].given[2].dtype == np.uint8


def test_a_prompt_is_bounded_by_its_images_and_the_bytes_of_its_question():
    """480x320 is 15 x 10 cells of 32 pixels, two images with their two marks."""
    cfg = replace(Config(), data=replace(Config().data, image_width=480, image_height=320))
    shape = bound(cfg, released("8b"))
    assert shape.image == (320, 480)
    text = shape.tokens - 2 * (150 + 2)
    assert len(cfg.prompt.question) < text < len(cfg.prompt.question) + 20


# Programs


@pytest.mark.parametrize("name", ["sample", "update"])
def test_programs_lower_for_tpus_without_one(name):
    """Pallas kernels under the mesh and all: what libtpu would be given to compile."""
    text = replace(tiny_model.CONFIG.text, head_dim=128, mrope_section=(24, 20, 20), layers=1)
    on = layout("splash")
    phase = phases(replace(on, model=replace(on.model, text=text)), SHAPE)[name]
    lowered = phase.program.trace(*phase.given).lower(lowering_platforms=("tpu",)).as_text()
    assert "tpu_custom_call" in lowered
    assert "sharding_constraint" in lowered or "@Sharding" in lowered


class Unplaced(QuickLayout):
    """Answering with the update's hints."""

    split = "pairs"


def travelling(kind: type[QuickLayout]) -> list[str]:
    """Shapes that move between devices in the layers of one decoding step, on 2 x 4 devices."""
    plain = replace(CONFIG, model=ModelSource())
    on = kind(plain, sharding.make_mesh(CONFIG.mesh), tiny_model.CONFIG)
    phase = phases(on, SHAPE)["sample"]
    bodies = hlo_report.read(phase.program.lower(*phase.given).compile().as_text())
    parents = {body.name: body.parent for body in bodies}
    layers = [
        b for b in bodies if parents.get(b.parent) and b.trips == tiny_model.CONFIG.text.layers
    ]
    assert len(layers) == 1, parents
    return [f"{value.op} {value.shape}" for value in layers[0].collectives]


def test_decoding_a_token_moves_no_weights_and_no_heads():
    """4 pairs x 2 answers of width 32 on a row of the mesh, summed twice a layer."""
    assert travelling(QuickLayout) == ["all-reduce f32[4,2,1,32]"] * 2


def test_hints_of_the_update_would_gather_weights_for_every_token():
    """The ablation: `wo` [8, 8, 32] and `wv` [32, 4, 8] travel whole."""
    assert "all-gather f32[8,8,32]" in travelling(Unplaced)


@needs_libtpu
def test_a_program_compiles_for_a_slice():
    cfg = replace(CONFIG, mesh=MeshConfig(fsdp=1, tensor=4), model=ModelSource())
    request = Request("v5e-4", "reshard", "", to_json(cfg), 75, (64, 96))
    result = preflight.run_compile(request, fast=True)
    assert not result.problem, result.problem
    assert 0 < result.peak < 0.1 * GIB


def test_blocks_are_unrolled_in_a_rollout_on_a_gpu_unless_told_otherwise():
    """In a loop there every block's weights and keys are copied out of their stack."""

    def layers(platform: str, how: str = "auto") -> str:
        device = types.SimpleNamespace(platform=platform)
        mesh = types.SimpleNamespace(devices=np.array([[device]]))
        cfg = replace(CONFIG, rollout=replace(CONFIG.rollout, layers=how))
        return Layout(cfg, mesh, tiny_model.CONFIG).rollout_model.layers

    assert [layers(one) for one in ("cpu", "tpu", "gpu")] == ["one_scan", "one_scan", "unroll"]
    assert layers("gpu", "model") == "one_scan"
    assert layers("cpu", "unroll") == "unroll"


# What is printed


def run_main(monkeypatch, capsys, results: dict[str, Result], *more: str) -> tuple[int, str]:
    monkeypatch.setattr(preflight, "check_compiler", lambda on: None)
    monkeypatch.setattr(preflight, "run_compile", lambda request, fast: results[request.phase])
    code = preflight.main(["--slice", "v5e-16", *POD, *more])
    return code, capsys.readouterr().out


def fitting() -> dict[str, Result]:
    sizes = {"reshard": (6, 5), "view": (3, 7), "sample": (5, 7), "update": (12, 0)}
    return {n: Result(n, peak=p * GIB, beside=b * GIB) for n, (p, b) in sizes.items()}


def test_a_run_that_fits_exits_with_0(monkeypatch, capsys):
    code, text = run_main(monkeypatch, capsys, fitting())
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()[2:]] == list(fitting())
    assert "5.00      7.00   12.00   15.75      3.75" in text


def test_what_stays_beside_a_program_counts(monkeypatch, capsys):
    """Peak and residents fit alone, and not together."""
    results = fitting() | {"sample": Result("sample", peak=9 * GIB, beside=7 * GIB)}
    code, text = run_main(monkeypatch, capsys, results)
    assert code == 1
    assert "sample" in text
    assert "-0.25" in text
    assert "try --set grpo.reference=host" in text


def test_a_compiler_that_refuses_or_crashes_exits_with_1(monkeypatch, capsys):
    words = "RESOURCE_EXHAUSTED: Used 19.01G of 15.75G hbm. Exceeded hbm capacity by 3.26G"
    needs = compile_phase.bytes_wanted(words)
    over = Result("update", problem=words, needs=needs)
    code, text = run_main(monkeypatch, capsys, fitting() | {"update": over})
    assert code == 1
    assert "19.01" in text
    crash = Result("update", problem="its process ended with -6")
    code, text = run_main(monkeypatch, capsys, {"update": crash}, "--phase", "update")
    assert code == 1
    assert "no program" in text
    assert "did not compile" in text
    assert "try --set" not in text


def test_a_missing_compiler_is_told_with_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"libtpu is not installed .* pip install .*\[tpu\]"):
        preflight.check_compiler(slices.find("v5e-16"))
    with pytest.raises(ValueError, match=r"CUDA plugin is not installed .*\[cuda\]"):
        preflight.check_compiler(slices.find("8xh100"))


def test_changes_are_not_advised_where_they_are_made():
    wide = replace(CONFIG, grpo=GrpoConfig(kl_coef=0.01), model=ModelSource())
    update = Result("update")
    assert "grpo.answer_slices=2" in table.changes(update, wide)
    assert "model.remat=full" in table.changes(update, wide)
    assert not {"grpo.answer_slices=2", "model.remat=full"} & {*table.changes(update, CONFIG)}


# Reports


PROGRAM = """HloModule jit_update, is_scheduled=true

%fused (p: bf16[8,4]) -> bf16[8,4] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %gathered = bf16[64,4]{1,0} all-gather(%p), dimensions={0}, metadata={op_name="a/b"}
}

%condition (c: (s32[], f32[16,16])) -> pred[] {
  %limit = s32[]{:T(128)} constant(36)
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

%body (b: (s32[], f32[16,16])) -> (s32[], f32[16,16]) {
  %x = bf16[8,4]{1,0} fusion(%y), kind=kLoop, calls=%fused, "estimated_cycles":"100"
  %sum = f32[16,16]{1,0:T(8,128)} all-reduce(%z), to_apply=%add, metadata={op_name="jit(f)/while/body/mul"}
  ROOT %t = (s32[], f32[16,16]) tuple(%i, %sum)
}

ENTRY %main (a: f32[16,16]) -> f32[16,16] {
  %a = f32[16,16]{1,0} parameter(0)
  %big = f32[1024,1024]{1,0} broadcast(%a), dimensions={}, "estimated_cycles":"7"
  %loop = (s32[], f32[16,16]) while(%init), condition=%condition, body=%body
  ROOT %out = f32[16,16]{1,0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


def test_a_report_finds_loops_their_turns_and_what_travels_in_them():
    main, loop = hlo_report.read(PROGRAM)
    assert (main.trips, loop.trips, loop.parent) == (1, 36, "main")
    assert [(c.op, c.shape, c.bytes) for c in loop.collectives] == [
        ("all-gather", "bf16[64,4]", 512),
        ("all-reduce", "f32[16,16]", 1024),
    ]
    assert not main.collectives
    assert hlo_report.total_cycles([main, loop]) == 7 + 36 * 100
    assert hlo_report.largest([main, loop], 1)[0].shape == "f32[1024,1024]"
    assert "x36" in hlo_report.report([main, loop])


def test_a_specification_is_cut_out_of_the_plugin():
    plugin = b'\0gpu_device_info {\n a: 1\n}\ndevice_description_str: "One"\nruntime_version {\n'
    plugin += b'# x\ngpu_device_info {\n a: 2\n}\ndevice_description_str: "Two"\nruntime'
    text = gpu_target.find_target(plugin, "Two")
    assert text == 'gpu_device_info {\n a: 2\n}\ndevice_description_str: "Two"\n'
    with pytest.raises(ValueError, match=r"no specification of 'Three'; it has \['One', 'Two'\]"):
        gpu_target.find_target(plugin, "Three")
    assert "a: 1" in gpu_target.find_target(plugin, "One")  # one of those that it has


def test_a_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation; give the text of a compiled"):
        hlo_report.read("no program")
    assert hlo_report.read(jax.jit(jax.numpy.cos).lower(1.0).compile().as_text())


def test_a_request_survives_the_way_to_its_process():
    request = Request("v5e-16", "update", "8b", to_json(CONFIG), 403, (320, 480))
    sent = json.loads(json.dumps(request.__dict__))
    assert Request(**{**sent, "image": tuple(sent["image"])}) == request
