"""AdamW as pure functions of the step: clip, moments, decay of matrices, rate.

The learning rate comes from the step the caller passes, not from a counter in the optimiser
state, so it stays right with several updates per step and after a moment reset.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dig_jax.config import OptimConfig

# Leaves that are not decayed, by the last part of their path; so are norms and biases.
_TABLES = ("embed", "position")


class Optimizer(NamedTuple):
    """init(params) -> opt_state
    update(grads, opt_state, params, step) -> (params, opt_state, norm)

    `params` is the trained part of a tree alone (`trainable.split`). `norm` f32[] is the global
    norm of the gradients before clipping.
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any, jax.Array], tuple[Any, Any, jax.Array]]


def make_optimizer(cfg: OptimConfig, steps: int, params: Any) -> Optimizer:
    """AdamW for parameters of this structure.

    steps    of the run; where a decaying schedule reaches 0
    params   arrays or shapes, all float32, nested dicts
    """
    _check_float32(params)
    rate = make_schedule(cfg, steps)
    decayed = jax.tree_util.tree_map_with_path(lambda path, _: decays(_name(path)), params)
    chain = optax.chain(
        optax.clip_by_global_norm(cfg.max_grad_norm),
        optax.scale_by_adam(b1=cfg.b1, b2=cfg.b2, eps=cfg.eps, mu_dtype=jnp.float32),
        optax.add_decayed_weights(cfg.weight_decay, mask=decayed),
    )

    def update(grads, opt_state, params, step):
        norm = optax.tree.norm(grads)
        moves, opt_state = chain.update(grads, opt_state, params)
        speed = rate(step)
        return jax.tree.map(lambda p, m: p - speed * m, params, moves), opt_state, norm

    return Optimizer(chain.init, update)


def make_schedule(cfg: OptimConfig, steps: int) -> Callable[[jax.Array], jax.Array]:
    """step i32[] -> learning rate f32[] > 0 for 0 <= step < steps.

    Rises to `rate` over the first `warmup` steps (step 0 has rate / warmup), then stays, or
    falls on a line or a half cosine that would reach 0 at `steps`, at once or at last.
    """
    if cfg.schedule != "constant" and cfg.warmup >= steps:
        raise ValueError(
            f"optim.warmup={cfg.warmup} leaves no step of steps={steps} to decay; shorten it"
        )

    def rate(step):
        step = jnp.asarray(step, jnp.float32)
        rise = jnp.minimum(1.0, (step + 1) / cfg.warmup) if cfg.warmup else 1.0
        done = jnp.clip((step - cfg.warmup) / max(1, steps - cfg.warmup), 0.0, 1.0)
        fall = {
            "constant": jnp.ones_like(done),
            "linear": 1 - done,
            "cosine": 0.5 * (1 + jnp.cos(jnp.pi * done)),
            "wsd": jnp.minimum(1.0, (steps - step) / (steps * cfg.decay)),
        }[cfg.schedule]
        return cfg.rate * rise * fall

    return rate


def decays(name: str) -> bool:
    """Whether weight decay acts on the parameter "blocks/wq": not norms, biases, tables."""
    last = name.rsplit("/", 1)[-1]
    return not (last.endswith("bias") or "norm" in last or last in _TABLES)


def opt_shardings(optimizer: Optimizer, params: Any, shardings: Any, whole: Any) -> Any:
    """Shardings of the optimiser state: moments as their parameter, all else `whole`.

    params      arrays or shapes       shardings   tree of the same structure
    """
    by_name = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(shardings)}
    state = jax.eval_shape(optimizer.init, params)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: by_name.get(_name(path), whole) if leaf.ndim else whole, state
    )


def _name(path: tuple) -> str:
    """The trailing dict keys of a key path: "blocks/wq" for a parameter and for its moments."""
    keys = []
    for part in reversed(path):
        if not isinstance(part, jax.tree_util.DictKey):
            break
        keys.append(str(part.key))
    return "/".join(reversed(keys))


def _check_float32(params: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if leaf.dtype != jnp.float32:
            raise TypeError(
                f"parameter {_name(path)} is {leaf.dtype}; train float32 weights (at rates near "
                f"1e-6 a bfloat16 weight does not move) and set model.compute_dtype instead"
            )
