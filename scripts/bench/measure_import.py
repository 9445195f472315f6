"""Peak memory of importing a checkpoint folder, against its bound; exits 1 when it is over.

    python -m scripts.bench.measure_import --source data/random_8b --dtype bfloat16 --devices 4

A thread samples this process's anonymous memory while `load_params` runs. On the CPU the device
arrays live in the same memory, so what counts is the peak beyond them. `--drop` lets each finished
parameter go, for machines that cannot hold the model: the host side is the same.
"""

import argparse
import math
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from dig_jax.common.commandline import place_of

_DEVICES = sys.argv[sys.argv.index("--devices") + 1] if "--devices" in sys.argv else "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # these two are read once, at the first import
os.environ["XLA_FLAGS"] = (
    f"--xla_force_host_platform_device_count={_DEVICES} "
    f"--xla_cpu_enable_concurrency_optimized_scheduler=false"
)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from dig_jax.config import MeshConfig  # noqa: E402
from dig_jax.hf import weights  # noqa: E402
from dig_jax.hf.files import find_weights  # noqa: E402
from dig_jax.mesh.sharding import make_mesh, param_shardings  # noqa: E402
from dig_jax.model.params import count  # noqa: E402
from dig_jax.model.specs import model_specs  # noqa: E402
from dig_jax.run.runlog import progress  # noqa: E402

GB, SLACK = 1e9, 2 * 2**30  # the bound: three times the largest tensor, and 2 GiB


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", text).group(1))


class Sampler:
    """The peaks of anonymous memory while the block runs: all of it, and beyond device arrays.

    What the devices hold is known from the order in which `each_param` makes its arrays: asking
    JAX misses an array while it is being written. A stack's memory appears in the middle of its
    first layer, so that one is not sampled; every other layer does the same.
    """

    def __init__(self, itemsize: int):
        self._itemsize = itemsize
        self.total = self.beyond = 0
        self._device, self._single, self._blind = 0, 0, False
        self._lock, self._done = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def tensors(self, items: list, label: str) -> Iterator:
        """The progress bar, noting what each tensor adds to the devices."""
        for item in progress(items, label):
            _, spec, target, layer, _ = item
            with self._lock:
                self._blind = bool(spec.stack) and layer == 0
                if layer == 0:
                    self._device, self._single = self._device + self._single, 0
                    size = math.prod(target.shard_shape(spec.shape)) * self._itemsize
                    size *= len(target.addressable_devices)
                    if spec.stack:
                        self._device += size
                    else:
                        self._single = size  # counted once it is finished
            yield item

    def drop(self, array: jax.Array) -> None:
        """Frees a finished array; not sampled, for that takes time."""
        with self._lock:
            array.delete()
            self._device, self._single = 0, 0

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            with self._lock:
                now = anonymous_bytes()
                self.total = max(self.total, now)
                if not self._blind:
                    self.beyond = max(self.beyond, now - self._device)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()


def measure(source: str, *, dtype: str, devices: int, drop: bool) -> bool:
    """Imports, prints what it took, and says whether the peak is within the bound."""
    config = weights.read_model_config(source)
    specs = model_specs(config)
    shardings = param_shardings(specs, make_mesh(MeshConfig(fsdp=devices)))
    found = find_weights(weights.open_folder(source))
    largest = max(stored.entry.stop - stored.entry.start for stored in found.values())
    final = jnp.dtype(dtype).itemsize * count(specs)
    with Sampler(jnp.dtype(dtype).itemsize) as peak:
        start = time.perf_counter()
        made = weights.each_param(
            source, config, shardings=shardings, dtype=dtype, progress=peak.tensors
        )
        kept = []
        for _, array in made:
            kept.append(array)
            if drop:
                peak.drop(array)
        seconds = time.perf_counter() - start
    bound = 3 * largest + SLACK
    rows = {
        "devices": f"{devices} x {jax.devices()[0].device_kind}, {dtype}",
        "arrays": f"{len(kept)} of {final / GB:.2f} GB, {'dropped' if drop else 'all resident'}",
        "largest tensor": f"{largest / GB:.3f} GB in the file",
        "peak, all": f"{peak.total / GB:.2f} GB",
        "peak beyond arrays": f"{peak.beyond / GB:.3f} GB",
        "bound": f"{bound / GB:.3f} GB (3 x largest + 2 GiB)",
        "peak / largest": f"{peak.beyond / largest:.2f}",
        "time": f"{seconds:.1f} s, {final / 1e6 / seconds:.0f} MB/s",
    }
    print("\n".join(f"{name:20}{value}" for name, value in rows.items()))
    return peak.beyond <= bound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--source", type=place_of, required=True, help="checkpoint folder, or a gs:// address"
    )
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--devices", type=int, default=1, help="virtual CPU devices")
    parser.add_argument("--drop", action="store_true", help="keep no finished parameter")
    args = parser.parse_args()
    within = measure(args.source, dtype=args.dtype, devices=args.devices, drop=args.drop)
    print("within the bound" if within else "OVER the bound")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
