"""What a training step holds, made up on the device: random weights, prompts, images, answers."""

from dataclasses import replace

import jax
import numpy as np

from dig_jax.inputs.prompt import prompt_of_ids, repeat_prompt
from dig_jax.learner.state import TrainState
from dig_jax.mesh import programs, sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model.config import ModelConfig
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.params import init_params
from dig_jax.model.specs import model_specs
from dig_jax.sampler.rollout import Rollout
from tpu.phases import PromptShape


def never_ending(model: ModelConfig) -> ModelConfig:
    """The model with an end token that it cannot draw: all answers have the longest length."""
    return replace(model, eos_tokens=(-1,))


def state(layout: Layout) -> TrainState:
    """Step 0 of random weights, which come into being where they stay."""

    def start(key):
        return programs.start_state(layout, init_params(model_specs(layout.model), key=key))

    where = programs.state_shardings(layout)
    return jax.jit(start, out_shardings=where)(jax.random.key(0))


def words(model: ModelConfig) -> list[int]:
    """Tokens that are no image's, at most 1,000; the same whatever ends an answer."""
    special = {model.vision_start, model.vision_end, model.image_token, model.video_token}
    special.add(model.pad_token)
    return [token for token in range(min(1000, model.text.vocab)) if token not in special]


def prompt_ids(model: ModelConfig, shape: PromptShape) -> list[int]:
    """Two images, one token each, and as many words as make `shape.tokens` with them."""
    picture = [model.vision_start, model.image_token, model.vision_end] * 2
    count = shape.tokens - 2 * model.cells(*shape.image) - 4
    text = np.random.default_rng(0).choice(words(model), count)
    return [*picture, *text.tolist()]


def prompt(layout: Layout, shape: PromptShape) -> PromptInputs:
    """`Session.prompt_rows` of a step."""
    one = prompt_of_ids(layout.model, [prompt_ids(layout.model, shape)], [[shape.image] * 2])
    rows = repeat_prompt(one, layout.cfg.pairs_per_step)
    return sharding.shard_global(rows, layout.mesh)


def noise(pairs: int, shape: PromptShape) -> np.ndarray:
    """Images u8[pairs, 2, Y, X, 3]."""
    return np.random.default_rng(1).integers(0, 256, (pairs, 2, *shape.image, 3), np.uint8)


def pixels(layout: Layout, shape: PromptShape) -> jax.Array:
    """`noise` for a step's pairs, on the device."""
    return sharding.shard_global(noise(layout.cfg.pairs_per_step, shape), layout.mesh)


def answers(layout: Layout) -> tuple[Rollout, np.ndarray]:
    """Answers with their rewards f32[B, G], in NumPy.

    All of the longest length; where the update packs them, of log-normal lengths, sigma 1, with a
    sixth of the longest as the median, as thoughts have them.
    """
    cfg, rng = layout.cfg, np.random.default_rng(2)
    pairs, longest = (cfg.pairs_per_step, cfg.rollout.group), cfg.rollout.max_tokens
    lengths = np.full(pairs, longest)
    if cfg.grpo.packed:
        drawn = longest / 6 * np.exp(rng.standard_normal(pairs))
        lengths = np.clip(np.ceil(drawn), 1, longest).astype(int)
    shape = (*pairs, longest)
    rollout = Rollout(
        tokens=rng.choice(words(layout.model), shape).astype(np.int32),
        valid=np.arange(longest) < lengths[..., None],
        ended=np.ones(pairs, bool),
        logp=np.zeros(shape, np.float32),
    )
    return rollout, rng.normal(size=pairs).astype(np.float32)
