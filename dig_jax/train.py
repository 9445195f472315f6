"""Train by GRPO through the curriculum: the algorithm, on one page.

    python -m dig_jax.train --config configs/tiny_cpu.py [--set optim.rate=1e-4] [--run-dir D]

The same command continues a run that was stopped: from its last checkpoint, bit for bit. Started
once per process of a pod or a cluster, it is one run of all of them (`distributed`). With
--dry-run N it only tries out whether it would start (`dryrun`).
"""

import argparse
from contextlib import ExitStack
from functools import partial

import jax
import numpy as np

from dig_jax.common.commandline import clear_errors, within
from dig_jax.common.files import NoRoom
from dig_jax.common.locks import Taken
from dig_jax.config import config_text
from dig_jax.config.commandline import parse_with_config
from dig_jax.data.feed.curriculum import stage_of
from dig_jax.data.feed.pipeline import spare_pairs, train_pairs
from dig_jax.learner.state import TrainState, enter_stage
from dig_jax.mesh import programs, sharding
from dig_jax.mesh.distributed import joined
from dig_jax.mesh.notice import stop_on_notice
from dig_jax.run import checkpoint, memory, papers, resume
from dig_jax.run.dryrun import dry_run
from dig_jax.run.experience import Experience, learned_reward, make_draw
from dig_jax.run.guard import stop_if_not_finite
from dig_jax.run.runlog import RunLog
from dig_jax.run.samples import make_sample_log
from dig_jax.run.session import Session, load_weights, open_session
from dig_jax.run.trackers import check_trackers
from dig_jax.run.validation import is_pending, make_validation
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


def restore_or_start(session: Session) -> TrainState:
    """The run's newest checkpoint; without one, the source's weights as policy and reference."""
    if checkpoint.latest_step(checkpoint.root_of(session.cfg)) is not None:
        return checkpoint.restore(session.cfg, programs.state_shapes(session))[0]
    start = partial(programs.start_state, session)
    where = programs.state_shardings(session)
    return jax.jit(start, out_shardings=where)(load_weights(session))


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dry-run",
        type=within(int, 1, 1000),
        metavar="N",
        help="N steps of a cut model, of which nothing is kept",
    )
    cfg, args = parse_with_config(parser)
    with joined(), ExitStack() as held:
        if args.dry_run is not None:
            return dry_run(cfg, args.dry_run, train)
        with clear_errors():  # whatever is wrong with the input is found before anything compiles
            check_trackers(cfg.log)
            held.enter_context(resume.owned(cfg))
            session = open_session(cfg)
            done = resume.check_start(cfg)
            papers.check_papers(cfg)
            memory.check_fits(session, session.prompt.tokens.shape[1])
        if jax.process_index() == 0:
            print(config_text(cfg), flush=True)
        if done == cfg.steps and not is_pending(cfg):
            return resume.tell_done(cfg)
        with clear_errors(NoRoom, Taken):
            train(session)


if __name__ == "__main__":
    main()
