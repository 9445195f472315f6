"""Train by GRPO through the curriculum: the algorithm, on one page.

    python -m dig_jax.train --config configs/tiny_cpu.py [--set optim.rate=1e-4] [--run-dir D]

The same command continues a run that was stopped: from its last checkpoint, bit for bit. Started
once per process of a pod or a cluster, it is one run of all of them (`distributed`). With
--dry-run N it only tries out whether it would start (`dryrun`).
"""

from functools import partial

import jax
import numpy as np

from dig_jax.data.feed.curriculum import stage_of
from dig_jax.data.feed.pipeline import spare_pairs, train_pairs
from dig_jax.learner.state import enter_stage
from dig_jax.mesh import programs, sharding
from dig_jax.mesh.notice import stop_on_notice
from dig_jax.run import checkpoint
from dig_jax.run.experience import Experience, learned_reward, make_draw
from dig_jax.run.guard import stop_if_not_finite
from dig_jax.run.runlog import RunLog
from dig_jax.run.samples import make_sample_log
from dig_jax.run.session import Session
from dig_jax.run.start import restore_or_start, run_command
from dig_jax.run.validation import make_validation
from dig_jax.sampler.stages import Plan, cost

SHOWN = ("reward", "f1", "iou", "format", "count_ok", "kl", "tokens")


def train(session: Session, steps: int | None = None) -> None:
    """Run cfg.steps rollout batches, or what is left of them; of these `steps` at most."""
    cfg, mesh = session.cfg, session.mesh
    state = restore_or_start(session)
    first, shares, size = int(state.step), sharding.process_shares(mesh), session.image_size
    pairs = train_pairs(cfg, first, shares, size=size)
    spare = spare_pairs(cfg, shares, size=size)
    validate, record = make_validation(session, first), make_sample_log(session, first)
    update = programs.jit_update(session)
    prompt = session.prompt_rows(cfg.pairs_per_step)
    plan = programs.rollout_plan(session, cfg.pairs_per_step)
    root = jax.random.key(cfg.seed)

    with RunLog(cfg, first, shown=SHOWN) as log, stop_on_notice() as notice:
        draw = make_draw(session, log.timed)
        validate(log, first - 1, state.params, notice.heard)  # before the first, or cut off
        last = cfg.steps if steps is None else min(cfg.steps, first + steps)
        for step in range(first, last):
            if notice.given(step):
                if step:
                    checkpoint.save(cfg, step, state)
                break
            stage = stage_of(cfg.curriculum.stages, step)
            if step in {s.until for s in cfg.curriculum.stages}:
                state = enter_stage(cfg, state, session.trained)
            with log.timed("data"):
                batch = next(pairs)
            key = jax.random.fold_in(root, step)
            drawn, redrawn = draw(state.params, prompt, batch, key, partial(spare, step))
            with log.timed("update"):
                reward = sharding.shard_global(learned_reward(cfg, drawn.reward), mesh)
                turns, used = programs.plan_update(session, drawn.host)
                experience = (prompt, drawn.images, drawn.rollout, reward)
                state, stats, answers = update(state, *experience, turns)
                stats = jax.device_get(stats) | {"update_used": used}
            stop_if_not_finite(cfg, step, drawn, stats, answers)
            log.write(step, step_metrics(drawn, redrawn, plan) | stats, stage=stage)
            record(log, step, drawn.batch, drawn.texts, drawn.parsed, drawn.reward)
            validate(log, step, state.params, notice.heard)
            if (step + 1) % cfg.checkpoint.every == 0 or step + 1 == cfg.steps:
                checkpoint.save(cfg, step + 1, state)


def step_metrics(drawn: Experience, redrawn: int, plan: Plan) -> dict[str, float]:
    """What the rollout says about the policy; means over all B x G answers."""
    rollout, reward = drawn.host, drawn.reward
    lengths = rollout.lengths
    means = {name: part.mean() for name, part in reward.parts.items()}
    failed = [not p.readable for row in drawn.parsed for p in row]
    return {
        "reward": np.mean(reward.total),
        "reward_spread": np.std(reward.total, axis=-1).mean(),
        **means,
        "redrawn": redrawn,
        "length": lengths.mean(),
        "length_max": lengths.max(),
        "tokens": lengths.sum(),
        "rows_used": cost(lengths, plan).used,
        "ended": rollout.ended.mean(),
        "truncated": 1 - rollout.ended.mean(),
        "parse_failures": np.mean(failed),
    }


def main() -> None:
    run_command("grpo", __doc__, train)


if __name__ == "__main__":
    main()
