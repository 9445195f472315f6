"""Unreadable never pays: no text from which nothing can be read earns what a readable one does not.

An answer is readable where a box was read, or it is an empty list in the form asked for.
"""

import functools
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.boxes import pad_boxes, unit_from_qwen
from dig_jax.config import REWARD_FUNCTIONS, REWARD_PRESETS, Config, RewardConfig, RolloutConfig
from dig_jax.data.exchange import easyr1_reward
from dig_jax.reward.answers import make_answer_reward, make_samples, pair_metas
from dig_jax.reward.custom import find_function
from dig_jax.reward.parse import parse
from dig_jax.reward.parse_batch import parse_batch
from tests.reward.test_parse_batch import TEXTS

TRUE = [100, 200, 300, 400]
FALSE = [800, 800, 900, 900]
LONGEST = 20  # rollout.max_tokens
ROWS = 6  # texts at a time: one shape, so that each config compiles once
# the reproductions of fault M4 and their kin: no box and no empty list can be read from any
GARBAGE = [
    "",
    " \n",
    "<|im_end|>",
    "The two images are the same.",
    "[",
    '[{"bbox_2d": [100, 200',
    "[{}]",
    '[{"bbox_2d": [100, 200, 300]}]',
    '[{"point_2d": [100, 200, 300, 400]}]',
    '{"boxes": []}',
    "{}",
    "[]]",
    "[] []",
    "I see no difference: []",
    "<answer>",
    "[[]]",
    "(100, 200), (300, 400)",
    "<box>100 200 300 400</box>",
    "<think>[100, 200, 300, 400]",
]
# readable and as bad as can be: wrong boxes, wrong form, too many
POOR = [
    f"no: {FALSE}",
    f"{[[7, 7, 7, 9]] * 40}",
    f'[{{"bbox_2d": {FALSE}}}',
    f'[{{"bbox_2d": {FALSE}}}]',
]
THOUGHTS = {"none": "", "prefilled": "so</think>", "full": "<think>so</think>"}


def config(name="dig", **fields) -> Config:
    reward = RewardConfig(function=name, max_boxes=4, **fields)
    return Config(rollout=RolloutConfig(max_tokens=LONGEST), reward=reward)


CONVENTIONS = [
    *({"w_format": p.w_format, "w_f1": p.w_f1, "w_iou": p.w_iou} for p in REWARD_PRESETS.values()),
    {"empty_is_perfect": False, "iou_denominator": "matched"},
    {"iou_denominator": "true", "iou_threshold": 0.1, "matching": "xla"},
    {"cost_l1": 0.0, "cost_giou": 0.0, "cost_iou": 1.0},
    {"think": "prefilled"},
    {"think": "full", "overlong_buffer": 8},
    {"overlong_buffer": LONGEST, "overlong_weight": 3.0},
]
CONFIGS = [config(**fields) for fields in CONVENTIONS]
CONFIGS += [config(name) for name in REWARD_FUNCTIONS if name != "dig"]
CONFIGS += [config(name, think="full", overlong_buffer=8) for name in REWARD_FUNCTIONS]


@functools.cache
def compiled(reward: RewardConfig):
    return make_answer_reward(Config(rollout=RolloutConfig(max_tokens=LONGEST), reward=reward))


def scored(cfg, texts, ended, tokens, truth):
    """Total f32[N], parts f32[N] and readings of N answers to one pair; truth in thousandths."""
    boxes = pad_boxes([unit_from_qwen(np.array(truth).reshape(-1, 4))], 3)
    shape = (1, len(texts))
    given_ = [texts], np.reshape(ended, shape), np.reshape(tokens, shape), boxes
    got, parsed = compiled(cfg.reward)(*given_, np.array([0]), np.array([-1]))
    got = jax.device_get(got)
    return got.total[0], {name: part[0] for name, part in got.parts.items()}, parsed[0]


def named(cfg, texts, ended, tokens, truth):
    """The function that cfg names, answer by answer, of what `parse` alone reads."""
    boxes = pad_boxes([unit_from_qwen(np.array(truth).reshape(-1, 4))], 3)
    read = [
        parse(text, think=cfg.reward.think, ended=end, max_boxes=cfg.reward.max_boxes)
        for text, end in zip(texts, ended, strict=True)
    ]
    metas = pair_metas(cfg, np.array([0]), np.array([-1]))
    values = map(
        find_function(cfg.reward), make_samples([texts], [ended], [tokens], boxes, metas, [read])
    )
    return [value if isinstance(value, dict) else {"reward": value} for value in values], read


def exported(cfg, texts, ended, truth):
    """The scores of the file that an export carries, with its parts."""
    truth = json.dumps([{"bbox_2d": box} for box in truth])
    rows = [
        {"response": text, "response_length": 1 if end else LONGEST, "ground_truth": truth}
        for text, end in zip(texts, ended, strict=True)
    ]
    names = ("think", "w_format", "w_f1", "w_iou", "iou_threshold", "cost_l1", "cost_giou")
    settings_ = {name: getattr(cfg.reward, name) for name in (*names, "max_boxes")}
    return easyr1_reward.compute_score(rows, max_response_length=LONGEST, **settings_)


