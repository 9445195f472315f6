"""Checkpoints, inputs and Hugging Face's answers, as the parity tests read them."""

import tempfile
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.hf.weights import load_params, read_model_config
from dig_jax.inputs.prompt import prompt_of_ids
from dig_jax.model import qwen3vl
from dig_jax.model.config import ModelConfig
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.logprob import token_logp
from dig_jax.model.params import Params
from dig_jax.model.specs import model_specs, named_specs
from scripts.make.random_checkpoint import write_random
from tests import HF_OUTPUTS

GOLDEN = HF_OUTPUTS
NAMES = ("tied", "untied", "deep")


@dataclass(frozen=True)
class Case:
    """A checkpoint in our layout, a batch of prompts, and what HF makes of it.

    hf      arrays by name: see `scripts/make/goldens.py`
    ids     i32 per row, one image token per image
    sizes   (height, width) of each image of each row
    images  u8[B, I, Y, X, 3] on one canvas
    """

    hf: dict[str, np.ndarray]
    config: ModelConfig
    params: Params
    ids: list[np.ndarray]
    sizes: list[list[tuple[int, int]]]
    prompt: PromptInputs
    images: np.ndarray

    @property
    def real(self) -> np.ndarray:
        """bool[B, P], false at padding."""
        return np.arange(self.prompt.tokens.shape[1]) < self.hf["length"][:, None]


@cache
def golden(name: str) -> Case:
    """A case of tests/hf_outputs. The deep checkpoint is drawn again, in shards with an index."""
    found = dict(np.load(GOLDEN / name / "golden.npz"))
    if (GOLDEN / name / "model.safetensors").is_file():
        return case_of(GOLDEN / name, found)
    with tempfile.TemporaryDirectory() as folder:
        config = read_model_config(GOLDEN / name)
        write_random(
            Path(folder), config, seed=int(found["seed"]), dtype="float16", shard_bytes=4_000_000
        )
        assert len(list(Path(folder).glob("model-*.safetensors"))) > 4
        return case_of(Path(folder), found)


def case_of(folder: Path, found: dict[str, np.ndarray]) -> Case:
    """The inputs stored with HF's answers, for the checkpoint in `folder`."""
    config = read_model_config(folder)
    rows = sum(key.startswith("ids_") for key in found)
    images = [
        [found[key] for key in sorted(found) if key.startswith(f"image_{row}_")]
        for row in range(rows)
    ]
    sizes = [[image.shape[:2] for image in row] for row in images]
    ids = [found[f"ids_{row}"] for row in range(rows)]
    return Case(
        hf=found,
        config=config,
        params=load_params(folder, config),
        ids=ids,
        sizes=sizes,
        prompt=prompt_of_ids(config, ids, sizes),
        images=on_canvas(images),
    )


def on_canvas(images: list[list[np.ndarray]]) -> np.ndarray:
    """u8[B, I, Y, X, 3], zero-padded at the bottom and right."""
    flat = [image for row in images for image in row]
    height, width = (max(image.shape[axis] for image in flat) for axis in (0, 1))
    out = np.zeros((len(images), max(map(len, images)), height, width, 3), np.uint8)
    for r, row in enumerate(images):
        for k, image in enumerate(row):
            out[r, k, : image.shape[0], : image.shape[1]] = image
    return out


def compiled(function, config: ModelConfig):
    """`function` with its config bound, compiled fast rather than well."""
    return jax.jit(
        partial(function, config=config),
        compiler_options={"xla_backend_optimization_level": 0},
    )


def all_logits(params, prompt, images, tokens, config: ModelConfig):
    """Logits f32[B, P, V] of prompts, and f32[B, G, T, V] of answers i32[B, G, T] to them."""
    k, v, _, last = qwen3vl.prompt_states(params, config, prompt, images)
    prompt_cache = qwen3vl.cache_of(params, config, prompt, k, v, last)
    hidden = qwen3vl.score_tokens(params, config, prompt_cache, tokens)
    head = qwen3vl.unembed(params)
    whole = qwen3vl.final_norm(params, last, config)
    return whole.astype(jnp.float32) @ head, hidden.astype(jnp.float32) @ head


