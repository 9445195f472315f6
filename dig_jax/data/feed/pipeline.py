"""Rendered pairs as batches of numpy arrays, in an order that the step alone decides.

Grain reads and decodes ahead, in threads or in processes of its own; `curriculum` says which pair
each row holds. Nothing here touches a device: `sharding.shard_batch` takes a `Batch` from here on.
"""

import bisect
import contextlib
import dataclasses
import functools
import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
from absl import flags
from flax import struct

from dig_jax.boxes import BoxSet, pad_boxes, unit_from_px
from dig_jax.common.addresses import is_remote
from dig_jax.config import Config, DataConfig
from dig_jax.data import records
from dig_jax.data.feed.curriculum import Curriculum, IndexTable, index_table
from dig_jax.data.feed.decoded import DecodedPairs, open_decoded
from dig_jax.data.feed.fetch import local_split, render_root
from dig_jax.data.scene.scene import TYPES
from dig_jax.inputs.images import Size, resize

KINDS = (*TYPES, "other")  # of differences, as Batch.kind counts them; other: of foreign data
_SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps what processes share

# Which shares of every global batch a caller takes, of how many equal ones.
Shares = tuple[Sequence[int], int]
WHOLE: Shares = ((0,), 1)


@struct.dataclass
class Batch:
    """B pairs with their answers.

    images   u8[B,2,Y,X,3]   image A, image B, at the records' own size or the model's
    truth    BoxSet[B,M]     unit frame
    kind     i32[B,M]        type of each true box, an index into KINDS; -1 at padding
    pair_id  i32[B]          record number within the split
    bucket   i32[B]          index into data.buckets; -1 for a split that is none of them
    real     bool[B]         false on rows that only fill up an evaluation's last batch
    """

    images: np.ndarray
    truth: BoxSet
    kind: np.ndarray
    pair_id: np.ndarray
    bucket: np.ndarray
    real: np.ndarray


class Row(NamedTuple):
    """One pair on its way into a batch."""

    images: np.ndarray  # u8[2,Y,X,3]
    boxes_unit: np.ndarray  # f32[n,4]
    kind: np.ndarray  # i32[n], into KINDS
    pair_id: int
    bucket: int


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
            self._pair(0)
        _check_box_counts(self._files, cfg)
        if cache == "decoded":
            self._decoded = open_decoded(self._files, own, self._size, self._pair)
            self._check_decoded()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def pair_bytes(self) -> int:
        """Of the two images of a row."""
        return 2 * self._size[0] * self._size[1] * 3

    def __getitem__(self, index: int) -> Row:
        if self._decoded is None:
            pair = self._pair(index)
            sides = [resize(image, self._size) for image in (pair.image_a, pair.image_b)]
            images, boxes_px, kinds = np.stack(sides), pair.boxes_px, pair.kinds
        else:
            with self._named(index):
                images, boxes_px = self._decoded[index]
                kinds = self._decoded.kinds(index)
        boxes = unit_from_px(boxes_px, self._cfg.image_width, self._cfg.image_height)
        return Row(images, boxes, _kind_codes(kinds), index, self._bucket)

    def true_boxes(self, index: int) -> np.ndarray:
        """f32[n, 4] of a pair, unit frame, without decoding its pictures."""
        with self._named(index):
            found = records.decode_meta(self._bytes[index])["differences"]
            boxes_px = np.array([one["box"] for one in found], np.float32).reshape(-1, 4)
        return unit_from_px(boxes_px, self._cfg.image_width, self._cfg.image_height)

    def picture_hashes(self, index: int) -> set[bytes]:
        """Of both pictures as they are stored: equal for equal pictures of one encoder."""
        with self._named(index):
            return records.picture_hashes(self._bytes[index])

    def _pair(self, index: int) -> records.Pair:
        """A record as it is on disk, without masks."""
        with self._named(index):
            pair = records.decode_images(self._bytes[index])
            self._check(pair)
        return pair

    @contextlib.contextmanager
    def _named(self, index: int) -> Iterator[None]:
        """Puts file and record before whatever is wrong with them."""
        try:
            yield
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


def check_data(cfg: Config, size: Size | None = None) -> dict[str, int]:
    """Opens every split a run will read; split -> number of pairs.

    size   (height, width) that `train_pairs` will be asked for; with it the decoded copies
           that cfg.data.cache wants are made here already, by default there

    Call it before anything expensive: it raises whatever would stop the run later (a missing
    folder, a broken shard, a wrong image size, too few pairs).
    """
    cache = cfg.data.cache if size else "none"
    sizes = {name: len(PairSource(cfg.data, name, size, cache=cache)) for name in drawn_splits(cfg)}
    index_table(cfg, sizes)
    for name in scored_splits(cfg):
        source = PairSource(cfg.data, name)
        check_scored(cfg, name, source)
        sizes[name] = len(source)
    return sizes


def drawn_splits(cfg: Config) -> list[str]:
    """Buckets that some stage draws from."""
    stages = cfg.curriculum.stages
    return [b for b in cfg.data.buckets if any(stage.weights.get(b, 0) > 0 for stage in stages)]