def check(cfg, texts, ended, tokens, truth) -> list[bool]:
    """Holds what the three say of these answers against the rule; which of them are readable."""
    # the worst that can be read, at any length, and what is asked of a pair without a difference
    best = THOUGHTS[cfg.reward.think]
    texts = [*texts, *POOR, f"{best}[]", *(best + poor for poor in POOR)]
    more = len(texts) - len(ended)
    ended, tokens = [*ended, *[True] * more], [*tokens, *[LONGEST] * more]
    total, parts, read = scored(cfg, texts, ended, tokens, truth)
    readable = [one.readable for one in read]
    least = total[readable].min()
    for row in np.flatnonzero(~np.array(readable)):
        assert total[row] <= least, (texts[row], total[row], least)
        earned = {name: part[row] for name, part in parts.items() if name != "overlong"}
        assert not any(earned.values()), (texts[row], earned)
    values, alone = named(cfg, texts, ended, tokens, truth)
    assert [one.readable for one in alone] == readable
    least = min(value["reward"] for value, one in zip(values, readable, strict=True) if one)
    for text, value, one in zip(texts, values, readable, strict=True):
        assert one or (not any(value.values()) and value["reward"] <= least), (text, value)
    if cfg.reward.function == "dig" and cfg.reward.cost_l1:
        scores = exported(cfg, texts, ended, truth)
        least = min(s["overall"] for s, one in zip(scores, readable, strict=True) if one)
        for text, score, one in zip(texts, scores, readable, strict=True):
            assert one or (not any(score.values()) and score["overall"] <= least), (text, score)
    return readable


TRUTHS = st.lists(st.sampled_from([TRUE, FALSE, [0, 0, 1000, 1000]]), max_size=3)
ROW = st.tuples(TEXTS | st.sampled_from(GARBAGE), st.booleans(), st.integers(1, LONGEST))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(ROW, min_size=ROWS, max_size=ROWS), TRUTHS, st.sampled_from(CONFIGS))
def test_what_cannot_be_read_earns_nothing_and_no_more_than_the_worst_that_can(rows, truth, cfg):
    """Of generated texts and truths: by `parse_batch` and kernel, by `parse`, by the export."""
    texts, ended, tokens = map(list, zip(*rows, strict=True))
    check(cfg, texts, ended, tokens, truth)


@pytest.mark.parametrize("cfg", CONFIGS, ids=map(str, range(len(CONFIGS))))
@pytest.mark.parametrize("truth", [[], [TRUE]], ids=["identical", "one"])
def test_the_known_garbage_earns_nothing_under_every_convention(cfg, truth):
    texts = [thought + text for text in GARBAGE for thought in ("", THOUGHTS[cfg.reward.think])]
    texts += ["[]"]  # but where the token limit cut it off, which leaves open what was to come
    texts += [""] * (-len(texts) % ROWS)
    ended = [text != "[]" for text in texts]
    for at in range(0, len(texts), ROWS):
        some = slice(at, at + ROWS)
        assert not any(check(cfg, texts[some], ended[some], [1] * ROWS, truth)[:ROWS])


def test_an_empty_list_in_the_form_earns_all_of_an_identical_pair():
    for cfg in (config(), config("perception_r1"), config("vlm_r1_ap"), config("vlm_r1_weighted")):
        total, parts, read = scored(cfg, ["[]", "no"], [True, True], [1, 1], [])
        assert [one.readable for one in read] == [True, False]
        np.testing.assert_array_equal(total, [3 if cfg.reward.function == "dig" else 1, 0])
        np.testing.assert_array_equal(parts["count_ok"], [1, 0])


def test_boxes_read_from_a_cut_off_list_keep_their_credit():
    text = f'[{{"bbox_2d": {TRUE}}}, {{"bbox_2d": [5'
    total, parts, read = scored(config(), [text], [False], [LONGEST], [TRUE])
    assert (read[0].readable, read[0].ok, total[0]) == (True, False, 2)
    assert (parts["f1"][0], parts["iou"][0]) == (1, 1)


def test_a_published_format_term_is_not_paid_for_what_our_parser_cannot_read():
    """VLM-R1's grounding rule accepts any key before the four integers."""
    text = "<think>so</think><answer>{'point': [1, 2, 3, 4]}</answer>"
    cfg = config("vlm_r1_weighted", think="full")
    _, parts, read = scored(cfg, [text, text.replace("point", "box")], [True] * 2, [9] * 2, [TRUE])
    assert [one.readable for one in read] == [False, True]
    np.testing.assert_array_equal(parts["vlm_r1_weighted/format"], [0, 1])


def test_only_the_scores_of_identical_pairs_moved():
    """The held-out pairs of the published tables have 1 to 3 differences: no box, no part, as ever.

    So the tables' numbers stand; what moves is F1, IoU, precision, recall and count accuracy of
    unreadable answers to identical pairs (eval.controls, or data of one's own).
    """
    for truth in ([], [TRUE], [TRUE, FALSE]):
        read = parse_batch(GARBAGE, [True] * len(GARBAGE), think="none", max_boxes=4)
        assert not read.n_boxes.any()
        _, parts, _ = scored(config(), GARBAGE, [True] * len(GARBAGE), [1] * len(GARBAGE), truth)
        before = {name: float(not truth) for name in ("f1", "iou", "precision", "recall")}
        before["count_ok"] = float(not truth)  # the formulas, of no predicted box
        moved = {name for name, value in before.items() if (parts[name] != value).any()}
        assert moved == (set() if truth else set(before))