@cache
def logits_of(config: ModelConfig):
    return compiled(all_logits, config)


@cache
def encode_of(config: ModelConfig):
    return compiled(qwen3vl.encode_prompt, config)


def two_answers(case: Case) -> np.ndarray:
    """i32[B, 2, 64]: another answer, which must not be seen, and HF's greedy one."""
    greedy = case.hf["greedy"]
    return np.stack([np.roll(greedy, 1, axis=1), greedy], axis=1)


def deviations(case: Case, run=None) -> tuple[float, float]:
    """Largest distance from HF's logits: over prompts, and over every step of greedy answers."""
    run = run or logits_of(case.config)
    prompts, answers = run(case.params, case.prompt, case.images, two_answers(case))
    return (
        float(np.abs(np.asarray(prompts) - case.hf["logits"])[case.real].max()),
        float(np.abs(np.asarray(answers)[:, 1] - case.hf["greedy_logits"]).max()),
    )


def decoded_logits(case: Case) -> np.ndarray:
    """f32[B, T, V] of HF's greedy answers, one token at a time through the answer cache."""
    follow = case.hf["greedy"]
    head = qwen3vl.unembed(case.params)
    prompt_cache = encode_of(case.config)(case.params, prompt=case.prompt, images=case.images)
    decode = compiled(qwen3vl.decode_token, case.config)
    answers = qwen3vl.empty_answers(case.config, prompt_cache, 1, follow.shape[1])
    hidden = prompt_cache.hidden[:, None]
    logits = []
    for step in range(follow.shape[1]):
        logits.append(hidden @ head)
        hidden, answers = decode(
            case.params,
            cache=prompt_cache,
            answers=answers,
            token=follow[:, step, None],
            step=jnp.int32(step),
        )
    return np.concatenate([np.asarray(part) for part in logits], axis=1)


def gradients(case: Case, loglik=None) -> tuple[float, dict[str, np.ndarray]]:
    """Mean log-likelihood of the stored answers and its gradient by checkpoint key, HF's layout."""
    function = partial(loglik or mean_loglik, config=case.config)
    run = jax.jit(
        jax.value_and_grad(function), compiler_options={"xla_backend_optimization_level": 0}
    )
    value, grads = run(case.params, case.prompt, case.images, case.hf["answers"])
    rows = zip(named_specs(model_specs(case.config)), jax.tree.leaves(grads), strict=True)
    found = {}
    for (_, spec), leaf in rows:
        parts = np.asarray(leaf) if spec.stack else [np.asarray(leaf)]
        found |= {key: spec.to_hf(part) for key, part in zip(spec.keys, parts, strict=True)}
    return float(value), found


def mean_loglik(params, prompt, images, answers, config: ModelConfig) -> jax.Array:
    """The learner's path: one prompt encoding for all answers, chunked log-probabilities."""
    prompt_cache = qwen3vl.encode_prompt(params, config, prompt, images)
    return cached_loglik(params, prompt_cache, answers, config)


def cached_loglik(params, prompt_cache, answers, config: ModelConfig) -> jax.Array:
    hidden = qwen3vl.score_tokens(params, config, prompt_cache, answers)
    nothing = np.zeros(config.text.vocab, bool)
    logp, _ = token_logp(
        hidden, qwen3vl.unembed(params), answers, temperature=1.0, banned=nothing, chunk=100
    )
    return logp.mean()


def with_config(case: Case, part: str, **changes) -> Case:
    """The case with other settings in config.text or config.vision."""
    changed = replace(getattr(case.config, part), **changes)
    return replace(case, config=replace(case.config, **{part: changed}))
