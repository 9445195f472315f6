"""A GPU's specification for XLA, read from JAX's CUDA plugin: what to compile for without a GPU."""

import importlib.util
import re
from pathlib import Path


def target_config(card: str) -> str:
    """The text proto (`GpuTargetConfigProto`) of a card such as "NVIDIA H100 80GB HBM3".

    Raises FileNotFoundError without the plugin, ValueError naming the cards that it knows.
    """
    return find_target(_plugin().read_bytes(), card)


def find_target(binary: bytes, card: str) -> str:
    """`target_config` from the plugin's bytes: each specification ends with its card's name."""
    starts = [found.start() for found in re.finditer(rb"gpu_device_info \{", binary)]
    ends = {
        found[1].decode(): found.end()
        for found in re.finditer(rb'device_description_str: "([^"\n]*)"', binary)
    }
    before = [start for start in starts if start < ends.get(card, 0)]
    if not before:
        raise ValueError(f"the CUDA plugin has no specification of {card!r}; it has {list(ends)}")
    return binary[before[-1] : ends[card]].decode() + "\n"


def plugin_installed() -> bool:
    return importlib.util.find_spec("jax_plugins.xla_cuda13") is not None


def _plugin() -> Path:
    if not plugin_installed():
        raise FileNotFoundError("JAX's CUDA plugin is not installed; pip install 'jax[cuda13]'")
    spec = importlib.util.find_spec("jax_plugins.xla_cuda13")
    return Path(spec.origin).parent / "xla_cuda_plugin.so"
