"""Greedy answers of our sampler and of Hugging Face's `generate` to the same prompts, on one GPU.

    python -m scripts.bench.gpu_parts.generate ours|hf FOLDER < request.json

Both read one checkpoint folder in bfloat16 and write `rollout.max_tokens` tokens to each row:
G answers to each of B pairs. Ours encodes a pair once; `generate` is given G copies of its prompt
and images, as trainers give it. The last line of the output is JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dig_jax.config import Config, from_json
from tpu.phases import PromptShape


def run_ours(folder: Path, cfg: Config, shape: PromptShape, rounds: int):
    import jax

    from dig_jax.hf.weights import read_model_config
    from dig_jax.inputs.decoding import Decoding
    from dig_jax.mesh import programs, sharding
    from dig_jax.mesh.layout import Layout
    from dig_jax.run.session import computed_as, read_weights
    from scripts.bench.gpu_parts import filled

    mesh = sharding.make_mesh(cfg.mesh, jax.devices()[:1])
    model = computed_as(cfg, read_model_config(folder), mesh.devices.flat[0].platform)
    layout = Layout(cfg, mesh, filled.never_ending(model))
    weights = programs.jit_reshard(layout)(read_weights(str(folder), model, layout.shardings))
    given = (filled.prompt(layout, shape), filled.pixels(layout, shape), jax.random.key(0))
    draw = programs.jit_sampler(layout, decoding=Decoding(0.0))
    return _timed(lambda: np.asarray(draw(weights, *given).tokens), rounds)


def run_hf(folder: Path, cfg: Config, shape: PromptShape, rounds: int):
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    from dig_jax.hf.weights import read_model_config
    from scripts.bench import hf_side
    from scripts.bench.gpu_parts import filled

    place = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, cfg.model.compute_dtype)
    config, group = read_model_config(folder), cfg.rollout.group
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=dtype).to(place).eval()
    images = filled.noise(cfg.pairs_per_step, shape).repeat(group, axis=0)
    given = hf_side.inputs(config, [filled.prompt_ids(config, shape)] * len(images), images)
    generate = hf_side.greedy(model, config, {name: a.to(place) for name, a in given.items()})
    length = cfg.rollout.max_tokens
    return _timed(lambda: generate(length).reshape(cfg.pairs_per_step, group, length), rounds)


def _timed(call: Callable[[], np.ndarray], rounds: int) -> tuple[list[float], np.ndarray]:
    """Seconds of each round after one that is not counted, and what the last one wrote."""
    tokens, took = call(), []
    for _ in range(rounds):
        start = time.perf_counter()
        tokens = call()
        took.append(time.perf_counter() - start)
    return took, tokens


def main() -> None:
    from scripts.bench.gpu_parts.parts import MARK, Request, Result

    side, folder = sys.argv[1:]
    request = Request(**json.load(sys.stdin))
    cfg = from_json(request.config)
    shape = PromptShape(request.prompt_tokens, tuple(request.image))
    took, tokens = {"ours": run_ours, "hf": run_hf}[side](Path(folder), cfg, shape, request.rounds)
    np.save(Path(folder) / f"tokens_{side}.npy", tokens)
    result = Result(f"generate {side}", float(np.median(took)))
    result.figures = {"rows": tokens.size // tokens.shape[-1]}
    result.figures["tokens/s"] = tokens.size / result.seconds
    print(MARK + json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