def scored_splits(cfg: Config) -> list[str]:
    """data.eval_split, and those beside it that the run validates on."""
    beside = (*cfg.eval.splits, *filter(None, [cfg.eval.controls])) if cfg.eval.every else ()
    return list(dict.fromkeys((cfg.data.eval_split, *beside)))


def check_scored(cfg: Config, split: str, source: PairSource) -> None:
    """Raises ValueError where one of `scored_splits` is too small, or a control has a box."""
    if split == cfg.data.eval_split:
        _check_enough(cfg, split, source)
    if split == cfg.eval.controls and cfg.eval.every:
        _check_controls(cfg, source)


def train_pairs(
    cfg: Config, first_step: int, shares: Shares = WHOLE, *, size: Size | None = None
) -> Iterator[Batch]:
    """The training batches of steps first_step, first_step + 1, ... cfg.steps - 1.

    shares    (numbers, count): of every global batch, cut into `count` equal shares, this caller
              takes these (`sharding.process_shares`); B must be a multiple of count
    size      (height, width) of the images; the records' own if absent

    A straight run and one resumed at any step give the same batches. Opening errors are raised
    here, not at the first `next`.
    """
    batches, pair_bytes = _open_batches(cfg, first_step, shares, size)
    if not len(batches):
        return iter(())
    if cfg.data.workers:
        return iter(_in_processes(batches, cfg, _rows_per_batch(cfg, shares), pair_bytes))
    ahead = cfg.data.prefetch
    options = grain.ReadOptions(num_threads=min(2, ahead), prefetch_buffer_size=ahead)
    return iter(batches.to_iter_dataset(options))


def spare_pairs(
    cfg: Config, shares: Shares = WHOLE, *, size: Size | None = None
) -> Callable[[int, int], Batch]:
    """Other batches for a step than its own: get(step, attempt), attempt from 1.

    As `train_pairs` in all else: the same stage and shares, another order of the same pairs, and
    the arguments alone decide. Decoded when asked for.
    """

    @functools.cache
    def order(attempt: int) -> grain.MapDataset:
        # far from any seed that a user gives
        other = dataclasses.replace(cfg, seed=cfg.seed + (attempt << 64))
        return _open_batches(other, 0, shares, size)[0]

    return lambda step, attempt: order(attempt)[step]


def _open_batches(
    cfg: Config, first_step: int, shares: Shares, size: Size | None
) -> tuple[grain.MapDataset, int]:
    """The batches of this process from `first_step` on, and the bytes of a row's images."""
    if cfg.pairs_per_step % shares[1]:
        raise ValueError(
            f"pairs_per_step={cfg.pairs_per_step} is not a multiple of {shares[1]} shares "
            f"(mesh.fsdp); use one, so that every share holds as many pairs"
        )
    opened = {
        name: PairSource(cfg.data, name, size, cache=cfg.data.cache) for name in drawn_splits(cfg)
    }
    table = index_table(cfg, {name: len(source) for name, source in opened.items()})
    mine = Curriculum(_rows_of(table, cfg, first_step, shares))
    # A bucket that is never drawn needs no files, but Grain wants a data set in its place.
    unused = next(iter(opened.values()))
    sources = [grain.MapDataset.source(opened.get(name, unused)) for name in cfg.data.buckets]
    pairs = grain.MapDataset.select_from_datasets(sources, mine)
    collate = functools.partial(_collate, max_boxes=cfg.data.max_boxes)
    return pairs.batch(_rows_per_batch(cfg, shares), batch_fn=collate), unused.pair_bytes


def eval_pairs(
    cfg: Config, split: str | None = None, *, size: Size | None = None, fewer: bool = False
) -> list[Batch]:
    """The first eval.pairs pairs of a split, in order, in batches of eval.batch.

    The last batch is filled up with repeats of its first row, marked `real` False. `split` is
    data.eval_split unless given, `size` (height, width) the records' own: what a model sees may
    be another size than what a picture or a baseline shows. Raises ValueError when the split
    holds fewer pairs, unless `fewer` says to take what there is.
    """
    split = split or cfg.data.eval_split
    source = PairSource(cfg.data, split, size)
    if not fewer:
        _check_enough(cfg, split, source)
    pairs = min(cfg.eval.pairs, len(source))
    batches = []
    for first in range(0, pairs, cfg.eval.batch):
        rows = [source[i] for i in range(first, min(first + cfg.eval.batch, pairs))]
        fill = cfg.eval.batch - len(rows)
        batch = _collate(rows + rows[:1] * fill, max_boxes=cfg.data.max_boxes)
        batches.append(batch.replace(real=np.arange(cfg.eval.batch) < len(rows)))
    return batches


