"""Train on true answers, to difference pairs and to questions about pictures: on one page.

    python -m dig_jax.sft --config configs/tiny_sft.py [--set optim.rate=1e-4] [--run-dir D]

Checkpoints, logs, validation, mesh and a resume are those of `train`: the same command continues a
run that was stopped, bit for bit. With --dry-run N it only tries out whether it would start.
"""

import jax

from dig_jax.common.commandline import clear_errors
from dig_jax.data.feed.curriculum import stage_of
from dig_jax.learner.cells import cell_slots
from dig_jax.learner.state import enter_stage
from dig_jax.lessons.cells import check_labels
from dig_jax.lessons.feed import StepLessons, stream
from dig_jax.lessons.pairs import PairLessons
from dig_jax.lessons.questions import QuestionLessons
from dig_jax.mesh import programs, sharding
from dig_jax.mesh.notice import stop_on_notice
from dig_jax.run import checkpoint
from dig_jax.run.runlog import RunLog
from dig_jax.run.session import Session, image_rules
from dig_jax.run.start import restore_or_start, run_command
from dig_jax.run.validation import make_validation

SHOWN = ("loss", "loss_pairs", "loss_questions", "cell_f1", "f1", "iou", "format", "count_ok")


def learn(session: Session, steps: int | None = None) -> None:
    """Run cfg.steps steps, or what is left of them; of these `steps` at most."""
    cfg, mesh = session.cfg, session.mesh
    with clear_errors():  # before anything compiles
        pairs, questions = open_lessons(session)
    state = restore_or_start(session)
    first, shares = int(state.step), sharding.process_shares(mesh)
    source = StepLessons(cfg, pairs, questions, first, shares)
    lessons = stream(source, cfg.data.prefetch)
    validate = make_validation(session, first)
    update = programs.jit_sft_update(session, cell_slots(session.prompt.slot[0]))

    with RunLog(cfg, first, shown=SHOWN) as log, stop_on_notice() as notice:
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
                rows = sharding.shard_batch(next(lessons), mesh)
            with log.timed("update"):
                state, stats = update(state, rows)
                stats = jax.device_get(stats)
            log.write(step, stats, stage=stage)
            validate(log, step, state.params, notice.heard)
            if (step + 1) % cfg.checkpoint.every == 0 or step + 1 == cfg.steps:
                checkpoint.save(cfg, step + 1, state)


def open_lessons(session: Session) -> tuple[PairLessons | None, QuestionLessons | None]:
    """What the run's rows are made from; raises naming file, row or field."""
    cfg, model, pairs, questions = session.cfg, session.model, None, None
    if not session.cut:  # a dry run reads what blocks there are
        check_labels(cfg.sft, layers=model.text.layers, vocab=model.text.vocab)
    if cfg.sft.pairs_weight:
        size, cell = session.image_size, model.vision.cell
        pairs = PairLessons(cfg, session.processor, session.prompt, size, cell)
    if cfg.sft.questions_per_step:
        limits = {"min_pixels": cfg.data.min_pixels, "max_pixels": cfg.data.max_pixels}
        rules = image_rules(cfg.model.source, model, **limits)
        questions = QuestionLessons(cfg, session.processor, model, rules)
    return pairs, questions


def main() -> None:
    run_command("sft", __doc__, learn)


if __name__ == "__main__":
    main()
