"""Sizes of a Qwen3-VL and how it is computed; static under jit."""

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the text decoder (HF `Qwen3VLTextConfig`)."""

    vocab: int
    width: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float
    mrope_section: tuple[int, int, int]  # frequencies of the (T, H, W) axes, sum = head_dim / 2
    norm_eps: float = 1e-6
    tied: bool = True
    context: int = 262144  # tokens of prompt and answer together

    def __post_init__(self):
        if self.heads % self.kv_heads:
            raise ValueError(
                f"num_key_value_heads={self.kv_heads} does not divide "
                f"num_attention_heads={self.heads}; query heads share key heads in equal groups"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd; rotary positions turn pairs")
        if sum(self.mrope_section) * 2 != self.head_dim:
            raise ValueError(
                f"mrope_section={self.mrope_section} sums to {sum(self.mrope_section)}; "
                f"it must cover head_dim/2 = {self.head_dim // 2} frequencies"
            )


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the vision tower (HF `Qwen3VLVisionConfig`)."""

    width: int
    mlp: int
    depth: int
    heads: int
    out: int  # width of the text decoder
    positions: int  # rows of the learned position table, a square number
    deepstack: tuple[int, ...]  # block indices whose output feeds the first text layers
    patch: int = 16
    temporal: int = 2
    merge: int = 2
    channels: int = 3
    norm_eps: float = 1e-6

    def __post_init__(self):
        if self.width % (4 * self.heads):
            raise ValueError(
                f"vision hidden_size={self.width} is not a multiple of 4 x num_heads="
                f"{4 * self.heads}; a head's numbers are turned in pairs, by row and by column"
            )
        if math.isqrt(self.positions) ** 2 != self.positions:
            raise ValueError(f"num_position_embeddings={self.positions} is not a square number")
        if list(self.deepstack) != sorted(set(self.deepstack)):
            raise ValueError(f"deepstack_visual_indexes={self.deepstack} must ascend")
        if self.deepstack and self.deepstack[-1] >= self.depth:
            raise ValueError(
                f"deepstack_visual_indexes={self.deepstack} names a block beyond depth={self.depth}"
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def cell(self) -> int:
        """Pixels of one merged token's side."""
        return self.patch * self.merge


@dataclass(frozen=True)
class LoraShape:
    """Low-rank adapters on matrices of the text blocks; see `lora`."""

    rank: int
    scale: float  # of their product: alpha / rank
    targets: tuple[str, ...]  # rows of a text block, such as "wq"


@dataclass(frozen=True)
class ModelConfig:
    """A whole Qwen3-VL: sizes, special ids, and how it is computed; static under jit."""

    text: TextConfig
    vision: VisionConfig
    image_token: int
    video_token: int
    vision_start: int
    vision_end: int
    eos_tokens: tuple[int, ...]
    pad_token: int
    compute_dtype: str = "float32"  # matmul inputs; parameters themselves stay float32
    attention: str = "xla"  # which implementation, see `attention`
    remat: str = "none"  # none | full | dots | qkvo: recomputed in the backward pass
    layers: str = "one_scan"  # one_scan | scan | unroll
    split: str = "pairs"  # pairs | heads: activations on a mesh, see `placement`
    lora: LoraShape | None = None  # adapters beside the weights

    def __post_init__(self):
        if len(self.vision.deepstack) > self.text.layers:
            raise ValueError(
                f"{len(self.vision.deepstack)} deepstack features need as many text layers; "
                f"num_hidden_layers={self.text.layers}"
            )
        if self.vision.out != self.text.width:
            raise ValueError(
                f"vision out_hidden_size={self.vision.out} must equal hidden_size={self.text.width}"
            )

    def cells(self, height: int, width: int) -> int:
        """Merged tokens of an image of whole cells."""
        return height // self.vision.cell * (width // self.vision.cell)

    def check_image(self, height: int, width: int) -> None:
        """Raise unless the image is cut into whole merged cells."""
        cell = self.vision.cell
        if height % cell or width % cell or not height or not width:
            raise ValueError(
                f"image size {width}x{height} is not a multiple of patch*merge = "
                f"{self.vision.patch}*{self.vision.merge} = {cell}; choose a width and a height "
                f"that {cell} divides"
            )


def first_blocks(c: ModelConfig, count: int) -> ModelConfig:
    """The model without all but its first text and vision blocks, for trying a run out.

    It keeps as many deepstack taps, with their mergers, as there are blocks left to feed and to
    tap; where those lie beyond the last block, they tap the last ones. A smaller model stays.
    """
    layers, depth = min(count, c.text.layers), min(count, c.vision.depth)
    taps = c.vision.deepstack[: min(layers, depth)]
    if taps and taps[-1] >= depth:
        taps = tuple(range(depth - len(taps), depth))
    text = dataclasses.replace(c.text, layers=layers)
    vision = dataclasses.replace(c.vision, depth=depth, deepstack=taps)
    return dataclasses.replace(c, text=text, vision=vision)
