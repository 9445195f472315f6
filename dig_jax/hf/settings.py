"""`config.json` of a Qwen3-VL to `ModelConfig` and back, in both spellings.

Transformers 4.57 and 5.x write rotary settings and the tie flag in different places. Reading
takes either and refuses every setting that this implementation does not compute.
"""

from collections.abc import Callable

from dig_jax.model.config import ModelConfig, TextConfig, VisionConfig

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
    if top.get("model_type") != "qwen3_vl":
        raise ValueError(
            f"{where}: model_type={top.get('model_type')!r}; only the dense 'qwen3_vl' is "
            f"implemented"
        )
    text, vision = (_need(top, name, where) for name in ("text_config", "vision_config"))
    _check_supported(top, text, vision, where)
    flags = {d["tie_word_embeddings"] for d in (top, text) if "tie_word_embeddings" in d}
    theta, section = _rope(text, where)
    fields = {
        ours: _need(vision, hf, f"{where}: vision_config") for ours, hf in VISION_FIELDS.items()
    }
    eos = _eos_tokens(generation, top, text, where)
    pad = generation.get("pad_token_id")
    return ModelConfig(
        text=TextConfig(
            **{ours: _need(text, hf, f"{where}: text_config") for ours, hf in TEXT_FIELDS.items()},
            rope_theta=theta,
            mrope_section=section,
            tied=flags.pop() if len(flags) == 1 else not has_head(),
        ),
        vision=VisionConfig(**{**fields, "deepstack": tuple(fields["deepstack"])}),
        **{ours: _need(top, hf, where) for ours, hf in TOP_FIELDS.items()},
        eos_tokens=eos,
        pad_token=eos[-1] if pad is None else pad,  # Qwen's last stop token is its pad token
    )


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


def _need(section: dict, name: str, where: str):
    if section.get(name) is None:
        raise ValueError(f"{where} has no {name}; is it a Qwen3-VL configuration?")
    return section[name]


def _rope(text: dict, where: str) -> tuple[float, tuple[int, int, int]]:
    """theta and mrope_section; a missing theta raises, for HF's silent defaults differ."""
    new = text.get("rope_parameters") or {}
    old = {**(text.get("rope_scaling") or {}), "rope_theta": text.get("rope_theta")}
    found = {}
    for name in ("rope_theta", "mrope_section"):
        values = [d[name] for d in (new, old) if d.get(name) is not None]
        if not values:
            raise ValueError(
                f"{where}: text_config has no {name}, neither in rope_parameters nor in the older "
                f"rope_theta and rope_scaling; Qwen3-VL's are 5000000 and [24, 20, 20]"
            )
        if any(value != values[0] for value in values):
            raise ValueError(f"{where}: text_config gives two values of {name}: {values}")
        found[name] = values[0]
    return float(found["rope_theta"]), tuple(found["mrope_section"])


def _check_supported(top: dict, text: dict, vision: dict, where: str) -> None:
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    axial = vision.get("rope_parameters") or {}
    for name, value, only in (
        ("quantization_config", top.get("quantization_config"), None),
        ("text_config.hidden_act", text.get("hidden_act", "silu"), "silu"),
        ("text_config.attention_bias", text.get("attention_bias", False), False),
        ("text_config's rope_type", rope.get("rope_type", "default"), "default"),
        ("text_config's mrope_interleaved", rope.get("mrope_interleaved", True), True),
        ("vision_config.hidden_act", vision.get("hidden_act"), "gelu_pytorch_tanh"),
        ("vision_config.in_channels", vision.get("in_channels"), 3),
        ("vision_config's rope_theta", axial.get("rope_theta", 10000), 10000),
    ):
        if value != only:
            raise ValueError(f"{where}: {name}={value!r}; only {only!r} is implemented")


def _eos_tokens(generation: dict, top: dict, text: dict, where: str) -> tuple[int, ...]:
    for source in (generation, top, text):
        eos = source.get("eos_token_id")
        if eos is not None:
            return tuple(eos) if isinstance(eos, list) else (eos,)
    raise ValueError(
        f"{where} names no eos_token_id, nor does generation_config.json beside it; without one "
        f"no answer ends"
    )
