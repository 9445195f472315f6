"""Devices in two directions."""

from dataclasses import dataclass

from dig_jax.common import typed
from dig_jax.common.fields import number


@dataclass(frozen=True)
class MeshConfig:
    """Devices in two directions; their product is all of them.

    The update splits its pairs, weights and moments over both (ZeRO-3); a rollout has its pairs
    split over `fsdp` and each matrix over `tensor`, a copy of the weights per row of the mesh.
    """

    fsdp: int = number(1, least=1, most=2**16)  # copies of the weights in a rollout
    tensor: int = number(1, least=1, most=2**16)  # devices that share such a copy

    def __post_init__(self):
        typed.check_fields(self, "mesh")
