"""Processes that decode batches ahead, where threads are not enough."""

import shutil
import sys
from pathlib import Path

import grain
import numpy as np
from absl import flags

from dig_jax.config import Config
from dig_jax.data.feed.batch import Batch

_SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps what processes share


def in_processes(
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
