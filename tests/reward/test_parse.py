"""The parser: which boxes a text names, what is wrong with it first, and that it never raises."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.boxes import qwen_from_unit, unit_from_qwen
from dig_jax.reward.parse import READ_CAP, Verdict, parse

A, B = [100, 200, 300, 400], [500, 600, 700, 800]
ONE = '[{"bbox_2d": [100, 200, 300, 400]}]'
TWO = '[{"bbox_2d": [100, 200, 300, 400], "label": "d"}, {"bbox_2d": [500, 600, 700, 800]}]'
V = Verdict


def boxes_of(parsed):
    return qwen_from_unit(parsed.boxes_unit).tolist()


@pytest.mark.parametrize(
    ("text", "verdict", "boxes"),
    [
        # strict: format 1
        (ONE, V.OK, [A]),
        (TWO, V.OK, [A, B]),
        ("[]", V.OK, []),
        (f"```json\n{TWO}\n```", V.OK, [A, B]),
        (f"  {ONE}\n<|im_end|>", V.OK, [A]),
        ('[{"label":"d","bbox_2d":[0,0,1000,1000]}]', V.OK, [[0, 0, 1000, 1000]]),
        ('[{"bbox_2d": [100,200,300,400], "label": "in [1,2,3,4]"}]', V.OK, [A]),
        # nothing there
        ("", V.EMPTY_TEXT, []),
        (" \n\t", V.EMPTY_TEXT, []),
        ("<|im_end|>", V.EMPTY_TEXT, []),
        # special tokens, but one at the end
        ("[]<|endoftext|><|im_end|>", V.SPECIAL_TOKEN, []),
        (f"<|im_start|>{ONE}", V.SPECIAL_TOKEN, [A]),
        ('[{"bbox_2d": [100,200,300,400], "label": "<|im_start|>"}]', V.SPECIAL_TOKEN, [A]),
        ('[{"bbox_2d": [100,200,300,400], "label": "<|im start|>"}]', V.OK, [A]),
        ("The images are the same.", V.NO_JSON, []),
        # cut off: what was finished counts
        ("[", V.UNCLOSED, []),
        ('[{"bbox_2d": [100,200,300,400]}', V.UNCLOSED, [A]),
        ('[{"bbox_2d": [100,200,300,400]}, {"bbox_2d": [500, 60', V.UNCLOSED, [A]),
        ("```json\n" + ONE[:-1], V.UNCLOSED, [A]),
        # not JSON
        ("[{'bbox_2d': [100,200,300,400]}]", V.BAD_JSON, [A]),
        ('[{"bbox_2d": [100,200,300,400]},]', V.BAD_JSON, [A]),
        ('{"bbox_2d": [100 200 300 400]}', V.BAD_JSON, []),
        # around it
        (f"Here: {ONE}", V.EXTRA_TEXT, [A]),
        (f"{ONE} Done.", V.EXTRA_TEXT, [A]),
        (f"There are [2]: {TWO}", V.EXTRA_TEXT, [A, B]),
        (f"<answer>{ONE}</answer>", V.EXTRA_TEXT, [A]),
        (f"Maybe {TWO} <answer>{ONE}</answer> done", V.EXTRA_TEXT, [A]),
        (f"```\n{ONE}\n```", V.EXTRA_TEXT, [A]),
        (f"{ONE}\n{TWO}", V.EXTRA_TEXT, [A, A, B]),  # two candidate answers: both count
        ("Answer: [100, 200, 300, 400]", V.EXTRA_TEXT, [A]),
        # wrong shape
        ('{"bbox_2d": [100,200,300,400]}', V.NOT_A_LIST, [A]),
        (f'{{"differences": {TWO}}}', V.NOT_A_LIST, [A, B]),
        ("[100, 200, 300, 400]", V.BAD_ITEM, [A]),
        ("[[100, 200, 300, 400], [500, 600, 700, 800]]", V.BAD_ITEM, [A, B]),
        (f"[{TWO}]", V.BAD_ITEM, [A, B]),
        ('[{"bbox": [100,200,300,400]}]', V.BAD_ITEM, [A]),
        ('[{"box": [100,200,300,400]}]', V.BAD_ITEM, [A]),
        ('[{"bbox_2d": [[100,200,300,400], [500,600,700,800]]}]', V.BAD_ITEM, [A, B]),
        ('[{"bbox_2d": [100.0, 200.4, 3e2, 400.]}]', V.BAD_JSON, [A]),  # "400." is not JSON
        ('[{"bbox_2d": [100.0, 200.4, 3e2, 400]}]', V.BAD_ITEM, [A]),
        ('[{"bbox_2d": ["100", "200", "300", "400"]}]', V.BAD_ITEM, [A]),
        ('[{"bbox_2d": [100,200,300]}, {"bbox_2d": [500,600,700,800]}]', V.BAD_ITEM, [B]),
        ('[{"bbox_2d": [1,2,3,4,5]}]', V.BAD_ITEM, []),
        ('[{"bbox_2d": [100,200,300,400], "point": [1,2,3,4]}]', V.BAD_ITEM, [A]),
        ('[{"bbox_2d": [100,200,300,400], "why": "or [1,2,3,4]"}]', V.BAD_ITEM, [A]),
        ('[{"bbox_2d": [100,200,300,400], "label": 7}]', V.BAD_ITEM, [A]),
        ('[{"bbox_2d": [100,200,300,400], "bbox_2d": [500,600,700,800]}]', V.BAD_ITEM, [A, B]),
        ('[{"label": "d"}]', V.BAD_ITEM, []),
        ("[{}]", V.BAD_ITEM, []),
        ('["x"]', V.BAD_ITEM, []),
        ('[{"bbox_2d": [true, 0, 5, 5]}]', V.BAD_ITEM, []),
        # numbers
        ('[{"bbox_2d": [NaN, 0, 5, 5]}]', V.BAD_ITEM, []),
        ('[{"bbox_2d": [0, 0, Infinity, 5]}]', V.BAD_ITEM, []),
        ('[{"bbox_2d": [0, 0, 1e999, 5]}]', V.BAD_ITEM, [[0, 0, 1000, 5]]),
        ('[{"bbox_2d": [-5, 0, 1001, 5]}]', V.OUT_OF_RANGE, [[0, 0, 1000, 5]]),
        (f'[{{"bbox_2d": [0, 0, {"9" * 5000}, 5]}}]', V.OUT_OF_RANGE, [[0, 0, 1000, 5]]),
        (f'[{{"bbox_2d": [-{"9" * 5000}, 0, 7, 5]}}]', V.OUT_OF_RANGE, [[0, 0, 7, 5]]),
        ('[{"bbox_2d": [300, 200, 100, 400]}]', V.INVERTED, [A]),
        ('[{"bbox_2d": [300, 400, 100, 200]}]', V.INVERTED, [A]),
        ('[{"bbox_2d": [5, 5, 5, 9]}]', V.FLAT, [[5, 5, 5, 9]]),
        # the first thing wrong wins
        ('[{"bbox_2d": [300,200,100,400]}, {"bbox_2d": [0,0,2000,5]}]', V.INVERTED, None),
        # think tags where none belong
        (f"<think>x</think>{ONE}", V.BAD_THINK, [A]),
        (f"</think>{ONE}", V.BAD_THINK, [A]),
        (f"{ONE}<think>", V.BAD_THINK, [A]),
    ],
)
def test_text_gives_verdict_and_boxes(text, verdict, boxes):
    got = parse(text)
    assert got.verdict is verdict
    assert got.ok == (verdict is V.OK)
    if boxes is not None:
        assert boxes_of(got) == boxes
        assert got.n_boxes == len(boxes)


@pytest.mark.parametrize(
    ("think", "text", "verdict", "boxes"),
    [
        ("prefilled", f"I see.\n</think>\n\n{ONE}", V.OK, [A]),
        ("prefilled", f"Perhaps {TWO}.\n</think>\n{ONE}", V.OK, [A]),  # thoughts are free
        ("prefilled", f"</think>```json\n{ONE}```", V.OK, [A]),
        ("prefilled", ONE, V.BAD_THINK, []),  # never stopped thinking
        ("prefilled", f"<think>x</think>{ONE}", V.BAD_THINK, [A]),
        ("prefilled", f"x</think>{TWO}</think>{ONE}", V.BAD_THINK, [A]),
        ("prefilled", "x</think>", V.NO_JSON, []),
        ("prefilled", f"x<|im_start|></think>{ONE}", V.SPECIAL_TOKEN, [A]),
        ("prefilled", "", V.EMPTY_TEXT, []),
        ("full", f"<think>x</think>{ONE}", V.OK, [A]),
        ("full", f"\n<think>{TWO}</think>\n{ONE}", V.OK, [A]),
        ("full", ONE, V.BAD_THINK, [A]),
        ("full", f"x</think>{ONE}", V.BAD_THINK, [A]),
        ("full", f"x<think>x</think>{ONE}", V.BAD_THINK, [A]),
        ("full", f"<think>{ONE}", V.BAD_THINK, []),
        ("full", f"<think>x</think>{ONE}<think>{TWO}", V.BAD_THINK, [A]),
    ],
)
def test_think_rule_decides_what_is_answer(think, text, verdict, boxes):
    got = parse(text, think=think)
    assert got.verdict is verdict
    assert boxes_of(got) == boxes


KEY = "\\u0062box\\u005f2d"
IN_FORM = [  # JSON that is a right list of A (and B), written in a way nobody would look for
    (f'[{{"{KEY}": [100, 200, 300, 400]}}]', [A]),
    (
        f'[{{"{KEY}": [100,200,300,400], "lab\\u0065l": "x"}}, {{"bbox_2d": [500,600,700,800]}}]',
        [A, B],
    ),
    (f'```json\n[{{"{KEY}": [100, 200, 300, 400]}}]\n```', [A]),
    ('[{"bbox_2d"' + " " * 25 + ": [100, 200, 300, 400]}]", [A]),
    ('[{"bbox_2d":' + "\n" * 99 + "[100, 200, 300, 400]}]", [A]),
    ('[{"bbox_2d": [100,200,300,400], "label": "<answer>"}]', [A]),
    ('[{"label": "</answer>", "bbox_2d": [100,200,300,400]}]', [A]),
    ('[{"bbox_2d": [100,200,300,400], "label": "\\"}, [1,2,3,4] \\u003cthink>"}]', [A]),
]


@pytest.mark.parametrize(("text", "boxes"), IN_FORM)
@pytest.mark.parametrize("think", ["none", "prefilled", "full"])
def test_ok_means_that_its_boxes_were_read(text, boxes, think):
    """One reading decides both: these were called ok with other boxes than they name, or none."""
    text = {"none": "", "prefilled": "so</think>", "full": "<think>so</think>"}[think] + text
    got = parse(text, think=think)
    assert (got.verdict, boxes_of(got), got.n_boxes) == (V.OK, boxes, len(boxes))
    short = parse(text, think=think, max_boxes=1)
    assert (len(short.boxes_unit), short.n_boxes) == (1, len(boxes))


@pytest.mark.parametrize(
    ("corners", "verdict", "box"),
    [("5,5,5,9", V.FLAT, [5, 5, 5, 9]), ("300,400,100,200", V.INVERTED, A),
     ("-5,0,1001,5", V.OUT_OF_RANGE, [0, 0, 1000, 5])],
)  # fmt: skip
def test_a_verdict_about_a_box_means_that_the_box_was_read(corners, verdict, box):
    """Flat is counted, inverted swapped, out of range clipped: whatever the key's spelling."""
    got = parse(f'[{{"{KEY}": [{corners}]}}]')
    assert (got.verdict, boxes_of(got)) == (verdict, [box])


