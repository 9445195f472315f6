"""`config.json` of a Qwen3-VL to `ModelConfig` and back, in both spellings.

Transformers 4.57 and 5.x write rotary settings and the tie flag in different places. Reading
takes either and refuses every setting that this implementation does not compute.
"""

from collections.abc import Callable
from pathlib import Path

from dig_jax.common.json_files import Fields, shown
from dig_jax.hf.rope import check_vision_rope, sections, text_rope
from dig_jax.model.config import ModelConfig, TextConfig, VisionConfig

MAX_BLOCKS = 1000  # of text or vision; every one has its rows in tables of keys and shapes
TOP_FIELDS = {
    "image_token": "image_token_id",
    "video_token": "video_token_id",
    "vision_start": "vision_start_token_id",
    "vision_end": "vision_end_token_id",
}
TEXT_FIELDS = {
    "vocab": "vocab_size",
    "width": "hidden_size",
    "mlp": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "norm_eps": "rms_norm_eps",
    "context": "max_position_embeddings",
}
VISION_FIELDS = {
    "width": "hidden_size",
    "mlp": "intermediate_size",
    "depth": "depth",
    "heads": "num_heads",
    "out": "out_hidden_size",
    "positions": "num_position_embeddings",
    "deepstack": "deepstack_visual_indexes",
    "patch": "patch_size",
    "temporal": "temporal_patch_size",
    "merge": "spatial_merge_size",
    "channels": "in_channels",
}


def from_json(
    top: dict, generation: dict, *, has_head: Callable[[], bool], where: str
) -> ModelConfig:
    """The model that a config.json describes.

    top         config.json
    generation  generation_config.json, may be empty: stop and pad tokens are taken from it first
    has_head    whether the checkpoint holds an output head; asked only where the two tie flags
                disagree or are absent
    where       path of config.json, for messages
    """
    settings = Fields(top, where)
    if settings.get("model_type") != "qwen3_vl":
        raise ValueError(
            f"{where}: model_type={shown(settings.get('model_type'))}; only the dense 'qwen3_vl' "
            f"is implemented"
        )
    text, vision = settings.section("text_config"), settings.section("vision_config")
    _check_supported(settings, text, vision)
    theta, section = text_rope(text)
    counts = {ours: text.count(hf) for ours, hf in TEXT_FIELDS.items() if ours != "norm_eps"}
    sizes = {ours: vision.count(hf) for ours, hf in VISION_FIELDS.items() if ours != "deepstack"}
    last = counts["vocab"] - 1
    eos, pad = _stop_tokens(generation, settings, text, last)
    special = {ours: settings.count(hf, least=0, most=last) for ours, hf in TOP_FIELDS.items()}
    norm_eps = text.number(TEXT_FIELDS["norm_eps"], most=1)
    taps = vision.counts(VISION_FIELDS["deepstack"], least=0)
    rope = {"rope_theta": theta, "mrope_section": section}
    tied = _tied(settings, text, has_head)
    try:
        return ModelConfig(
            text=TextConfig(**counts, **rope, norm_eps=norm_eps, tied=tied),
            vision=VisionConfig(**sizes, deepstack=taps),
            **special,
            eos_tokens=eos,
            pad_token=pad,
        )
    except ValueError as error:  # sizes that do not fit one another
        raise ValueError(f"{where}: {error}") from error


def to_json(config: ModelConfig, dtype: str, *, base: dict) -> dict:
    """The config.json of a model, to be read by Transformers 4.57 and 5.x alike.

    base  a config.json whose settings without a counterpart in `config` are kept; may be empty
    """
    text, vision = config.text, config.vision
    rope = {
        "rope_type": "default",
        "mrope_interleaved": True,
        "mrope_section": list(text.mrope_section),
    }
    text_json = {
        **base.get("text_config", {}),
        "model_type": "qwen3_vl_text",
        **{hf: getattr(text, ours) for ours, hf in TEXT_FIELDS.items()},
        "rope_theta": text.rope_theta,
        "rope_scaling": rope,
        "rope_parameters": {**rope, "rope_theta": text.rope_theta},
        "tie_word_embeddings": text.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "dtype": dtype,
    }
    vision_json = {
        **base.get("vision_config", {}),
        "model_type": "qwen3_vl",  # 5.x reads this older name, 4.57 knows no other
        **{hf: getattr(vision, ours) for ours, hf in VISION_FIELDS.items()},
        "deepstack_visual_indexes": list(vision.deepstack),
        "hidden_act": "gelu_pytorch_tanh",
        "dtype": dtype,
    }
    top = {
        **base,
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        **{hf: getattr(config, ours) for ours, hf in TOP_FIELDS.items()},
        "tie_word_embeddings": text.tied,
        "dtype": dtype,
        "text_config": text_json,
        "vision_config": vision_json,
    }
    top.pop("torch_dtype", None)  # the older name of dtype, now stale
    return top


def _tied(top: Fields, text: Fields, has_head: Callable[[], bool]) -> bool:
    """What both flags say, or the only one; else what the weights say."""
    name = "tie_word_embeddings"
    flags = {place.flag(name) for place in (top, text) if place.has(name)}
    return flags.pop() if len(flags) == 1 else not has_head()


def _check_supported(top: Fields, text: Fields, vision: Fields) -> None:
    for place in (top, text):
        quantised = place.get("quantization_config") or place.get("compression_config")
        if quantised:
            method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
            raise ValueError(
                f"{place.where}: quantization_config with quant_method={shown(method)}; use the "
                f"unquantised checkpoint"
            )
    sections(top, kinds=("default",))  # no release reads it there for the text, people write it
    check_vision_rope(vision)
    for place, most in ((text, "num_hidden_layers"), (vision, "depth")):
        place.count(most, most=MAX_BLOCKS)
    text.only("hidden_act", "silu", default="silu")
    text.only("attention_bias", False, default=False)
    vision.only("hidden_act", "gelu_pytorch_tanh")
    vision.only("in_channels", 3)
    vision.only("temporal_patch_size", 2)


_ADD_STOP = "without one no answer ends; add the tokenizer's to generation_config.json"


def _stop_tokens(
    generation: dict, top: Fields, text: Fields, last: int
) -> tuple[tuple[int, ...], int]:
    """eos_tokens and pad_token: of the first place that names some; ids up to `last`."""
    first = Fields(generation, str(Path(top.where).with_name("generation_config.json")))
    for place in (first, top, text):
        if not place.has("eos_token_id"):
            continue
        many = isinstance(place.get("eos_token_id"), list)
        read = place.counts if many else place.count
        eos = read("eos_token_id", least=0, most=last)
        eos = eos if many else (eos,)
        if not eos:
            raise ValueError(f"{place.where}: eos_token_id=[]; {_ADD_STOP}")
        named = first.has("pad_token_id")
        pad = first.count("pad_token_id", least=0, most=last) if named else eos[-1]
        return eos, pad  # Qwen's last stop token is its pad token
    raise ValueError(
        f"{top.where} names no eos_token_id, nor does generation_config.json beside it; {_ADD_STOP}"
    )
