"""AdamW as pure functions of the step: clip, moments, decay of matrices, rate, frozen parts.

The learning rate comes from the step the caller passes, not from a counter in the optimiser
state, so it stays right with several updates per step and after a moment reset.
"""

import difflib
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

    `norm` f32[] is the global norm of the trainable gradients before clipping.
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any, jax.Array], tuple[Any, Any, jax.Array]]


def make_optimizer(cfg: OptimConfig, steps: int, params: Any) -> Optimizer:
    """AdamW for parameters of this structure.

    steps    of the run; where a decaying schedule reaches 0
    params   arrays or shapes, all float32, nested dicts

    Frozen parameters have no optimiser state, no part in the norm and never change. Raises
    ValueError for a `freeze` prefix that names no parameter, and when nothing is left to train.
    """
    _check_float32(params)
    frozen = _frozen(cfg.freeze, params)
    rate = make_schedule(cfg, steps)
    decayed = _by_name(params, decays)
    train = optax.chain(
        optax.clip_by_global_norm(cfg.max_grad_norm),
        optax.scale_by_adam(b1=cfg.b1, b2=cfg.b2, eps=cfg.eps, mu_dtype=jnp.float32),
        optax.add_decayed_weights(cfg.weight_decay, mask=lambda tree: _like(decayed, tree)),
    )
    labels = jax.tree.map(lambda f: "frozen" if f else "train", frozen)
    chain = optax.partition({"train": train, "frozen": optax.set_to_zero()}, labels)

    def update(grads, opt_state, params, step):
        pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(frozen), strict=True)
        norm = jnp.sqrt(sum(jnp.sum(grad**2) for grad, is_frozen in pairs if not is_frozen))
        moves, opt_state = chain.update(grads, opt_state, params)
        speed = rate(step)
        moved = jax.tree.map(lambda p, m, f: p if f else p - speed * m, params, moves, frozen)
        return moved, opt_state, norm

    return Optimizer(chain.init, update)


def make_schedule(cfg: OptimConfig, steps: int) -> Callable[[jax.Array], jax.Array]:
    """step i32[] -> learning rate f32[] > 0 for 0 <= step < steps.

    Rises to `rate` over the first `warmup` steps (step 0 has rate / warmup), then stays, or
    falls on a line or a half cosine that would reach 0 at `steps`.
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


def _by_name(tree: Any, rule: Callable[[str], bool]) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: rule(_name(path)), tree)


def _like(flags: Any, tree: Any) -> Any:
    """Flags for a tree in which optax masked the frozen leaves away."""
    masked = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(lambda x, flag: x if masked(x) else flag, tree, flags, is_leaf=masked)


def _frozen(prefixes: tuple[str, ...], params: Any) -> Any:
    names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    parents = {name[:i] for name in names for i, c in enumerate(name) if c == "/"}
    for prefix in prefixes:
        if not any(_below(name, prefix) for name in names):
            near = difflib.get_close_matches(prefix, [*names, *parents], n=3, cutoff=0.3)
            raise ValueError(
                f"optim.freeze={prefix!r} names no parameter; nearest: {', '.join(near or names)}"
            )
    frozen = _by_name(params, lambda name: any(_below(name, prefix) for prefix in prefixes))
    if all(jax.tree.leaves(frozen)):
        raise ValueError(f"optim.freeze={prefixes} leaves nothing to train; freeze less")
    return frozen


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip("/") + "/")


def _check_float32(params: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if leaf.dtype != jnp.float32:
            raise TypeError(
                f"parameter {_name(path)} is {leaf.dtype}; train float32 weights (at rates near "
                f"1e-6 a bfloat16 weight does not move) and set model.compute_dtype instead"
            )
