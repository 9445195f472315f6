"""How a stack of blocks is run: by scan or unrolled, and what the backward pass keeps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# What `jax.checkpoint` keeps of a block beside its input. "q", "k", "v" (rotated) and "o" (the
# attention's output) are named where they are computed; the rest is computed again.
_KEPT = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "qkvo": jax.checkpoint_policies.save_only_these_names("q", "k", "v", "o"),
}


def recomputed(step: Callable, *, remat: str, layers: str) -> Callable:
    """`step` with the activations that `remat` does not keep recomputed in the backward pass."""
    if remat == "none":
        return step
    # inside a scan XLA cannot merge the two computations anyway, and the barrier has a price
    return jax.checkpoint(step, policy=_KEPT[remat], prevent_cse=layers == "unroll")


def over_layers(step: Callable, x, stack, *, layers: str):
    """`jax.lax.scan(step, x, stack)`, as that scan or as the Python loop it stands for."""
    count = len(jax.tree.leaves(stack)[0])
    if layers != "unroll" or not count:
        return jax.lax.scan(step, x, stack)
    outputs = []
    for number in range(count):
        x, output = step(x, jax.tree.map(lambda a: a[number], stack))  # noqa: B023 (called now)
        outputs.append(output)
    return x, jax.tree.map(lambda *rows: jnp.stack(rows), *outputs)
