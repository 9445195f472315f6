"""A policy's answers to held-out pairs, scored: for `evaluate` and for a run's validations."""

from collections.abc import Callable

import jax

from dig_jax.data.feed.batch import Batch
from dig_jax.inputs.decoding import Decoding
from dig_jax.mesh import programs, sharding
from dig_jax.model.params import Params
from dig_jax.reward.answers import make_answer_reward
from dig_jax.run.runlog import progress
from dig_jax.run.session import Session
from dig_jax.scoring.rows import answer_rows


def make_evaluator(session: Session) -> Callable[[Params, list[Batch]], list[dict]]:
    """Bind the statics; returns evaluate(params, batches) -> one row per pair, in order."""
    answers = max(1, session.cfg.eval.samples)
    score = make_scorer(session, session.decoding, answers=answers)
    answering = programs.jit_reshard(session)
    return lambda params, batches: score(answering(params), batches)


def make_scorer(
    session: Session, decoding: Decoding, *, answers: int, label: str = "evaluate"
) -> Callable[..., list[dict] | None]:
    """Bind the statics; returns score(weights, batches, stop) -> one row per pair, in order.

    `stop()` is asked before every batch, on all processes: where it says so, None is returned.

    Its weights are those of `programs.jit_reshard`.

    answers   drawn per pair
    label     of its progress, and of what it compiles once for all batches

    A row holds the pair's true and predicted boxes (unit frame), the answer's text, and every
    metric of METRICS, averaged over the pair's answers if there are several. The draws depend on
    the seed and the pair's place alone, so that every validation of a run draws alike.
    """
    cfg = session.cfg
    sample = programs.jit_sampler(
        session, group=answers, decoding=decoding, name=f"{label}_answers", whole=True
    )
    reward_of = make_answer_reward(cfg)
    prompt = session.prompt_rows(cfg.eval.batch)
    key = sharding.replicate(jax.random.key_data(jax.random.key(cfg.seed)), session.mesh)

    def score(weights: Params, batches: list[Batch], stop=lambda: False) -> list[dict] | None:
        rows = []
        for number, batch in enumerate(progress(batches, label)):
            if stop():
                return None
            images = sharding.shard_global(batch.images, session.mesh)
            first = number * cfg.eval.batch
            rollout = sample(weights, prompt, images, jax.random.wrap_key_data(key), first)
            host = jax.device_get(rollout)
            lengths = host.valid.sum(-1)
            texts = session.texts(host.tokens, lengths)
            facts = (batch.truth, batch.pair_id, batch.bucket)
            reward, parsed = reward_of(texts, host.ended, lengths, *facts)
            rows += answer_rows(cfg.reward, batch, texts, parsed, jax.device_get(reward))
        return rows

    return score
