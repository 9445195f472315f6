"""Processes that decode batches ahead, where threads are not enough."""

import functools
import sys
from collections.abc import Iterator

import grain
import numpy as np
from absl import flags

from dig_jax.config import Config
from dig_jax.data.feed import shared_memory
from dig_jax.data.feed.batch import Batch


def in_processes(
    batches: grain.MapDataset, cfg: Config, rows: int, pair_bytes: int
) -> Iterator[Batch]:
    """Batches decoded by data.workers processes, in the order of `batches`.

    rows         pairs per batch of this process
    pair_bytes   of two images as the model sees them

    Worker w of n makes the batches w, w + n, w + 2n ...; Grain takes from each in turn. Raises
    ValueError here where shared memory is too small, RuntimeError from `next` where the system
    ended a worker. Close it to end the workers; they also end with this process.
    """
    ahead = max(1, cfg.data.prefetch)
    each = shared_memory.batch_bytes(rows, pair_bytes, cfg.data.max_boxes)
    prefix = shared_memory.own_prefix()
    shared_memory.check_room(cfg.data.workers, ahead, each)
    if not flags.FLAGS.is_parsed():  # Grain 0.2.18 reads a flag as if absl had started us (#1355)
        flags.FLAGS.mark_as_parsed()
    options = grain.multiprocessing.MultiprocessingOptions(
        num_workers=cfg.data.workers, per_worker_buffer_size=ahead
    )
    # one thread each: the processes are what works ahead
    alone = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    begin = functools.partial(_begin, prefix)
    made = batches.to_iter_dataset(alone).mp_prefetch(options, worker_init_fn=begin)
    return _explained(iter(made.map(_owned)))


def _explained(batches: grain.DatasetIterator) -> Iterator[Batch]:
    """The same batches; a worker's death is told with its reason."""
    try:
        yield from batches
    except RuntimeError as error:
        reason = shared_memory.explain_death(error)
        if reason is None:
            raise
        raise reason from error
    finally:
        batches.close()


def _begin(prefix: str, worker: int, workers: int) -> None:
    _refuse_backend(worker, workers)
    shared_memory.begin_worker(prefix)


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
