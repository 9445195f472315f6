"""One phase of a training step on the machine's GPU: seconds, peak memory, share of the peak.

    python -m scripts.bench.gpu_parts.parts < request.json

`scripts.bench.gpu` starts it, one process per phase: the peak of a process can only grow. What
lives beside a phase in training lives here too. The last line of the output is JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.config import from_json
from dig_jax.mesh import flops, programs, sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model.qwen3vl import encode_prompt
from dig_jax.sampler.stages import cost
from scripts.bench.decode import floor, text_numbers, token_numbers
from scripts.bench.gpu_parts import filled
from tpu import slices
from tpu.compile_phase import read_model
from tpu.phases import PromptShape

MARK = "PART "


@dataclass(frozen=True)
class Request:
    """As `tpu.compile_phase.Request`; rounds that are timed after one that is not."""

    part: str
    size: str
    config: str
    prompt_tokens: int
    image: tuple[int, int]
    rounds: int = 3


@dataclass
class Result:
    """seconds  median of the rounds;  compile_s  of the first call
    peak     bytes of the device in use at most; 0 where the backend does not tell
    figures  what else was found, by name with its unit
    """

    part: str
    seconds: float = 0.0
    compile_s: float = 0.0
    peak: int = 0
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    layout: Layout
    shape: PromptShape
    rounds: int

    @property
    def pairs(self) -> int:
        return self.layout.cfg.pairs_per_step

    @property
    def size(self) -> dict[str, int]:
        """Arguments of `flops.forward_flops`."""
        cfg = self.layout.cfg.rollout
        return {"prompt": self.shape.tokens, "length": cfg.max_tokens, "answers": cfg.group}

    def timed(self, part: str, call: Callable) -> Result:
        """`call()` returns what is to be waited for."""
        first = _seconds(call)
        seconds = median(_seconds(call) for _ in range(self.rounds))
        peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
        return Result(part, seconds, max(0.0, first - seconds), peak)


def _seconds(call: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def machine(bench: Bench) -> Result:
    """What the card does at best: a copy of 4 GiB, a product of 8192-squared bfloat16 matrices."""
    side, numbers = (8192, 2**30) if jax.default_backend() == "gpu" else (256, 2**16)
    long = jnp.arange(numbers, dtype=jnp.float32)
    copy = jax.jit(lambda a: a + 1)
    result = bench.timed("machine", lambda: copy(long))
    square = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16)
    product = jax.jit(lambda a, b: a @ b)
    took = bench.timed("machine", lambda: product(square, square)).seconds
    result.figures["copy GB/s"] = 2 * long.nbytes / result.seconds / 1e9
    result.figures["product TFLOP/s"] = 2 * side**3 / took / 1e12
    return result


def reshard(bench: Bench) -> Result:
    state, program = filled.state(bench.layout), programs.jit_reshard(bench.layout)
    prompt = filled.prompt(bench.layout, bench.shape)
    jax.block_until_ready((state, prompt))
    result = bench.timed("reshard", lambda: program(state.params))
    moved = sum(a.nbytes for a in jax.tree.leaves(state.params))
    moved += sum(a.nbytes for a in jax.tree.leaves(program(state.params)))
    result.figures["GB/s"] = moved / result.seconds / 1e9
    return result


def view(bench: Bench) -> Result:
    _state, weights, prompt, pixels = _answering(bench)  # it lives on beside
    program = programs.jit_viewer(bench.layout)
    result = bench.timed("view", lambda: program(weights, prompt, pixels))
    model = bench.layout.model
    done = flops.tower_flops(model, model.cells(*bench.shape.image), 2 * bench.pairs)
    result.figures |= _rates(done, result.seconds) | {"images/s": 2 * bench.pairs / result.seconds}
    return result


def sample(bench: Bench) -> Result:
    """The rollout of answers of the longest length, and its prefill alone: images seen already."""
    layout = replace(bench.layout, model=filled.never_ending(bench.layout.model))
    bench = replace(bench, layout=layout)
    _state, weights, prompt, pixels = _answering(bench)  # it lives on beside
    images, key = programs.jit_viewer(layout)(weights, prompt, pixels), jax.random.key(0)
    draw = programs.jit_sampler(layout)
    result = bench.timed("sample", lambda: draw(weights, prompt, images, key))
    encode = layout.jit(lambda w, p, i: encode_prompt(w, layout.rollout_model, p, i))
    prefill = bench.timed("prefill", lambda: encode(weights, prompt, images)).seconds
    result.figures |= _prefill_figures(bench, prefill)
    result.figures |= _decode_figures(bench, result.seconds - prefill)
    return result


def sample_scanned(bench: Bench) -> Result:
    """The same by a loop over the blocks; as `rollout.layers` is by itself, a GPU unrolls it."""
    cfg = bench.layout.cfg
    cfg = replace(cfg, rollout=replace(cfg.rollout, layers="model"))
    result = sample(replace(bench, layout=replace(bench.layout, cfg=cfg)))
    return replace(result, part="sample_scanned")


def _prefill_figures(bench: Bench, seconds: float) -> dict[str, float]:
    size = bench.size | {"length": 0, "answers": 0}
    rates = _rates(bench.pairs * flops.forward_flops(bench.layout.model, **size), seconds)
    tokens = bench.pairs * bench.shape.tokens
    figures = {"s": seconds, "tokens/s": tokens / seconds} | rates
    return {f"prefill {name}": value for name, value in figures.items()}


def _decode_figures(bench: Bench, seconds: float) -> dict[str, float]:
    """Bytes a second against the card's: those that must be read, and those that are."""
    model, length = bench.layout.model, bench.size["length"]
    width = np.dtype(model.compute_dtype).itemsize
    weights, token = width * text_numbers(model), width * token_numbers(model)
    lengths = np.full((bench.pairs, bench.size["answers"]), length)
    plan = programs.rollout_plan(bench.layout, bench.pairs)
    least = weights * length + token * floor(lengths, bench.shape.tokens)
    read = weights * length + token * cost(lengths, plan, prompt=bench.shape.tokens).read
    figures = {
        "rows": lengths.size,
        "decode s": seconds,
        "decode tokens/s": lengths.sum() / seconds,
        "floor GB/s": least / seconds / 1e9,
        "read GB/s": read / seconds / 1e9,
    }
    card = card_here()
    return figures | ({"of HBM roofline": least / seconds / card.bandwidth} if card else {})


