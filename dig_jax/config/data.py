"""Where pairs lie, what size they have, and who decodes them."""

from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.fields import number, place, require
from dig_jax.config.rules import BOXES, SIDE, check_place


@dataclass(frozen=True)
class DataConfig:
    root: str = place("data/tiny")  # folder with a sub-folder of shards per split (2)
    image_width: int = number(96, least=1, most=SIDE)  # px, X, of the records (4)
    image_height: int = number(64, least=1, most=SIDE)  # px, Y; same
    min_pixels: int = number(0, least=0, most=SIDE**2)  # smallest image the model sees (3)
    max_pixels: int = number(0, least=0, most=SIDE**2)  # largest; same
    max_boxes: int = number(8, least=1, most=BOXES)  # M: true boxes of a pair are padded to this
    buckets: tuple[str, ...] = ("single", "dual", "mixed")  # training splits, in index order
    eval_split: str = "heldout"  # split scored by evaluate; never trained on
    prefetch: int = number(2, least=0, most=1000)  # batches decoded ahead, by each worker if any
    workers: int = number(0, least=0, most=1000)  # processes that decode; 0 = two threads
    cache: Literal["none", "decoded"] = "none"  # training pairs kept as raw pixels on disk (1)

    # (1) decoded: the first run writes every training pair, at the model's size, into
    #     <root>/<bucket>/decoded; height x width x 6 bytes each (480x320: 0.9 MB, six times its
    #     PNGs; 96x64: 37 KB). Off unless asked for: a GRPO step takes seconds for pairs that
    #     decode in milliseconds. It pays where steps are short: supervised training, many epochs.
    #     Neither field has a say in which pairs a step sees.
    # (2) Or gs://BUCKET/FOLDER: every machine copies the splits that it opens, once, to
    #     .cache/data/BUCKET/FOLDER below the working directory, and compares checksums.
    # (3) Height x width; 0 = the checkpoint's own. An image outside is resized as HF and vLLM do.
    # (4) The size of what the model sees follows from the limits below.

    def __post_init__(self):
        typed.check_fields(self, "data")
        check_place("data.root", self.root)
        ok = not self.max_pixels or self.min_pixels <= self.max_pixels
        rule = f"is above data.max_pixels={self.max_pixels}"
        require(ok, "data.min_pixels", self.min_pixels, rule, "lower it or raise max_pixels")
        ok = bool(self.buckets) and len(set(self.buckets)) == len(self.buckets)
        require(ok, "data.buckets", self.buckets, "is empty or repeats a name", "name each once")
        ok = self.eval_split not in self.buckets
        rule = "is also a training bucket"
        require(ok, "data.eval_split", self.eval_split, rule, "score pairs never trained on")
