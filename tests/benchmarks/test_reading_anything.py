"""What must not change a reading, what must never score, and texts of every kind."""

import random
import time
from string import ascii_uppercase

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dig_jax.benchmarks.readings import (
    OURS,
    VLMEVALKIT,
    read_boxes,
    read_letter,
    read_yes_no,
)
from tests.benchmarks.read import COLOURS, hit, letter, wide, yes_no

FORMS = ("{}", "{}.", "({})", "Answer: {}", "The answer is {}.", "The correct option is ({})",
         "Because it shows,\nI choose {}")  # fmt: skip


def dressed(text, *, case=str, markdown="", fullwidth=False, crlf=False):
    """The same answer in other clothes."""
    text = case(text)
    if markdown:
        text = " ".join(f"{markdown}{word}{markdown}" for word in text.split(" "))
    text = wide(text) if fullwidth else text
    return text.replace("\n", "\r\n") if crlf else text


CLOTHES = {
    "markdown": st.sampled_from(["", "*", "**", "`", "_", "__"]),
    "fullwidth": st.booleans(),
    "crlf": st.booleans(),
}


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(FORMS), st.sampled_from("ABCD"), st.fixed_dictionaries(CLOTHES))
def test_clothes_do_not_change_a_letter(form, right, clothes):
    assert letter(dressed(form.format(right), **clothes)) == right


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["{}", "{}.", "({})", "({}) it is", "answer: ({})", "the answer is {}."]),
    st.sampled_from("ABCD"),
    st.sampled_from([str.upper, str.lower, str.title]),
)
def test_case_does_not_change_a_marked_letter(form, right, case):
    assert letter(dressed(form.format(right), case=case)) == right


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["{}", "{}.", "{}, it is.", "Answer: {}", "The answer is\n{}!"]),
    st.sampled_from(["yes", "no"]),
    st.sampled_from([str.upper, str.lower, str.title]),
    st.fixed_dictionaries(CLOTHES),
)
def test_clothes_and_case_do_not_change_a_word(form, right, case, clothes):
    assert yes_no(dressed(form.format(right), case=case, **clothes)) == right


WORDS = st.lists(st.sampled_from("the it maybe shows dog left of which two so and or not".split()),
                 max_size=6).map(" ".join)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    WORDS, WORDS, WORDS, st.permutations("ABCD"), st.sampled_from(["", ".", ",", ")", "**", ":"])
)
@example("", "or", "", tuple("ABCD"), "")
def test_two_letters_without_a_declared_answer_never_score(before, between, after, order, mark):
    one, two = order[:2]
    text = f"{before} {one}{mark} {between} {two}{mark} {after}"
    assert letter(text, ("u", "v", "w", "x")) is None


@settings(deadline=None, max_examples=100)
@given(st.permutations("ABCD"), st.sampled_from([
    "The answer is {} or {}", "The answer is {}/{}", "<answer>{}</answer><answer>{}</answer>",
    "<answer>{}, {}</answer>", "\\boxed{{{}}} \\boxed{{{}}}", "Answer: {}. Answer: {}.",
    "The answer is {}, no, {}", "The answer is {}. Or {}.", "The answer is {}\nWait, {}",
]))  # fmt: skip
def test_declaring_two_answers_never_scores(order, form):
    assert letter(form.format(*order[:2])) is None


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text("ABCDabcdefgxyz", min_size=2, max_size=8), max_size=12))
def test_letters_within_words_never_count(words):
    assert letter(" ".join(words), ("u", "v", "w", "x")) is None


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=200), st.sampled_from([OURS, VLMEVALKIT]))
@example("[" * 5000, OURS)
@example('{"a":' * 3000, OURS)
@example("[" + "9" * 5000 + ",1,2,3]", OURS)
@example("\ud800", OURS)
def test_any_text_has_a_reading(text, parser):
    assert read_yes_no(text, parser).value in (None, "yes", "no")
    assert read_letter(text, COLOURS, parser).value in (None, *"ABCD")
    boxes = read_boxes(text, parser).value or ()
    assert all(len(box) == 4 and 0 <= min(box) and max(box) <= 1000 for box in boxes)


def test_reading_takes_time_linear_in_the_text():
    """Answers of 32k tokens that repeat themselves must not hold a scorer up."""
    size = 60_000
    texts = ["answer is A ", "[", "[1,", "_", "A ", "A. ", "\\boxed{", "<answer>", "```", '{"a":',
             " ", "(", "9", "bbox: [1,2,3,", ".", wide("A")]  # fmt: skip
    begin = time.perf_counter()
    for text in texts:
        for start in ("", "[", "answer is"):
            long = start + text * (size // len(text)) + "x"
            for parser in (OURS, VLMEVALKIT):
                assert read_boxes(long, parser).how
                assert read_letter(long, COLOURS, parser).how
                assert read_yes_no(long, parser).how
    assert time.perf_counter() - begin < 30  # quadratic would take hours


@settings(deadline=None, max_examples=200)
@given(
    st.tuples(*[st.integers(1, 399)] * 2, *[st.integers(401, 800)] * 2),
    st.tuples(*[st.integers(1, 399)] * 2, *[st.integers(401, 800)] * 2),
    st.integers(801, 4000),
    st.integers(801, 4000),
)
def test_the_iou_of_pixels_is_that_of_thousandths(first, second, width, height):
    sides = np.array([width, height] * 2)
    pixels = hit(str(list(first)), target=tuple(map(float, second)))
    scaled = hit(
        str((np.array(first) / sides * 1000).tolist()),
        target=tuple(np.array(second) / sides * 1000),
    )
    assert scaled.iou == pytest.approx(pixels.iou, abs=1e-9)
    assert scaled.correct == pixels.correct


def test_every_letter_of_many_options_is_read():
    options = tuple(f"text {n}" for n in range(26))
    shuffled = random.Random(0).sample(ascii_uppercase, 26)
    assert [letter(f"({each})", options) for each in shuffled] == shuffled
