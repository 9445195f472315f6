"""Questions as prefixes, suffixes and a few shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dig_jax.engine import jobs
from tests import tiny_model
from tests.engine.questions import CONFIG, GREEDY, make_groups

WORD = tiny_model.WORDS[0]
SHOWN = [CONFIG.vision_start, CONFIG.image_token, CONFIG.vision_end]


def group(name, sizes, words):
    asked = [jobs.Asked(name, (WORD,) * words, GREEDY, (0, 0), 4)]
    return jobs.Group(name, [WORD, *SHOWN * len(sizes)], sizes, list, asked)


def test_a_prompt_is_cut_behind_its_last_picture():
    ids = [WORD, *SHOWN, WORD, *SHOWN, 9, 10]
    assert jobs.cut_prompt(CONFIG, ids) == (tuple(ids[:8]), (9, 10))
    assert jobs.cut_prompt(CONFIG, [7, 8, 9]) == ((7,), (8, 9))


@pytest.mark.parametrize("ids", [[WORD], [WORD, CONFIG.image_token]])
def test_a_prompt_that_asks_nothing_is_refused(ids):
    with pytest.raises(ValueError, match="nothing behind its last picture"):
        jobs.cut_prompt(CONFIG, ids)


sides = st.integers(1, 30).map(lambda n: n * CONFIG.vision.cell)
described = st.tuples(st.lists(st.tuples(sides, sides), max_size=3), st.integers(1, 200))


@given(st.lists(described, min_size=1, max_size=20), st.integers(1, 6))
def test_a_few_shapes_hold_all_questions(some, most):
    groups = [group(f"q{n}", *each) for n, each in enumerate(some)]
    shapes = jobs.plan_shapes(CONFIG, groups, most)
    assert len(shapes) <= most
    for one in groups:
        assert jobs.fitting(CONFIG, one, shapes).holds(jobs.shape_of(CONFIG, one))


def test_like_questions_keep_their_shape_when_one_is_far_larger():
    groups = [group(f"q{n}", [(8, 8)], 5) for n in range(9)] + [group("big", [(240, 240)], 5)]
    small, large = jobs.plan_shapes(CONFIG, groups, 2)
    assert (small.canvas, large.canvas) == ((8, 8), (240, 240))


def test_a_question_that_fits_nowhere_is_refused_with_what_it_needs():
    shapes = [jobs.Shape((8, 8), 1, 32, 32)]
    photo = group("photo", [(8, 16)], 40)
    with pytest.raises(ValueError, match=r"photo needs 1 pictures on 16x8 px, 32 \+ 64 tokens"):
        jobs.fitting(CONFIG, photo, shapes)
    larger = [*shapes, jobs.Shape((8, 16), 1, 32, 64)]
    assert jobs.fitting(CONFIG, photo, larger) == larger[1]


def test_seeds_are_of_the_question_and_its_sample():
    seeds = {jobs.seed_words(s, q, n) for s in (0, 1) for q in ("a", "b") for n in (0, 1)}
    assert len(seeds) == 8
    assert jobs.seed_words(0, "a", 0) == jobs.seed_words(0, "a", 0)


def test_batches_are_of_one_number_of_rows_and_hold_each_group_once():
    groups, _ = make_groups(9)
    found = list(jobs.batches(CONFIG, groups, jobs.plan_shapes(CONFIG, groups, 3), 4))
    assert sorted(g.name for batch in found for g in batch.groups) == [g.name for g in groups]
    assert all(len(batch.prompt.tokens) == len(batch.images) == 4 for batch in found)