def test_an_answer_that_ran_out_of_tokens_is_never_ok():
    assert parse(ONE, ended=False).verdict is V.NOT_ENDED
    assert parse(ONE[:-1], ended=False).verdict is V.UNCLOSED
    assert boxes_of(parse(ONE, ended=False)) == [A]


def test_boxes_beyond_the_cap_are_counted_not_kept():
    text = json.dumps([{"bbox_2d": [0, 0, 1, i + 1]} for i in range(5)])
    got = parse(text, max_boxes=3)
    assert (got.verdict, got.n_boxes, len(got.boxes_unit)) == (V.TOO_MANY, 5, 3)
    assert parse(text, max_boxes=5).ok
    many = parse(json.dumps([{"bbox_2d": [0, 0, 1, 1]}] * 10_000))
    assert (many.n_boxes, len(many.boxes_unit)) == (10_000, READ_CAP)


def test_every_well_formed_list_reads_back_exactly():
    """What the prompt asks for, written by json.dumps, loses nothing (0..1000 in float32)."""
    rng = np.random.default_rng(0)
    low = rng.integers(0, 1000, (200, 2))
    high = rng.integers(low + 1, 1001)
    ints = np.concatenate([low, high], axis=1)
    got = parse(json.dumps([{"bbox_2d": row, "label": "difference"} for row in ints.tolist()]))
    assert got.ok
    np.testing.assert_array_equal(got.boxes_unit, unit_from_qwen(ints))


