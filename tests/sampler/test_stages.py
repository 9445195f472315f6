"""The plan of a rollout: caches grow, rows are packed, nothing is lost, and what it saves."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.sampler.stages import Stage, cost, make_plan

# Answers of the shipped model to 16 held-out pairs after the quickstart's training, T = 78: tokens
# of 8 answers each (docs/rollout.md). One box takes 20 tokens, each further one 18.
MEASURED = """
    20 20 20 38 20 20 20 20   38 56 37 38 38 56 38 38
    38 38 38 38 38 38 38 38   38 38 38 38 38 38 38 38
    56 38 56 74 56 56 56 56   20 20 20 20 20 20 20 20
    20 20 20 20 20 20 20 20   20 38 20 20 20 20 20 20
    37 37 37 37 37 37 37 37   38 37 55 37 54 56 54 37
    20 20 20 20 20 38 20 38   38 55 38 38 38 55 38 38
    38 38 38 38 20 38 20 27   37 37 37 37 37 37 37 37
    37 55 37 56 37 56 74 37   20 20 20 20 20 20 20 20
"""
MEASURED = np.array(MEASURED.split(), int).reshape(16, 8)


def test_caches_double_up_to_the_longest_answer_and_rows_shrink_by_the_share():
    plan = make_plan(16, 8, 78, chunk=20, compact=0.5)
    assert plan.stages[:3] == (Stage(16, 8, 20), Stage(16, 8, 40), Stage(16, 8, 78))
    assert plan.stages[3:] == tuple(Stage(*s, 78) for s in ((16, 4), (16, 2), (16, 1), (8, 1)))
    assert plan.full == 3
    assert make_plan(16, 8, 78, chunk=78, compact=0).stages == (Stage(16, 8, 78),)
    assert make_plan(16, 8, 78, chunk=0, compact=0).stages == (Stage(16, 8, 78),)
    # a shard of two pairs has 10 rows: 5 are too few to pack
    assert len(make_plan(8, 5, 64, chunk=0, compact=0.5, shards=4).stages) == 1


@st.composite
def rollouts(draw):
    """A plan, and answers' lengths i[B, G] for it."""
    shards, group = draw(st.sampled_from([1, 2, 4])), draw(st.integers(2, 9))
    pairs, most = shards * draw(st.integers(1, 6)), draw(st.integers(1, 40))
    chunk, share = draw(st.integers(0, 40)), draw(st.sampled_from([0, 0.3, 0.5, 0.7, 0.9]))
    plan = make_plan(pairs, group, most, chunk=chunk, compact=share, shards=shards)
    lengths = draw(st.lists(st.integers(1, most), min_size=pairs * group, max_size=pairs * group))
    return plan, np.array(lengths).reshape(pairs, group)


@settings(max_examples=200, deadline=None)
@given(rollouts())
def test_every_unfinished_answer_keeps_one_slot_beside_its_own_prompt(rollout):
    """Step by step as `staged` walks the plan, for any lengths."""
    plan, lengths = rollout
    nobody, number = lengths.size, 0
    rows = np.arange(nobody).reshape(lengths.shape)
    prompts = np.arange(plan.pairs)  # whose each entry's is
    for step in range(lengths.max()):
        ends = np.append(lengths.ravel(), 0)
        done = ends[rows] <= step
        while (later := plan.after(number, step, plan.counts(rows, done))) is not None:
            if later >= plan.full:
                take, source = plan.pack(rows, done, later)
                at = np.arange(plan.shards).repeat(len(take) // plan.shards)
                slots, entries = rows.size // plan.shards, len(rows) // plan.shards
                rows = np.where(take < 0, nobody, rows.ravel()[take + at[:, None] * slots])
                prompts, done = prompts[source + at * entries], take < 0
            number = later
        stage = plan.stages[number]
        assert rows.shape == (stage.entries, stage.slots)
        assert step < stage.length
        running = rows[~done]
        assert sorted(running) == np.flatnonzero(lengths.ravel() > step).tolist()
        assert (np.where(done, prompts[:, None], rows // plan.group) == prompts[:, None]).all()
        shard = np.arange(stage.entries) * plan.shards // stage.entries
        assert (prompts * plan.shards // plan.pairs == shard)[~done.all(1)].all()


@settings(max_examples=100, deadline=None)
@given(rollouts())
def test_the_cost_counts_every_step_and_no_plan_computes_more_than_one_stage(rollout):
    plan, lengths = rollout
    one = make_plan(plan.pairs, plan.group, plan.stages[-1].length, chunk=0, compact=0)
    found, whole = cost(lengths, plan, prompt=7), cost(lengths, one, prompt=7)
    assert sum(steps for _, steps in found.visits) == lengths.max()
    assert lengths.sum() <= found.computed <= whole.computed == lengths.size * lengths.max()
    assert found.used == lengths.sum() / found.computed


def test_on_measured_lengths_packing_uses_85_percent_of_the_computed_rows():
    """Without it 46 %: rows that ended at the first box wait for the longest answer."""
    used = {
        share: cost(MEASURED, make_plan(16, 8, 78, chunk=20, compact=share)).used
        for share in (0, 0.5, 0.7)
    }
    assert used[0] < 0.5
    assert used[0.5] > 0.75
    assert used[0.7] > 0.85


def test_growing_caches_read_less():
    """By hand: 2 pairs of 2 answers, prompts of 3 tokens, answers of 1 to 4 tokens, chunk 2."""
    lengths = np.array([[1, 4], [2, 3]])
    found = cost(lengths, make_plan(2, 2, 4, chunk=2, compact=0), prompt=3)
    assert found.visits == ((Stage(2, 2, 2), 2), (Stage(2, 2, 4), 2))
    assert found.read == 2 * (4 * 2 + 2 * 3) + 2 * (4 * 4 + 2 * 3)
    assert found.computed == 16
    assert found.used == 10 / 16
