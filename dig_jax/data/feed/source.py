"""A split, pair by pair: opened, checked, decoded, resized."""

import bisect
import contextlib
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import grain
import numpy as np

from dig_jax.boxes import unit_from_px
from dig_jax.common.addresses import is_remote
from dig_jax.config import DataConfig
from dig_jax.data import records
from dig_jax.data.feed.batch import Row, kind_codes
from dig_jax.data.feed.decoded import DecodedPairs, open_decoded
from dig_jax.data.feed.fetch import local_split
from dig_jax.inputs.images import Size, resize


class PairSource:
    """The pairs of one split, decoded and checked, as a Grain random-access source.

    size    (height, width) that images are resized to; None leaves the records' own pixels
    cache   as data.cache: "decoded" reads, and first makes, the split's decoded copies

    Opening it copies what a bucket has and this machine lacks, checks the shards against their
    manifest and decodes the first record. Raises FileNotFoundError with the command that makes
    the data, OSError where a decoded copy has no room, and ValueError naming file and record for
    bytes that are no pair, a wrong image size, or too many boxes. It pickles as names, without
    what those checks read.
    """

    def __init__(
        self, cfg: DataConfig, split: str, size: Size | None = None, *, cache: str = "none"
    ):
        self._cfg = cfg
        own = (cfg.image_height, cfg.image_width)
        self._size = tuple(size or own)
        self._bucket = cfg.buckets.index(split) if split in cfg.buckets else -1
        # what comes from a bucket has been compared with the manifest already
        self._files = records.open_split(
            local_split(cfg.root, split), verify=not is_remote(cfg.root)
        )
        counts = [records.count_records(path) for path in self._files]
        self._ends = list(itertools.accumulate(counts))
        self._bytes = grain.sources.ArrayRecordDataSource([str(path) for path in self._files])
        self._decoded: DecodedPairs | None = None
        if len(self):
            self.record(0)
        _check_box_counts(self._files, cfg)
        if cache == "decoded":
            self._decoded = open_decoded(self._files, own, self._size, self.record)
            self._check_decoded()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def pair_bytes(self) -> int:
        """Of the two images of a row."""
        return 2 * self._size[0] * self._size[1] * 3

    def __getitem__(self, index: int) -> Row:
        if self._decoded is None:
            pair = self.record(index)
            sides = [resize(image, self._size) for image in (pair.image_a, pair.image_b)]
            images, boxes_px, kinds = np.stack(sides), pair.boxes_px, pair.kinds
        else:
            with self._named(index):
                images, boxes_px = self._decoded[index]
                kinds = self._decoded.kinds(index)
        boxes = unit_from_px(boxes_px, self._cfg.image_width, self._cfg.image_height)
        return Row(images, boxes, kind_codes(kinds), index, self._bucket)

    def true_boxes(self, index: int) -> np.ndarray:
        """f32[n, 4] of a pair, unit frame, without decoding its pictures."""
        with self._named(index):
            found = records.decode_meta(self._bytes[index])["differences"]
            boxes_px = np.array([one["box"] for one in found], np.float32).reshape(-1, 4)
        return unit_from_px(boxes_px, self._cfg.image_width, self._cfg.image_height)

    def picture_hashes(self, index: int) -> set[bytes]:
        """Of both pictures as they are stored: equal for equal pictures of one encoder."""
        with self._named(index):
            fields = records.unpack(self._bytes[index])
            return {hashlib.sha256(fields[name]).digest() for name in ("image_a", "image_b")}

    def record(self, index: int, *, masks: bool = False) -> records.Pair:
        """A record as it is on disk, checked; its masks only where they are asked for."""
        with self._named(index):
            decode = records.decode if masks else records.decode_images
            pair = decode(self._bytes[index])
            self._check(pair)
        return pair

    @contextlib.contextmanager
    def _named(self, index: int) -> Iterator[None]:
        """Puts file and record before whatever is wrong with them."""
        try:
            yield
        except MemoryError:
            raise  # says nothing about the record
        except Exception as error:  # a checksum failure has no type of its own
            raise ValueError(f"{self._where(index)}: {error}") from error

    def _check(self, pair: records.Pair) -> None:
        want = (self._cfg.image_height, self._cfg.image_width, 3)
        for name in ("image_a", "image_b"):
            got = getattr(pair, name)
            if got.shape != want or got.dtype != np.uint8:
                size = "x".join(map(str, got.shape[1::-1]))
                raise ValueError(
                    f"{name} is {size} px ({got.dtype}, shape {got.shape}), but "
                    f"data.image_width x image_height is {want[1]}x{want[0]}; render the split "
                    f"at that size with `python -m dig_jax.data render` or change the config"
                )
        self._check_count(len(pair.boxes_px))

    def _check_count(self, boxes: int) -> None:
        if boxes > self._cfg.max_boxes:
            raise ValueError(
                f"{boxes} true boxes, more than data.max_boxes={self._cfg.max_boxes}; "
                "raise data.max_boxes"
            )

    def _check_decoded(self) -> None:
        """The copies may have been made under a larger data.max_boxes."""
        counts = self._decoded.box_counts()
        if len(counts):
            most = int(counts.argmax())
            with self._named(most):
                self._check_count(int(counts[most]))

    def _where(self, index: int) -> str:
        number = bisect.bisect_right(self._ends, index)
        first = self._ends[number - 1] if number else 0
        return f"{self._files[number]} record {index - first}"


def _check_box_counts(files: list[Path], cfg: DataConfig) -> None:
    """Compares the manifest's histogram of differences per pair with max_boxes."""
    if not files:
        return
    folder = files[0].parent
    counts = records.read_manifest(folder).get("k", {})
    most = max(map(int, counts), default=0)
    if most > cfg.max_boxes:
        raise ValueError(
            f"{folder} has pairs with {most} differences, more than data.max_boxes="
            f"{cfg.max_boxes}; raise data.max_boxes"
        )