PIECES = [
    *"[]{}(),:\"'.-+eE0123456789 \n\t\\/é\ud800\x00",
    *('"bbox_2d"', '"bbox"', "box", '"label"', "<think>", "</think>", "<answer>", "</answer>"),
    *("<|im_start|>", "<|", "|>", "<|im_end|>"),
    *("```json", "```", "NaN", "Infinity", "null", "true", "1e999", "9" * 400, ONE, "[1,2,3,4]"),
]


def check_invariants(text, **kwargs):
    got = parse(text, **kwargs)
    assert isinstance(got.verdict, V)
    assert got.ok == (got.verdict is V.OK)
    assert got.boxes_unit.dtype == np.float32
    assert got.boxes_unit.shape == (min(got.n_boxes, kwargs.get("max_boxes", READ_CAP)), 4)
    assert ((got.boxes_unit >= 0) & (got.boxes_unit <= 1)).all()
    assert (got.boxes_unit[:, :2] <= got.boxes_unit[:, 2:]).all()


def test_seeded_fuzz_of_pieces_never_raises():
    rng = np.random.default_rng(0)
    for _ in range(5000):
        picks = rng.integers(len(PIECES), size=rng.integers(0, 40))
        think = ("none", "prefilled", "full")[rng.integers(3)]
        check_invariants("".join(PIECES[i] for i in picks), think=think, max_boxes=4)


