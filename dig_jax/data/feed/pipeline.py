"""Rendered pairs as batches of numpy arrays, in an order that the step alone decides.

Grain reads and decodes ahead, in threads or in processes of its own; `curriculum` says which pair
each row holds. Nothing here touches a device: `sharding.shard_batch` takes a `Batch` from here on.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np

from dig_jax.config import Config
from dig_jax.data.feed.batch import Batch, collate
from dig_jax.data.feed.checks import check_enough, drawn_splits
from dig_jax.data.feed.curriculum import Curriculum, IndexTable, index_table
from dig_jax.data.feed.source import PairSource
from dig_jax.data.feed.workers import in_processes
from dig_jax.inputs.images import Size

# Which shares of every global batch a caller takes, of how many equal ones.
Shares = tuple[Sequence[int], int]
WHOLE: Shares = ((0,), 1)


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
        return in_processes(batches, cfg, _rows_per_batch(cfg, shares), pair_bytes)
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
        return _open_batches(cfg, 0, shares, size, attempt)[0]

    return lambda step, attempt: order(attempt)[step]


def _open_batches(
    cfg: Config, first_step: int, shares: Shares, size: Size | None, attempt: int = 0
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
    table = index_table(cfg, {name: len(source) for name, source in opened.items()}, attempt)
    mine = Curriculum(_rows_of(table, cfg, first_step, shares))
    # A bucket that is never drawn needs no files, but Grain wants a data set in its place.
    unused = next(iter(opened.values()))
    sources = [grain.MapDataset.source(opened.get(name, unused)) for name in cfg.data.buckets]
    pairs = grain.MapDataset.select_from_datasets(sources, mine)
    batched = functools.partial(collate, max_boxes=cfg.data.max_boxes)
    return pairs.batch(_rows_per_batch(cfg, shares), batch_fn=batched), unused.pair_bytes


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
        check_enough(cfg, split, source)
    pairs = min(cfg.eval.pairs, len(source))
    batches = []
    for first in range(0, pairs, cfg.eval.batch):
        rows = [source[i] for i in range(first, min(first + cfg.eval.batch, pairs))]
        fill = cfg.eval.batch - len(rows)
        batch = collate(rows + rows[:1] * fill, max_boxes=cfg.data.max_boxes)
        batches.append(batch.replace(real=np.arange(cfg.eval.batch) < len(rows)))
    return batches


def _rows_per_batch(cfg: Config, shares: Shares) -> int:
    """Pairs of a global batch that one process loads."""
    return cfg.pairs_per_step // shares[1] * len(shares[0])


def _rows_of(table: IndexTable, cfg: Config, first_step: int, shares: Shares) -> IndexTable:
    """One process's draws from `first_step` on: its shares of every batch."""
    shape, mine = (cfg.steps, shares[1], -1), list(shares[0])
    return IndexTable(*(part.reshape(shape)[first_step:, mine].ravel() for part in table))
