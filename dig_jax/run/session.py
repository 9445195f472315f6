"""What every entry point needs before it can run: model, prompt, weights, on one mesh.

Everything that can be wrong with a configuration, a checkpoint folder or the data is found
here, before anything is compiled.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np

from dig_jax.config import Config, DataConfig
from dig_jax.data.feed.checks import check_data
from dig_jax.hf import weights
from dig_jax.hf.files import local_companions
from dig_jax.hf.settings import TOP_FIELDS
from dig_jax.inputs import images
from dig_jax.inputs import prompt as prompts
from dig_jax.inputs.decoding import Decoding, read_decoding
from dig_jax.learner.trainable import trained_names
from dig_jax.mesh import sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model import attention, lora
from dig_jax.model.config import LoraShape, ModelConfig, first_blocks
from dig_jax.model.params import Params, param_shapes, placed_shapes
from dig_jax.model.specs import model_specs
from dig_jax.reward.custom import find_function
from dig_jax.run import arrays
from dig_jax.run.runlog import progress

_NAMED_TOKENS = (  # as Qwen's tokenizers spell them, and fields of ModelConfig
    ("<|image_pad|>", "image_token"),
    ("<|video_pad|>", "video_token"),
    ("<|vision_start|>", "vision_start"),
    ("<|vision_end|>", "vision_end"),
)


@dataclass(frozen=True)
class Session(Layout):
    """The statics of a run."""

    processor: prompts.Processor
    prompt: prompts.PromptInputs  # one row: all pairs share size and question
    image_size: images.Size  # at which the records' images reach the model
    decoding: Decoding  # of evaluation; training samples as cfg.rollout says
    modes: dict[str, Decoding]  # of each of a validation's eval.modes
    cut: bool = False  # the model has only the first blocks of its checkpoint

    def prompt_rows(self, pairs: int) -> prompts.PromptInputs:
        """The prompt repeated for a batch, spread over the mesh like the pairs."""
        return sharding.shard_global(prompts.repeat_prompt(self.prompt, pairs), self.mesh)

    def texts(self, tokens: np.ndarray, lengths: np.ndarray) -> list:
        stops = self.model.eos_tokens
        return prompts.decode_answers(self.processor, tokens, lengths, stops=stops)


def open_session(
    cfg: Config, *, source: str | None = None, blocks: int | None = None, training: bool = True
) -> Session:
    """Check and bind everything static.

    source    checkpoint folder to use instead of cfg.model.source
    blocks    keep only so many text and vision blocks, the first ones; None = all
    training  False: no split is opened; who only scores opens what it scores by itself

    Raises FileNotFoundError or ValueError naming the field or file.
    """
    source = source or cfg.model.source
    find_function(cfg.reward)
    mesh = sharding.make_mesh(cfg.mesh)
    model = open_model(cfg, source, mesh.devices.flat[0].platform, blocks=blocks)
    local = str(local_companions(source))
    size = image_size(cfg.data, local, model)
    decoding, modes = open_decoding(cfg, local)
    if training:
        check_data(cfg, size)
    processor, prompt = open_prompt(cfg, source, model, size)
    if size != (cfg.data.image_height, cfg.data.image_width) and jax.process_index() == 0:
        print(f"images: resized to {size[1]}x{size[0]} px, as {source} wants them", flush=True)
    cut = blocks is not None
    return Session(cfg, mesh, model, processor, prompt, size, decoding, modes, cut)


def open_model(
    cfg: Config, source: str, platform: str, *, blocks: int | None = None
) -> ModelConfig:
    """The model of a checkpoint folder with its adapters, and how it is computed on a platform.

    blocks  as in `open_session`
    """
    whole = weights.read_model_config(source)
    model = computed_as(cfg, whole if blocks is None else first_blocks(whole, blocks), platform)
    model = with_adapters(cfg, model)
    trained_names(cfg, param_shapes(model_specs(model)))
    return model


def open_decoding(cfg: Config, local: str) -> tuple[Decoding, dict[str, Decoding]]:
    """How evaluation chooses tokens, and each mode of a validation; `local` a local folder."""
    return _decoding(cfg, local), _modes(cfg, local)


def open_prompt(
    cfg: Config, source: str, model: ModelConfig, size: images.Size
) -> tuple[prompts.Processor, prompts.PromptInputs]:
    """The processor of a checkpoint folder, and the one prompt that all pairs share."""
    processor = open_processor(source, model)
    prompt = prompts.make_prompt(
        cfg.prompt,
        processor,
        model,
        [[size, size]],
        names=[f"every pair of {cfg.data.root}"],
        answer=cfg.rollout.max_tokens,
    )
    _check_thought(cfg, prompts.opens_thought(processor, prompt.row(0)), source)
    return processor, prompt


def open_processor(source: str, model: ModelConfig) -> prompts.Processor:
    """Tokenizer and template of a checkpoint folder, bound to its model.

    Raises ValueError where the two know an image's tokens by other ids, and where the token that
    ends answers in training data would not end them in sampling: they would run on to their limit.
    """
    local = local_companions(source)
    processor = prompts.load_processor(local, rows=model.text.vocab)
    if processor.eos_token not in model.eos_tokens:
        raise ValueError(
            f"{source}: the tokenizer's eos_token is {processor.eos_token}, but answers stop at "
            f"{list(model.eos_tokens)} (eos_token_id of generation_config.json, else of "
            f"config.json; eos_token of tokenizer_config.json); add it there"
        )
    for name, ours in _NAMED_TOKENS:
        theirs = processor.tokenizer.convert_tokens_to_ids(name)
        if type(theirs) is int and theirs != getattr(model, ours):
            raise ValueError(
                f"{source}: config.json says {TOP_FIELDS[ours]}={getattr(model, ours)}, but the "
                f"tokenizer's {name} is {theirs} (tokenizer.json, tokenizer_config.json); copy "
                f"all of them from one checkpoint"
            )
    return processor


def image_rules(source: str, model: ModelConfig, **limits: int) -> images.ImageRules:
    """`images.read_rules` of a checkpoint folder, checked against its model."""
    rules = images.read_rules(source, **limits)
    for name in ("patch", "merge"):
        ours, theirs = getattr(model.vision, name), getattr(rules, name)
        if ours != theirs:
            raise ValueError(
                f"{source}: preprocessor_config.json cuts images by {name}={theirs}, config.json "
                f"by {ours}; copy both from one checkpoint"
            )
    return rules


def image_size(data: DataConfig, source: str, model: ModelConfig) -> images.Size:
    """(height, width) at which the records' images reach the model."""
    limits = {"min_pixels": data.min_pixels, "max_pixels": data.max_pixels}
    rules = image_rules(source, model, **limits)
    return images.target_size(data.image_height, data.image_width, rules, f"data.root={data.root}")


