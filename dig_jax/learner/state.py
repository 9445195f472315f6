"""What a step starts from and leaves behind, and what a later stage makes of it."""

import jax
import jax.numpy as jnp
from flax import struct

from dig_jax.config import Config, CurriculumConfig, GrpoConfig
from dig_jax.learner.optim import Optimizer
from dig_jax.learner.trainable import split
from dig_jax.model.params import Params


@struct.dataclass
class TrainState:
    """What a checkpoint holds; everything else is a function of `step`.

    params     f32, nested dict of the Spec table
    opt_state  of `optim.make_optimizer`
    reference  trained part of the params that the KL pulls towards, in `grpo.reference`'s form;
               None in a run without a KL (`has_reference`)
    step       i32[]   steps done
    """

    params: Params
    opt_state: object
    reference: Params | None
    step: jax.Array

    @classmethod
    def start(
        cls, params: Params, optimizer: Optimizer, cfg: GrpoConfig | None, trained: frozenset[str]
    ) -> "TrainState":
        """Step 0: the policy is its own reference; None in place of `cfg`: there is none."""
        part = split(params, trained)[0]
        return cls(
            params=params,
            opt_state=optimizer.init(part),
            reference=as_reference(cfg, part) if cfg and cfg.kl_coef else None,
            step=jnp.int32(0),
        )


def as_reference(cfg: GrpoConfig, trained: Params) -> Params:
    """A copy of the trained parameters as `cfg.reference` keeps them."""
    dtype = jnp.bfloat16 if cfg.reference == "bfloat16" else jnp.float32
    return jax.tree.map(lambda a: jnp.array(a, dtype, copy=True), trained)


def fetched(cfg: GrpoConfig, reference: Params | None) -> Params | None:
    """The reference in the device's memory, from wherever `cfg.reference` keeps it."""
    if cfg.reference != "host":
        return reference
    return jax.tree.map(lambda a: jax.device_put(a, jax.memory.Space.Device), reference)


def enter_stage(cfg: Config, state: TrainState, trained: frozenset[str]) -> TrainState:
    """The state at the first step of a later curriculum stage.

    Relaunching a trainer per stage silently moves the reference and resets Adam; here both are
    choices: `curriculum.reference` "per_stage" makes the policy the new reference,
    `curriculum.optimizer` "reset" zeroes the moments.
    """
    policy: CurriculumConfig = cfg.curriculum
    if policy.reference == "per_stage" and state.reference is not None:
        part = split(state.params, trained)[0]
        state = state.replace(reference=as_reference(cfg.grpo, part))
    if policy.optimizer == "reset":
        state = state.replace(opt_state=jax.tree.map(jnp.zeros_like, state.opt_state))
    return state
