"""From a command line to a run's first step: everything that can be wrong is found on the way."""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import jax

from dig_jax.common.commandline import clear_errors, within
from dig_jax.common.fields import require
from dig_jax.common.files import NoRoom
from dig_jax.common.locks import Taken
from dig_jax.config import Config, config_text
from dig_jax.config.commandline import parse_with_config
from dig_jax.learner.state import TrainState
from dig_jax.mesh import programs
from dig_jax.mesh.distributed import joined
from dig_jax.run import checkpoint, memory, papers, resume
from dig_jax.run.dryrun import dry_run
from dig_jax.run.session import Session, load_weights, open_session
from dig_jax.run.trackers import check_trackers
from dig_jax.run.validation import is_pending

_COMMANDS = {"grpo": "dig_jax.train", "sft": "dig_jax.sft"}


def run_command(learner: str, description: str, loop: Callable[..., None]) -> None:
    """Reads --config, --set, --run-dir and --dry-run, and runs or continues loop(session).

    learner  of the configurations that this command runs
    loop     also takes `steps`, at most so many of them, for a dry run
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--dry-run",
        type=within(int, 1, 1000),
        metavar="N",
        help="N steps of a cut model, of which nothing is kept",
    )
    cfg, args = parse_with_config(parser)
    with joined(), ExitStack() as held:
        with clear_errors():
            _check_learner(cfg, learner)
        if args.dry_run is not None:
            return dry_run(cfg, args.dry_run, loop)
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
            loop(session)


def restore_or_start(session: Session) -> TrainState:
    """The run's newest checkpoint; without one, the source's weights, and for a KL their copy."""
    if checkpoint.latest_step(checkpoint.root_of(session.cfg)) is not None:
        return checkpoint.restore(session.cfg, programs.state_shapes(session))[0]
    start = partial(programs.start_state, session)
    where = programs.state_shardings(session)
    return jax.jit(start, out_shardings=where)(load_weights(session))


def _check_learner(cfg: Config, learner: str) -> None:
    rule = f"is not what {_COMMANDS[learner]} runs"
    remedy = f"use python -m {_COMMANDS[cfg.learner]}, or set learner={learner}"
    require(cfg.learner == learner, "learner", cfg.learner, rule, remedy)