def _decoding(cfg: Config, source: str) -> Decoding:
    if cfg.eval.decoding == "policy":
        return Decoding(cfg.rollout.temperature if cfg.eval.samples else 0.0)
    decoding = read_decoding(source)
    if cfg.eval.samples > 1 and not decoding.temperature:
        raise ValueError(
            f"eval.samples={cfg.eval.samples} greedy answers are all the same, and with "
            f"eval.decoding='checkpoint' generation_config.json in {source} says greedy; use "
            f"--set eval.samples=0 or --set eval.decoding=policy"
        )
    return decoding


def _modes(cfg: Config, source: str) -> dict[str, Decoding]:
    """How each mode of a validation chooses tokens; none where the run has no validation."""
    chosen = {"greedy": Decoding(0.0), "sampled": Decoding(cfg.rollout.temperature)}
    if "sampled" in cfg.eval.modes and cfg.eval.every and cfg.eval.decoding == "checkpoint":
        chosen["sampled"] = read_decoding(source)
        if not chosen["sampled"].temperature:
            raise ValueError(
                f"eval.modes has 'sampled', but with eval.decoding='checkpoint' "
                f"generation_config.json in {source} says greedy; use --set eval.modes=greedy or "
                f"--set eval.decoding=policy"
            )
    return {mode: chosen[mode] for mode in cfg.eval.modes if cfg.eval.every}


def _check_thought(cfg: Config, opened: bool, source: str) -> None:
    """The reward's rule for <think> must be that of the prompt."""
    think = cfg.reward.think
    if opened and think != "prefilled":
        raise ValueError(
            f"reward.think={think!r}, but the chat template of {source} opens <think> in the "
            f"prompt, so that answers hold only </think>; use --set reward.think=prefilled"
        )
    if think == "prefilled" and not opened:
        raise ValueError(
            f"reward.think='prefilled', but the chat template of {source} opens no <think> in the "
            f"prompt; use --set reward.think=full (the answer opens it) or reward.think=none"
        )


def computed_as(cfg: Config, model: ModelConfig, platform: str) -> ModelConfig:
    """The model with how to compute it there."""
    chosen = attention.choose(
        cfg.model.attention,
        platform=platform,
        dtype=cfg.model.compute_dtype,
        head_dims=(model.text.head_dim, model.vision.head_dim),
    )
    return replace(
        model,
        compute_dtype=cfg.model.compute_dtype,
        attention=chosen,
        remat=cfg.model.remat,
        layers=cfg.model.layers,
    )


def with_adapters(cfg: Config, model: ModelConfig) -> ModelConfig:
    """The model with the adapters that cfg.lora asks for; ValueError for an unknown target."""
    if not cfg.lora.rank:
        return model
    scale = (cfg.lora.alpha or cfg.lora.rank) / cfg.lora.rank
    shape = LoraShape(cfg.lora.rank, scale, cfg.lora.targets)
    lora.check_targets(shape, model_specs(model)["blocks"])
    return replace(model, lora=shape)


def load_weights(session: Session, source: str | None = None) -> Params:
    """The weights of the session's checkpoint folder, or of another, on its mesh.

    With adapters, fresh ones: they change nothing yet.
    """
    model, where = replace(session.model, lora=None), session.shardings
    base = {name: tree for name, tree in where.items() if name != "lora"}
    params = read_weights(source or session.cfg.model.source, model, base, cut=session.cut)
    if not session.model.lora:
        return params
    add = partial(lora.add_fresh, config=session.model, key=jax.random.key(session.cfg.seed))
    return jax.jit(add, out_shardings=where, donate_argnums=0)(params)


def read_weights(source: str, model: ModelConfig, shardings: dict, *, cut: bool = False) -> Params:
    """A checkpoint folder's weights f32, each placed as it arrives.

    cut  the model has only the first blocks of the folder's: no others are read

    A folder made by `convert import` is read by Orbax: every process reads its shards alone.
    """
    if arrays.has_params(source):
        return arrays.load_params(source, placed_shapes(model, shardings), cut=cut)
    return weights.load_params(source, model, shardings=shardings, cut=cut, progress=progress)
