"""Train by GRPO through the curriculum: the algorithm, on one page.

    python -m dig_jax.train --config configs/tiny_cpu.py [--set optim.rate=1e-4] [--run-dir D]

The same command continues a run that was stopped: from its last checkpoint, bit for bit.
"""

from functools import partial

import jax
import numpy as np

from dig_jax import checkpoint, sharding
from dig_jax.commandline import clear_errors, parse_config
from dig_jax.config import config_text
from dig_jax.data.curriculum import stage_of
from dig_jax.data.pipeline import eval_pairs, train_pairs
from dig_jax.evaluate import make_evaluator, summarize
from dig_jax.grpo import TrainState, enter_stage, group_advantage, make_update
from dig_jax.model.params import model_specs, param_shapes
from dig_jax.optim import make_optimizer, opt_shardings
from dig_jax.reward.answers import make_answer_reward
from dig_jax.rollout import make_sampler
from dig_jax.runlog import RunLog
from dig_jax.session import Session, load_weights, open_session

SHOWN = ("reward", "f1", "iou", "format", "count_ok", "kl", "tokens")


def train(session: Session) -> None:
    """Run cfg.steps rollout batches, or what is left of them."""
    cfg, mesh, model = session.cfg, session.mesh, session.model
    optimizer = make_optimizer(cfg.optim, cfg.steps, param_shapes(model_specs(model)))
    state = restore_or_start(session, optimizer)
    first = int(state.step)
    size = session.image_size
    pairs = train_pairs(cfg, first, sharding.process_slice(mesh), size=size)
    evaluate = make_evaluator(session, eval_pairs(cfg, size=size)) if cfg.eval.every else None

    sampler = make_sampler(
        model,
        group=cfg.rollout.group,
        max_tokens=cfg.rollout.max_tokens,
        temperature=cfg.rollout.temperature,
    )
    sample = jax.jit(session.traced(sampler))
    update = jax.jit(
        session.traced(
            make_update(cfg.grpo, model, optimizer, temperature=cfg.rollout.temperature)
        ),
        donate_argnums=0,
        out_shardings=(state_shardings(session, optimizer), sharding.replicated(mesh)),
    )
    advantage_of = jax.jit(group_advantage, static_argnums=1)
    reward_of = make_answer_reward(cfg)
    prompt = session.prompt_rows(cfg.pairs_per_step)
    root = jax.random.key(cfg.seed)

    with RunLog(cfg, first, shown=SHOWN) as log:
        for step in range(first, cfg.steps):
            stage = stage_of(cfg.curriculum.stages, step)
            if step in {s.until for s in cfg.curriculum.stages}:
                state = enter_stage(cfg.curriculum, optimizer, state)
            with log.timed("data"):
                batch = next(pairs)
                images = sharding.shard_batch(batch.images, mesh)
            with log.timed("rollout"):
                key = jax.random.fold_in(root, step)
                rollout = sample(state.params, prompt, images, key)
                host = fetch(rollout)  # tokens come back whole: every process scores them all
            with log.timed("reward"):
                texts = session.texts(host.tokens, host.valid.sum(-1))
                facts = (batch.truth, batch.pair_id, batch.bucket)
                facts = fetch(sharding.shard_batch(facts, mesh))
                reward, parsed = reward_of(texts, host.ended, host.valid.sum(-1), *facts)
                advantage, flat = advantage_of(reward.total, cfg.grpo.advantage_eps)
                advantage = sharding.shard_global(np.asarray(advantage), mesh)
            with log.timed("update"):
                state, stats = update(state, prompt, images, rollout, advantage)
                stats = jax.device_get(stats)
            log.write(step, step_metrics(host, reward, flat, parsed) | stats, stage=stage)
            if evaluate and (step + 1) % cfg.eval.every == 0:
                summary = summarize(evaluate(state.params), resamples=cfg.eval.bootstrap)
                log.write(step, {k: mean for k, (mean, _, _) in summary.items()}, kind="eval")
            if (step + 1) % cfg.checkpoint.every == 0 or step + 1 == cfg.steps:
                checkpoint.save(cfg, step + 1, state)


def restore_or_start(session: Session, optimizer) -> TrainState:
    """The run's newest checkpoint; without one, the source's weights as policy and reference."""
    cfg, where = session.cfg, state_shardings(session, optimizer)
    start = partial(TrainState.start, optimizer=optimizer, keep_reference=cfg.grpo.kl_coef > 0)
    if checkpoint.latest_step(cfg.run_dir) is None:
        return jax.jit(start, out_shardings=where)(load_weights(session))
    shapes = jax.eval_shape(start, param_shapes(model_specs(session.model)))
    like = jax.tree.map(
        lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), shapes, where
    )
    return checkpoint.restore(cfg, like)[0]


def state_shardings(session: Session, optimizer) -> TrainState:
    """Where every leaf of the state lives: moments and reference beside their parameter."""
    whole = sharding.replicated(session.mesh)
    shapes = param_shapes(model_specs(session.model))
    return TrainState(
        params=session.shardings,
        opt_state=opt_shardings(optimizer, shapes, session.shardings, whole),
        reference=session.shardings if session.cfg.grpo.kl_coef else None,
        step=whole,
    )


def fetch(tree):
    """Host copies of sharded arrays, whole on every process: all of them score all answers."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental.multihost_utils import process_allgather

    return process_allgather(tree, tiled=True)


def step_metrics(rollout, reward, flat, parsed) -> dict[str, float]:
    """What the rollout says about the policy; means over all B x G answers."""
    parts = jax.device_get(reward.parts)
    lengths = rollout.valid.sum(-1)
    means = {name: part.mean() for name, part in parts.items()}
    return {
        "reward": np.mean(reward.total),
        "reward_spread": np.std(reward.total, axis=-1).mean(),
        **means,
        "flat_groups": np.mean(flat),
        "length": lengths.mean(),
        "length_max": lengths.max(),
        "tokens": lengths.sum(),
        "ended": rollout.ended.mean(),
        "truncated": 1 - rollout.ended.mean(),
        "parse_failures": np.mean(
            [not p.n_boxes and p.verdict != "ok" for row in parsed for p in row]
        ),
    }


def main() -> None:
    cfg = parse_config(description=__doc__.splitlines()[0])
    with clear_errors():  # whatever is wrong with the input is found before anything compiles
        session = open_session(cfg)
        done = checkpoint.latest_step(cfg.run_dir)
        if done is not None:
            checkpoint.check_config(cfg, done)
    print(config_text(cfg), flush=True)
    train(session)


if __name__ == "__main__":
    main()