@pytest.mark.parametrize("half", ["200e", "200e+", "1.e", "2.5E-"])
def test_half_an_exponent_is_no_number(half):
    """Python 3.11's possessive groups captured it, and float() raised in the middle of a run."""
    assert parse(f'[{{"bbox_2d": [100, {half}, 300, 400]}}]').n_boxes == 0
    assert parse('[{"bbox_2d": [100, 2e2, 300., 4.5E2]}]').n_boxes == 1


def test_seeded_damage_to_a_good_answer_never_raises():
    """One to five edits of a valid answer: the neighbourhood a policy really samples from."""
    rng = np.random.default_rng(1)
    for _ in range(3000):
        chars = list(TWO)
        for _ in range(rng.integers(1, 6)):
            at = rng.integers(len(chars))
            chars[at : at + rng.integers(0, 3)] = [PIECES[rng.integers(len(PIECES))]]
        check_invariants("".join(chars))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.text()
    | st.lists(st.sampled_from(PIECES)).map("".join)
    | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape"))
)
def test_any_text_never_raises(text):
    check_invariants(text)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=5)
            | st.dictionaries(st.sampled_from(["bbox_2d", "box", "label", "k"]), x, max_size=3)
        ),
        max_leaves=20,
    )
)
def test_any_json_never_raises(value):
    check_invariants(json.dumps(value))


SIZE = 200_000


@pytest.mark.parametrize(
    "unit",
    [
        *"[{\"':9-a ",
        *("[[", '[{"bbox_2d":', '":"', ':"\\"', ': "', "[ ", "[1,", "[1,1,1,", "[1,2,3,4]"),
        *(
            "[1 ,1 ,1 ,1 ",
            "<think>",
            "</think>",
            "<answer>",
            "<|a",
            "<|im_start|>",
            "```json",
            '"]',
            "\\",
            '{"a":',
        ),
        *('"bbox_2d":[', "0.", "1e", "[9999", "[" + "9" * 1000, "['1',"),
    ],
)
def test_hostile_text_costs_linear_time(unit):
    """200 kB of any of these reads in well under a second; quadratic code needs minutes.

    CPU time, and 20 times what a slow core takes (0.1 s), so that a busy machine cannot fail it.
    """
    for text in (unit * (SIZE // len(unit)), "```json" + unit * (SIZE // len(unit)) + "```"):
        start = time.process_time()
        check_invariants(text)
        assert time.process_time() - start < 2.0
