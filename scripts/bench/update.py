"""An update of packed answers beside the padded one, on the shipped model and one core.

    taskset -c 0 .venv/bin/python -m scripts.bench.update [--boxes 0.2 0.3 0.5] [--rounds 5]
        [--set grpo.accumulate=2]

Answers are made up with the lengths that lists of boxes have: 17 tokens a box and 4 more, as many
boxes as the shares of --boxes say for one, two, three, now and then one more or less. Both sides
make the same update in turn, after one that compiles; CPU seconds of the process, medians. Beside
them what prompts and vision tower take alone, forwards and back, and what an update's matrix
products would take at the rate at which the core multiplies one of their shapes. Nothing is
learned.
"""

import argparse
import time
from collections.abc import Callable
from functools import cache, partial
from statistics import median

import jax
import numpy as np

from dig_jax.common import typed
from dig_jax.common.commandline import add_settings, clear_errors
from dig_jax.config import Config, load_config
from dig_jax.hf.weights import load_params, read_model_config
from dig_jax.inputs.prompt import load_processor, make_prompt, repeat_prompt
from dig_jax.mesh import programs, sharding
from dig_jax.mesh.flops import traced_flops
from dig_jax.mesh.layout import Layout
from dig_jax.model.config import ModelConfig
from dig_jax.model.qwen3vl import encode_prompt
from dig_jax.sampler.rollout import Rollout
from tpu.phases import answer_shapes


def made_up(cfg: Config, boxes: list[float]) -> Rollout:
    """Answers whose tokens say nothing, in NumPy."""
    rng, longest = np.random.default_rng(0), cfg.rollout.max_tokens
    shape = (cfg.pairs_per_step, cfg.rollout.group)
    true = rng.choice(len(boxes), p=boxes, size=(shape[0], 1)) + 1
    found = np.maximum(true + rng.integers(-1, 2, shape) * (rng.random(shape) < 0.3), 1)
    valid = np.arange(longest) < np.minimum(4 + 17 * found, longest)[..., None]
    return Rollout(
        tokens=np.where(valid, rng.integers(10, 200, valid.shape), 0).astype(np.int32),
        valid=valid,
        ended=np.ones(shape, bool),
        logp=np.where(valid, -1.0, 0.0).astype(np.float32),
    )


def seconds(call: Callable) -> float:
    start = time.process_time()
    jax.block_until_ready(call())
    return time.process_time() - start


def side(cfg: Config, boxes: list[float]) -> tuple[Callable, str, Callable]:
    """An update that goes on from the last one, what it computes, and its prompts' part alone."""
    model = read_model_config(cfg.model.source)
    layout = Layout(cfg, sharding.make_mesh(cfg.mesh, jax.devices()[:1]), model)
    size = (cfg.data.image_height, cfg.data.image_width)
    row = make_prompt(
        cfg.prompt, load_processor(cfg.model.source), model, [[size, size]], names=["pair"],
        answer=cfg.rollout.max_tokens,
    )  # fmt: skip
    prompt, rng = repeat_prompt(row, cfg.pairs_per_step), np.random.default_rng(1)
    images = rng.integers(0, 256, (cfg.pairs_per_step, 2, *size, 3), np.uint8)
    rollout, reward = made_up(cfg, boxes), rng.random(answer_shapes(layout)[1].shape)
    plan, used = programs.plan_update(layout, rollout)
    given = (prompt, images, rollout, reward.astype(np.float32), plan)
    params = load_params(cfg.model.source, model)
    kept = [jax.jit(partial(programs.start_state, layout))(params)]
    program = programs.jit_update(layout)

    def update():
        kept[0], metrics, _ = program(kept[0], *given)
        return metrics

    def prompts(params):
        cache = encode_prompt(params, model, prompt, images)
        return (cache.k**2).sum() + (cache.v**2).sum() + cache.hidden.sum()

    turns = 1.0 if plan is None else float(plan.turns.mean())
    flops = traced_flops(program, kept[0], *given, turns=turns)
    told = f"{rollout.lengths.mean():.1f} tokens an answer, {used:.2f} of what is computed, "
    told += f"{flops / 1e9:.1f} GFLOP: {flops / product_rate(model):.2f} s of products"
    return update, told, partial(jax.jit(jax.grad(prompts)), params)


@cache
def product_rate(model: ModelConfig) -> float:
    """FLOP/s of a prompt's rows through an MLP matrix, the best of several tries."""
    rows, text = 1024, model.text
    x, w = (
        jax.random.normal(jax.random.key(0), s)
        for s in ((rows, text.width), (text.width, text.mlp))
    )
    product = jax.jit(lambda x, w: x @ w)
    times = [seconds(lambda: [product(x, w) for _ in range(50)]) for _ in range(20)]
    return 50 * 2 * rows * text.width * text.mlp / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_settings(parser, "one field of the config")
    parser.add_argument("--boxes", type=float, nargs="+", default=[0.2, 0.3, 0.5])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with clear_errors():
        cfg = typed.override(load_config("configs/tiny_cpu.py"), args.settings)
        both = {name: typed.override(cfg, [f"grpo.packed={name == 'packed'}"])
                for name in ("packed", "padded")}  # fmt: skip
        sides = {name: side(one, args.boxes) for name, one in both.items()}
    prompts = sides["packed"][2]
    calls = {name: update for name, (update, _, _) in sides.items()} | {"prompts alone": prompts}
    for call in calls.values():
        seconds(call)
    rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(args.rounds)]
    for name in calls:
        told = sides[name][1] if name in sides else "one gradient of all"
        print(f"{name:14s} {median(one[name] for one in rounds):.3f} CPU-s  ({told})")
    ratios = sorted(one["padded"] / one["packed"] for one in rounds)
    print(f"padded / packed {median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
