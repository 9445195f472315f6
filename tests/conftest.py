"""Every test runs on CPU with eight virtual devices and without a network."""

import gc
import os
import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Before the first jax import: the backend reads these once.
os.environ["JAX_PLATFORMS"] = "cpu"
# The second flag: see `sharding.CPU_ORDER`.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_cpu_enable_concurrency_optimized_scheduler=false"
).strip()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ["HF_HUB_OFFLINE"] = "1"
# gcsfs, when it is imported: never ask Google over gRPC which kind a bucket is of.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", False)


SLOW_FILES = ("test_train", "test_distributed", "test_mesh", "test_parity", "test_model_cache")


def pytest_collection_modifyitems(items):
    """The longest files first: with a process per core, none is left over at the end."""
    items.sort(key=lambda item: item.path.stem not in SLOW_FILES)


MAPS = 25_000  # of the 65,530 that Linux lets a process have


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    """Every compiled program takes hundreds of memory maps; without room for more XLA crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """A test that reaches beyond this machine fails, naming the address."""
    connect = socket.socket.connect

    def guarded(sock, address):
        if sock.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            pytest.fail(f"this test opens a network connection to {address}")
        return connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.")
