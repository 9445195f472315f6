"""Where pairs lie, what size they have, and who decodes them."""

from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.typed import at_least, require
from dig_jax.config.rules import check_place


@dataclass(frozen=True)
class DataConfig:
    root: str = "data/tiny"  # folder with a sub-folder of shards per bucket and eval split (2)
    image_width: int = 96  # px, X, of the records; the model's size follows from the limits below
    image_height: int = 64  # px, Y; same
    min_pixels: int = 0  # smallest image the model sees, height x width; 0 = the checkpoint's own
    max_pixels: int = 0  # largest; an image outside is resized as HF and vLLM do; 0 = same
    max_boxes: int = 8  # M: true boxes are padded to this many per pair
    buckets: tuple[str, ...] = ("single", "dual", "mixed")  # training splits, in index order
    eval_split: str = "heldout"  # split scored by evaluate; never trained on
    prefetch: int = 2  # batches decoded ahead, by each worker where there are any; >= 0
    workers: int = 0  # processes that decode; 0 = two threads of the run's own process
    cache: Literal["none", "decoded"] = "none"  # training pairs kept as raw pixels on disk (1)

    # (1) decoded: the first run writes every training pair, at the model's size, into
    #     <root>/<bucket>/decoded; height x width x 6 bytes each (480x320: 0.9 MB, six times its
    #     PNGs; 96x64: 37 KB). Off unless asked for: a GRPO step takes seconds for pairs that
    #     decode in milliseconds. It pays where steps are short: supervised training, many epochs.
    #     Neither field has a say in which pairs a step sees.
    # (2) Or gs://BUCKET/FOLDER: every machine copies the splits that it opens, once, to
    #     .cache/data/BUCKET/FOLDER below the working directory, and compares checksums.

    def __post_init__(self):
        typed.check_fields(self, "data")
        check_place("data.root", self.root)
        least = {"image_width": 1, "image_height": 1, "min_pixels": 0, "max_pixels": 0}
        at_least("data", self, max_boxes=1, prefetch=0, workers=0, **least)
        ok = not self.max_pixels or self.min_pixels <= self.max_pixels
        rule = f"is above data.max_pixels={self.max_pixels}"
        require(ok, "data.min_pixels", self.min_pixels, rule, "lower it or raise max_pixels")
        ok = bool(self.buckets) and len(set(self.buckets)) == len(self.buckets)
        require(ok, "data.buckets", self.buckets, "is empty or repeats a name", "name each once")
        ok = self.eval_split not in self.buckets
        rule = "is also a training bucket"
        require(ok, "data.eval_split", self.eval_split, rule, "score pairs never trained on")
