"""What growing caches and packed rows save: empty rows, bytes read, and seconds.

    python -m scripts.bench.decode --config configs/tiny_cpu.py --source runs/x/hf
    python -m scripts.bench.decode --size 8b --answers 64 8 4096 --tokens 700 0.5 0.5

The first draws answers to the config's first held-out pairs in several ways and times them in turn,
in CPU seconds of this process (under `taskset -c 0`, of one core), then counts. The second counts
only, for a released size and made-up lengths: log-normal by median and two deviations, one for
pairs and one for their answers, cut off at the third of --answers.

Bytes are arithmetic. A step reads the text weights (on each shard), the keys and values of an
entry's prompt once, and of its answers as far as their caches have room. The floor has the same
weights and prompts, but only tokens that are written and answers that go on.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from dig_jax.common.commandline import add_settings, clear_errors, place_of
from dig_jax.config import Config, load_config
from dig_jax.model.config import ModelConfig
from dig_jax.model.sizes import released
from dig_jax.model.specs import model_specs, named_specs
from dig_jax.sampler.stages import Plan, cost, make_plan

Way = tuple[int, float]  # rollout.chunk, rollout.compact
BATCHES = 10  # of made-up lengths


def text_numbers(model: ModelConfig) -> int:
    """Weights that a step reads: the blocks, the last norm and the head."""
    read = ("blocks", "norm", "embed" if model.text.tied else "head")
    rows = named_specs(model_specs(model))
    return sum(int(np.prod(spec.shape)) for path, spec in rows if path.split("/")[0] in read)


def token_numbers(model: ModelConfig) -> int:
    """Keys and values of one token."""
    return 2 * model.text.layers * model.text.kv_heads * model.text.head_dim


def floor(lengths: np.ndarray, prompt: int) -> int:
    """Tokens of keys and values that cannot be left unread, for answers i[B, G]."""
    return int((lengths * (lengths - 1) // 2).sum() + prompt * lengths.max(-1).sum())


def refilled(lengths: np.ndarray, slots: int, most: int, prompt: int) -> tuple[int, int, int]:
    """(steps, rows computed, tokens read) with `slots` per pair, each refilled when it is free."""
    ends = np.zeros((len(lengths), slots), int)
    for answer in lengths.T:
        ends[np.arange(len(ends)), ends.argmin(1)] += answer
    steps = int(ends.max())
    return steps, steps * ends.size, steps * len(ends) * (slots * most + prompt)


def count(
    model: ModelConfig, plans: dict[str, Plan], batches: list[np.ndarray], prompt: int, width: int
):
    """The table's rows, means over batches of lengths i[B, G]; `width` bytes a number."""
    weights, token = text_numbers(model) * width, token_numbers(model) * width
    rows = [("", "rows in use", "steps", "programs", "GB read", "floor / read")]

    def add(name: str, programs: int, shards: int, found: list[tuple[int, int, int]]):
        used = [n.sum() / computed for n, (_, computed, _) in zip(batches, found, strict=True)]
        read = [weights * shards * steps + token * tokens for steps, _, tokens in found]
        least = [weights * shards * n.max() + token * floor(n, prompt) for n in batches]
        steps = np.mean([steps for steps, _, _ in found])
        share = np.sum(least) / np.sum(read)
        rows.append((name, f"{np.mean(used):.1%}", f"{steps:.0f}", str(programs),
                     f"{np.mean(read) / 1e9:.3g}", f"{share:.0%}"))  # fmt: skip

    for name, plan in plans.items():
        costs = [cost(n, plan, prompt=prompt) for n in batches]
        found = [(n.max(), c.computed, c.read) for n, c in zip(batches, costs, strict=True)]
        add(name, len(plan.stages), plan.shards, found)
    group, most = plan.group, plan.stages[-1].length
    half = [refilled(n, max(1, group // 2), most, prompt) for n in batches]
    add("refilled G/2", 1, plan.shards, half)
    return rows


def table(rows: list[tuple]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def ways(chunk: int, shares: list[float]) -> list[Way]:
    return [(0, 0.0), (chunk, 0.0), *((chunk, share) for share in shares)]


def name_of(way: Way) -> str:
    return f"chunk={way[0]} compact={way[1]:g}"


def plans_of(ways: list[Way], pairs: int, group: int, most: int, shards: int) -> dict[str, Plan]:
    return {
        name_of(way): make_plan(pairs, group, most, chunk=way[0], compact=way[1], shards=shards)
        for way in ways
    }


def made_up(args: argparse.Namespace) -> list[np.ndarray]:
    pairs, group, most = args.answers
    middle, of_pairs, of_answers = args.tokens
    rng = np.random.default_rng(0)
    noise = [
        of_pairs * rng.normal(size=(pairs, 1)) + of_answers * rng.normal(size=(pairs, group))
        for _ in range(BATCHES)
    ]
    return [np.clip(middle * np.exp(n), 1, most).astype(int) for n in noise]


def samplers(cfg: Config, source: str | None, ways: list[Way], batches: int):
    """(model, prompt tokens, {way: draw() -> lengths of each batch})."""
    import jax

    from dig_jax.data.feed.pipeline import eval_pairs
    from dig_jax.mesh import programs, sharding
    from dig_jax.run.session import load_weights, open_session

    size = cfg.pairs_per_step
    cfg = dataclasses.replace(
        cfg, eval=dataclasses.replace(cfg.eval, batch=size, pairs=size * batches)
    )
    with clear_errors():
        session = open_session(cfg, source=source, training=False)
        pairs = eval_pairs(cfg, size=session.image_size)
    weights = programs.jit_reshard(session)(load_weights(session, source))
    prompt, key = session.prompt_rows(size), jax.random.key(cfg.seed)
    images = [sharding.shard_global(batch.images, session.mesh) for batch in pairs]

    def drawing(way: Way) -> Callable[[], list[np.ndarray]]:
        rollout = dataclasses.replace(cfg.rollout, chunk=way[0], compact=way[1])
        on = dataclasses.replace(session, cfg=dataclasses.replace(cfg, rollout=rollout))
        sample = programs.jit_sampler(on)

        def draw():
            found = [sample(weights, prompt, each, key, n * size) for n, each in enumerate(images)]
            return [np.asarray(rollout.lengths, np.int64) for rollout in found]

        return draw

    return session.model, int(session.prompt.length[0]), {way: drawing(way) for way in ways}


def timed(draws: dict[Way, Callable], rounds: int) -> dict[Way, float]:
    """Median CPU seconds of each, drawn in turn; their first, with compiling, is printed."""

    def seconds(draw) -> float:
        start = time.process_time()
        draw()
        return time.process_time() - start

    for way, draw in draws.items():
        print(f"  {name_of(way)}: {seconds(draw):.1f} s with compiling", flush=True)
    found = [{way: seconds(draw) for way, draw in draws.items()} for _ in range(rounds)]
    return {way: median(each[way] for each in found) for way in draws}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", type=place_of, metavar="F", help="draw and time, with the data of this config"
    )
    add_settings(parser, "one field of the config, by its dotted path")
    parser.add_argument(
        "--source", type=place_of, metavar="FOLDER", help="checkpoint instead of the config's"
    )
    parser.add_argument("--batches", type=int, default=2, help="of pairs_per_step held-out pairs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="8b", help="released size to count for")
    parser.add_argument("--answers", type=int, nargs=3, metavar=("B", "G", "T"))
    parser.add_argument("--tokens", type=float, nargs=3, metavar=("MEDIAN", "PAIRS", "ANSWERS"))
    parser.add_argument("--prompt", type=int, default=1536, help="tokens, with --answers")
    parser.add_argument("--shards", type=int, default=1, help="devices along fsdp, with --answers")
    parser.add_argument("--chunk", type=int, default=256, help="with --answers; else the config's")
    parser.add_argument("--compact", type=float, nargs="*", default=[0.5, 0.7])
    args = parser.parse_args(argv)
    if bool(args.config) == bool(args.answers and args.tokens):
        parser.error("give --config, or --answers and --tokens")
    if args.answers:
        plans = plans_of(ways(args.chunk, args.compact), *args.answers, args.shards)
        rows = count(released(args.size), plans, made_up(args), args.prompt, 2)
    else:
        cfg = load_config(args.config, args.settings)
        tried, shape = (
            ways(cfg.rollout.chunk, args.compact),
            (cfg.rollout.group, cfg.rollout.max_tokens),
        )
        model, prompt, draws = samplers(cfg, args.source, tried, args.batches)
        spent = timed(draws, args.rounds)
        plans = plans_of(tried, cfg.pairs_per_step, *shape, cfg.mesh.fsdp)
        width = np.dtype(model.compute_dtype).itemsize
        rows = count(model, plans, draws[tried[0]](), prompt, width)
        whole = [*(f"{spent[way] / args.batches:.3f}" for way in tried), "not built"]
        rows = [(*row, s) for row, s in zip(rows, ["CPU s a rollout", *whole], strict=True)]
    print(table(rows))


if __name__ == "__main__":
    main()
