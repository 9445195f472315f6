"""What one encoding of a pair's prompt saves the update, in FLOPs, at DiG's shapes.

    python -m scripts.bench.count_flops [--model 4B] [--config configs/pod_4b.py]
        [--tokens 96 1024 2048]

The flattened learner trains B x G sequences, each with a prompt of its own: the same update of
B x G pairs with one answer each. Two ratios of its FLOPs to ours. By formula
(`dig_jax.mesh.flops`): forward passes, attention halved by causality. Counted: all matrix products
of the traced program, the reference, recomputation and masked halves included, with `xla`
attention. "tower" is whether
the vision tower is trained: the flattened learner then sees its images G times, forwards and
backwards; a frozen one is encoded before and is in neither. Nothing is computed or timed.

With --thoughts MEDIAN answers have log-normal lengths (sigma 1) cut at --tokens: 64 pairs of them,
packed as the update packs them, beside the flattened learner that pads all of them.
"""

import argparse

import jax
import numpy as np

from dig_jax.common import typed
from dig_jax.common.commandline import clear_errors, place_of
from dig_jax.config import Config, load_config
from dig_jax.learner.packing import make_plan, used
from dig_jax.mesh import flops, programs, sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model.config import ModelConfig
from dig_jax.model.sizes import released
from dig_jax.run.session import computed_as
from tpu.phases import PromptShape, phases
from tpu.prompt_shape import bound

THOUGHTS = ("answers", "longest", "mean", "tower", "TFLOP, flattened and padded",
            "shared and packed", "ratio", "real tokens")  # fmt: skip
HEADING = ("answers", "tokens", "tower", "TFLOP, flattened", "shared", "ratio", "by formula")


def counted(cfg: Config, model: ModelConfig, shape: PromptShape, group: int) -> float:
    """FLOPs of one update of a pair with `group` answers."""
    cfg = typed.override(cfg, [f"rollout.group={group}"])
    mesh = sharding.make_mesh(cfg.mesh, jax.devices()[:1])
    layout = Layout(cfg, mesh, computed_as(cfg, model, "cpu"))
    update = phases(layout, shape)["update"]
    return flops.traced_flops(update.program, *update.given)


def of_one_answer(cfg: Config, model: ModelConfig, shape: PromptShape) -> float:
    """FLOPs of one update of a pair with one answer.

    A group of one has no advantage, so no such update can be traced; but every answer adds the
    same to what the prompt takes.
    """
    two, three = (counted(cfg, model, shape, group) for group in (2, 3))
    return 2 * two - three


def of_one_pair(cfg: Config, changes: list[str]) -> Config:
    """The config's update on one device, all answers at once."""
    plain = ["mesh.fsdp=1", "mesh.tensor=1", "grpo.accumulate=1", "grpo.minibatches=1"]
    plain += ["grpo.answer_slices=1", "model.attention=xla", "pairs_per_step=1", "eval.batch=1"]
    plain += ["grpo.packed=false"]
    return typed.override(cfg, [*plain, *changes])


def thoughts(median: float, longest: int, group: int, pairs: int = 64) -> np.ndarray:
    """Lengths i[pairs, G] as long thoughts have them."""
    drawn = median * np.exp(np.random.default_rng(0).standard_normal((pairs, group)))
    return np.clip(np.ceil(drawn), 1, longest).astype(int)


def packed_row(
    cfg: Config, model: ModelConfig, shape: PromptShape, lengths: np.ndarray, *, frozen: bool
) -> tuple[str, ...]:
    """The flattened learner's FLOPs, all answers padded, beside those of packed answers.

    A slice of the update holds a 16th of the pairs; its turns are those of `lengths`.
    """
    settings = [f"pairs_per_step={len(lengths)}", "grpo.accumulate=16", "eval.batch=1"]
    many = typed.override(cfg, [*settings, "grpo.packed=true"])
    layout = Layout(many, sharding.make_mesh(cfg.mesh, jax.devices()[:1]),
                    computed_as(many, model, "cpu"))  # fmt: skip
    packing = programs.update_packing(layout)
    plan = make_plan(packing, lengths)
    update = phases(layout, shape)["update"]
    ours = flops.traced_flops(update.program, *update.given, turns=float(plan.turns.mean()))
    alone = lengths.size * of_one_answer(cfg, model, shape)
    cells = (f"{alone / 1e12:.0f}", f"{ours / 1e12:.0f}", f"{alone / ours:.2f}")
    share = used(packing, plan, lengths)
    tower = "frozen" if frozen else "trained"
    named = (f"{lengths.shape[1]}", f"{cfg.rollout.max_tokens}", f"{lengths.mean():.0f}", tower)
    return (*named, *cells, f"{share:.2f}")


def row(cfg: Config, model: ModelConfig, shape: PromptShape, *, frozen: bool) -> tuple[str, ...]:
    group, length = cfg.rollout.group, cfg.rollout.max_tokens
    ours = counted(cfg, model, shape, group)
    alone = group * of_one_answer(cfg, model, shape)
    size = {"prompt": shape.tokens, "length": length}
    seen = 0 if frozen else flops.tower_flops(model, model.cells(*shape.image), 2)
    once = flops.forward_flops(model, **size, answers=group) + seen
    each = group * (flops.forward_flops(model, **size, answers=1) + seen)
    cells = (f"{alone / 1e12:.0f}", f"{ours / 1e12:.0f}", f"{alone / ours:.2f}")
    tower = "frozen" if frozen else "trained"
    return (f"{group}", f"{length}", tower, *cells, f"{each / once:.2f}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="4B", help="2B, 4B, 8B or 32B")
    parser.add_argument("--config", type=place_of, default="configs/pod_4b.py")
    parser.add_argument("--groups", type=int, nargs="+", default=[8, 16], help="answers per pair")
    parser.add_argument("--tokens", type=int, nargs="+", default=[96, 1024, 2048])
    parser.add_argument("--thoughts", type=float, metavar="MEDIAN", help="of log-normal lengths")
    args = parser.parse_args(argv)
    with clear_errors():
        model, cfg = released(args.model.lower()), load_config(args.config)
        shape = bound(cfg, model)
    print(
        f"{args.model}, prompt of {shape.tokens} tokens, {2 * model.cells(*shape.image)} visual\n"
    )
    heading = THOUGHTS if args.thoughts else HEADING
    for cells in (heading, ("---",) * len(heading)):
        print(f"| {' | '.join(cells)} |")
    for group in args.groups:
        for length in args.tokens:
            for frozen in (True, False):
                changes = [f"rollout.group={group}", f"rollout.max_tokens={length}"]
                changes += ["optim.freeze=" + ("('vision',)" if frozen else "()")]
                one = of_one_pair(cfg, changes)
                if args.thoughts:
                    lengths = thoughts(args.thoughts, length, group)
                    cells = packed_row(one, model, shape, lengths, frozen=frozen)
                else:
                    cells = row(one, model, shape, frozen=frozen)
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