def _in_processes(
    batches: grain.MapDataset, cfg: Config, rows: int, pair_bytes: int
) -> grain.IterDataset:
    """Batches decoded by data.workers processes, in the order of `batches`.

    rows         pairs per batch of this process
    pair_bytes   of two images as the model sees them

    Worker w of n makes the batches w, w + n, w + 2n ...; Grain takes from each in turn.
    """
    ahead = max(1, cfg.data.prefetch)
    _check_shared_memory(cfg.data.workers, ahead, rows * pair_bytes)
    if not flags.FLAGS.is_parsed():  # Grain 0.2.18 reads a flag as if absl had started us (#1355)
        flags.FLAGS.mark_as_parsed()
    options = grain.multiprocessing.MultiprocessingOptions(
        num_workers=cfg.data.workers, per_worker_buffer_size=ahead
    )
    # one thread each: the processes are what works ahead
    alone = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    made = batches.to_iter_dataset(alone).mp_prefetch(options, worker_init_fn=_refuse_backend)
    return made.map(_owned)


def _check_shared_memory(workers: int, ahead: int, batch_bytes: int) -> None:
    """A batch travels in shared memory, and a worker that finds none left dies by SIGBUS."""
    if not _SHARED_MEMORY.is_dir():
        return
    # in each worker's queue, being put there, and being taken out
    need = workers * (ahead + 2) * batch_bytes
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if need > free:
        raise ValueError(
            f"data.workers={workers} with data.prefetch={ahead} need up to {need / 1e6:.0f} MB of "
            f"shared memory and {_SHARED_MEMORY} has {free / 1e6:.0f} MB left; use fewer, or give "
            "it more (a container's --shm-size)"
        )


def _refuse_backend(worker: int, workers: int) -> None:
    """Stops a worker whose program has already started JAX: it would take the accelerator.

    A worker imports the main program anew. Looked up, not imported: nothing in `data` needs jax.
    """
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        raise RuntimeError(
            f"data worker {worker} of {workers}: importing the main program started a JAX backend; "
            "create arrays below `if __name__ == '__main__':`, or use --set data.workers=0"
        )


def _owned(batch: Batch) -> Batch:
    """Plain arrays in place of shared memory.

    A device array on a CPU may go on reading the memory of the NumPy array it came from.
    """
    truth = batch.truth.replace(
        boxes=np.array(batch.truth.boxes), valid=np.array(batch.truth.valid)
    )
    names = ("images", "kind", "pair_id", "bucket", "real")
    return batch.replace(truth=truth, **{name: np.array(getattr(batch, name)) for name in names})


def _collate(rows: Sequence[Row], *, max_boxes: int) -> Batch:
    return Batch(
        images=np.stack([row.images for row in rows]),
        truth=pad_boxes([row.boxes_unit for row in rows], max_boxes),
        kind=np.stack([_padded(row.kind, max_boxes) for row in rows]),
        pair_id=np.array([row.pair_id for row in rows], np.int32),
        bucket=np.array([row.bucket for row in rows], np.int32),
        real=np.ones(len(rows), bool),
    )


def _kind_codes(kinds: Sequence[str]) -> np.ndarray:
    """i32[n]: the number of each type in KINDS."""
    other = KINDS.index("other")
    return np.array([KINDS.index(k) if k in KINDS else other for k in kinds], np.int32)


def _padded(kind: np.ndarray, max_boxes: int) -> np.ndarray:
    return np.pad(kind, (0, max_boxes - len(kind)), constant_values=-1)


def _rows_per_batch(cfg: Config, shares: Shares) -> int:
    """Pairs of a global batch that one process loads."""
    return cfg.pairs_per_step // shares[1] * len(shares[0])


def _rows_of(table: IndexTable, cfg: Config, first_step: int, shares: Shares) -> IndexTable:
    """One process's draws from `first_step` on: its shares of every batch."""
    shape, mine = (cfg.steps, shares[1], -1), list(shares[0])
    return IndexTable(*(part.reshape(shape)[first_step:, mine].ravel() for part in table))


def _check_enough(cfg: Config, split: str, source: PairSource) -> None:
    if len(source) < cfg.eval.pairs:
        raise ValueError(
            f"eval.pairs={cfg.eval.pairs}, but {cfg.data.root}/{split} holds "
            f"{len(source)}; make more with `python -m dig_jax.data render "
            f"--root {render_root(cfg.data.root)} --split {split} ...` or use "
            f"--set eval.pairs={len(source)}"
        )


def _check_controls(cfg: Config, source: PairSource) -> None:
    """The right answer to a control is an empty list."""
    name = cfg.eval.controls
    for index in range(min(cfg.eval.pairs, len(source))):
        boxes = len(source.true_boxes(index))
        if boxes:
            raise ValueError(
                f"eval.controls={name!r}, but pair {index} of {cfg.data.root}/{name} has "
                f"{boxes} differences; name a split of identical pairs, such as test_same, or "
                f"list this one under eval.splits"
            )


def _check_box_counts(files: list[Path], cfg: DataConfig) -> None:
    """Compares the manifest's histogram of differences per pair with max_boxes."""
    if not files:
        return
    folder = files[0].parent
    counts = json.loads((folder / records.MANIFEST).read_text()).get("k", {})
    most = max(map(int, counts), default=0)
    if most > cfg.max_boxes:
        raise ValueError(
            f"{folder} has pairs with {most} differences, more than data.max_boxes="
            f"{cfg.max_boxes}; raise data.max_boxes"
        )