def update(bench: Bench) -> Result:
    """Padded or packed, as the config says (`filled.answers`)."""
    layout = bench.layout
    state, prompt = filled.state(layout), filled.prompt(layout, bench.shape)
    images = filled.pixels(layout, bench.shape)
    if layout.tower_frozen:
        weights = programs.jit_reshard(layout)(state.params)
        images = programs.jit_viewer(layout)(weights, prompt, images)
        del weights
    answers = filled.answers(layout)
    plan, used = programs.plan_update(layout, answers[0])
    rollout, reward = sharding.shard_global(answers, layout.mesh)
    program, kept = programs.jit_update(layout), [state]
    given = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype),
                         (state, prompt, images, rollout, reward, plan))  # fmt: skip
    del state

    def step():
        kept[0], metrics, _ = program(kept[0], prompt, images, rollout, reward, plan)
        return kept[0], metrics

    result = bench.timed("update", step)
    lengths = answers[0].lengths
    turns = 0.0 if plan is None else float(np.mean(plan.turns))
    result.figures |= _update_figures(bench, result.seconds, given, lengths, turns)
    result.figures["used"] = used
    return result


def _update_figures(
    bench: Bench, seconds: float, given: tuple, lengths: np.ndarray, turns: float
) -> dict[str, float]:
    """Model FLOPs are those of the formula for the real tokens; what is computed counts more.

    lengths  i[B, G] of the answers
    turns    of a slice, where answers are packed
    """
    layout, size = bench.layout, {"prompt": bench.shape.tokens, "answers": 1}
    alone = flops.forward_flops(layout.model, **size, length=0)
    each = [flops.forward_flops(layout.model, **size, length=int(n)) - alone for n in lengths.flat]
    forward = len(lengths) * alone + sum(each)
    passes = 3 + (layout.cfg.grpo.kl_coef > 0)  # forward, two backward, the reference's forward
    plain = replace(layout, model=replace(layout.model, attention="xla"))
    computed = flops.traced_flops(programs.jit_update(plain), *given, turns=turns)
    return _rates(passes * forward, seconds) | {
        "computed TFLOP/s": computed / seconds / 1e12,
        "answer tokens/s": lengths.sum() / seconds,
    }


def _answering(bench: Bench):
    """(state, the weights that answer, prompt, pixels), all on the device."""
    state = filled.state(bench.layout)
    weights = programs.jit_reshard(bench.layout)(state.params)
    prompt = filled.prompt(bench.layout, bench.shape)
    found = (state, weights, prompt, filled.pixels(bench.layout, bench.shape))
    return jax.block_until_ready(found)


def _rates(done: float, seconds: float) -> dict[str, float]:
    """FLOP/s, and as a share of the card's peak where that is known (MFU)."""
    card = card_here()
    share = {"MFU": done / seconds / card.peak} if card else {}
    return {"TFLOP/s": done / seconds / 1e12} | share


def card_here() -> slices.Slice | None:
    """The row of `tpu.slices` of the device that JAX runs on, if it has one."""
    kind = jax.devices()[0].device_kind.lower()
    return next((slices.find(name) for name in ("h100", "h200") if name in kind), None)


PARTS = {f.__name__: f for f in (machine, reshard, view, sample, sample_scanned, update)}
PARTS["update_packed"] = update


def main() -> None:
    request = Request(**json.load(sys.stdin))
    cfg = from_json(request.config)
    mesh = sharding.make_mesh(cfg.mesh, jax.devices()[:1])
    layout = Layout(cfg, mesh, read_model(cfg, request.size, mesh))
    bench = Bench(layout, PromptShape(request.prompt_tokens, tuple(request.image)), request.rounds)
    print(MARK + json.dumps(asdict(PARTS[request.part](bench))), flush=True)


if __name__ == "__main__":
    main()
