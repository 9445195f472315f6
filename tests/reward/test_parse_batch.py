"""The fast reading of a batch says what `parse` says, of any text."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.reward import parse_batch as fast
from dig_jax.reward.parse import Verdict, parse
from tests.reward.test_parse import IN_FORM, KEY, ONE, PIECES, TWO

NUMBER = st.one_of(
    st.integers(0, 1000).map(str),
    st.sampled_from(["-1", "007", "00", "1001", "99999", "1.5", "1e2", "", "\u0661"]),
)
GAP = st.sampled_from(["", "", " ", "\n", "\t ", "   ", " " * 8, " " * 40, "\v", "\xa0"])
LABEL = st.sampled_from(
    ["", "d", "a red cube", "<think>", "<|a|>", 'x"', "\\u0041", "é", "in [1,2,3,4]"]
)


@st.composite
def nearly_well_formed(draw) -> str:
    """What the prompt asks for, now and then with one thing of another kind."""
    gap = draw(st.sampled_from(["", " "]) | GAP)

    def item(_):
        numbers = draw(st.lists(NUMBER, min_size=4, max_size=4) | st.lists(NUMBER, max_size=5))
        key = draw(st.sampled_from(["bbox_2d", "bbox_2d", "bbox_2d", KEY]))
        parts = [f'"{key}"{gap}:{gap}[{f",{gap}".join(numbers)}]']
        if draw(st.booleans()):
            parts.append(f'"label": "{draw(LABEL)}"')
        return f"{{{gap}{', '.join(draw(st.permutations(parts)))}}}"

    body = f"[{gap}{f'{gap},'.join(map(item, range(draw(st.integers(0, 4)))))}]"
    around = st.sampled_from(
        ["{}", "```json\n{}\n```", "{}\n", "Here: {}", "{}<|im_end|>", "{} ```"]
    )
    return draw(around).replace("{}", body)


THOUGHTS = st.sampled_from(
    [
        "",
        "",
        "I see [1,2,3,4].\n</think>\n",
        "<|im_start|></think>",
        "<think>x 12</think>",
        "</think>",
    ]
)
TEXTS = st.tuples(
    THOUGHTS, nearly_well_formed() | st.lists(st.sampled_from(PIECES)).map("".join) | st.text()
).map("".join)


def check_equal(texts, ended, think, max_boxes):
    got = fast.parse_batch(texts, ended, think=think, max_boxes=max_boxes)
    for row, (text, end, one) in enumerate(zip(texts, ended, got.parsed(), strict=True)):
        want = parse(text, think=think, ended=end, max_boxes=max_boxes)
        assert (one.verdict, one.n_boxes) == (want.verdict, want.n_boxes), text
        np.testing.assert_array_equal(one.boxes_unit, want.boxes_unit, err_msg=text)
        assert one.boxes_unit.dtype == want.boxes_unit.dtype
        assert not got.boxes[row, got.kept[row] :].any()
    assert got.valid.sum() == got.kept.sum()


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(TEXTS, st.booleans()), max_size=8),
    st.sampled_from(["none", "prefilled", "full"]),
    st.integers(1, 5),
)
def test_a_batch_is_read_as_its_texts_one_by_one(rows, think, max_boxes):
    check_equal([text for text, _ in rows], [end for _, end in rows], think, max_boxes)


def test_pieces_and_damaged_answers_are_read_alike():
    """The neighbourhood of a good answer, where a rule of the fast reading could be too lax."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(3000):
        chars = list((TWO, ONE)[rng.integers(2)])
        for _ in range(rng.integers(0, 3)):
            at = rng.integers(len(chars))
            chars[at : at + rng.integers(0, 3)] = [PIECES[rng.integers(len(PIECES))]]
        texts.append("".join(chars))
    check_equal(texts, [True] * len(texts), "none", 3)


@pytest.mark.parametrize("think", ["none", "prefilled", "full"])
def test_well_formed_answers_do_not_need_the_full_parser(think, monkeypatch):
    thought = {"none": "", "prefilled": "I see 2.\n</think>\n\n", "full": "<think>1</think>"}[think]
    boxes = [[[1, 2, 300, 1000], [0, 0, 7, 8]], [[5, 6, 7, 8]], []]
    rows = [[{"bbox_2d": box, "label": "difference"} for box in answer] for answer in boxes]
    texts = [thought + json.dumps(row, indent=indent) for row in rows for indent in (None, 2)]
    monkeypatch.setattr(fast, "parse", None)
    got = fast.parse_batch(texts, [True] * 5 + [False], think=think, max_boxes=2)
    assert got.kept.tolist() == [2, 2, 1, 1, 0, 0]
    assert got.verdicts == [Verdict.OK] * 5 + [Verdict.NOT_ENDED]
    np.testing.assert_array_equal(got.boxes[0, 0], np.float32([0.001, 0.002, 0.3, 1]))


@pytest.mark.parametrize(("text", "boxes"), IN_FORM)
def test_ok_means_that_its_boxes_were_read_in_a_batch_too(text, boxes):
    got = fast.parse_batch([text, ONE, text], [True, True, False], think="none", max_boxes=4)
    assert got.verdicts == [Verdict.OK, Verdict.OK, Verdict.NOT_ENDED]
    assert got.n_boxes.tolist() == got.kept.tolist() == [len(boxes), 1, len(boxes)]
    check_equal([text, ONE, text], [True, True, False], "none", 4)


def test_an_empty_batch_is_read():
    assert fast.parse_batch([], [], think="none", max_boxes=2).parsed() == []
