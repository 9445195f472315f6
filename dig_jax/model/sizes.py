"""The four released dense Qwen3-VL, by name: for planning, tests and random stand-ins.

A checkpoint's own config.json is what training reads; this table only says what to expect.
"""

from dig_jax.model.config import ModelConfig, TextConfig, VisionConfig

# width, mlp, layers, heads, tied of the decoder; width, mlp, depth, taps of the tower
_SIZES = {
    "2b": ((2048, 6144, 28, 16, True), (1024, 4096, 24, (5, 11, 17))),
    "4b": ((2560, 9728, 36, 32, True), (1024, 4096, 24, (5, 11, 17))),
    "8b": ((4096, 12288, 36, 32, False), (1152, 4304, 27, (8, 16, 24))),
    "32b": ((5120, 25600, 64, 64, False), (1152, 4304, 27, (8, 16, 24))),
}


def released(size: str) -> ModelConfig:
    """Configuration of the released model of a size: "2b", "4b", "8b" or "32b".

    Instruct and Thinking models of a size have the same one.
    """
    if size not in _SIZES:
        raise ValueError(f"model size {size!r} is not released; use one of {', '.join(_SIZES)}")
    (width, mlp, layers, heads, tied), (tower, tower_mlp, depth, taps) = _SIZES[size]
    text = TextConfig(
        vocab=151936,
        width=width,
        mlp=mlp,
        layers=layers,
        heads=heads,
        kv_heads=8,
        head_dim=128,
        rope_theta=5e6,
        mrope_section=(24, 20, 20),
        tied=tied,
    )
    vision = VisionConfig(
        width=tower,
        mlp=tower_mlp,
        depth=depth,
        heads=16,
        out=width,
        positions=2304,
        deepstack=taps,
    )
    return ModelConfig(
        text=text,
        vision=vision,
        image_token=151655,
        video_token=151656,
        vision_start=151652,
        vision_end=151653,
        eos_tokens=(151645, 151643),
        pad_token=151643,
    )
