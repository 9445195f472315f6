"""The reward file that travels with an export equals the package's reward, and stands alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.boxes import pad_boxes, unit_from_qwen
from dig_jax.config import RewardConfig
from dig_jax.data.exchange import easyr1_reward
from dig_jax.reward.parse import parse
from dig_jax.reward.reward import make_reward, score_texts
from tests.reward.test_parse import IN_FORM

FILE = Path(easyr1_reward.__file__)
TRUE = [[100, 100, 300, 300], [500, 500, 700, 800], [0, 0, 1000, 40]]
# one string per habit, trick or accident; {a} {b} stand for boxes
TEXTS = [
    "",
    "  \n",
    "[]",
    "```json\n[]\n```",
    '[{{"bbox_2d": {a}}}]',
    '[{{"bbox_2d": {a}}}, {{"bbox_2d": {b}, "label": "cube"}}]<|im_end|>',
    '```json\n[{{"bbox_2d": {a}}}]\n```',
    '```\n[{{"bbox_2d": {a}}}]\n```',
    'Here: [{{"bbox_2d": {a}}}] and [{{"bbox_2d": {b}}}]',
    '<answer>[{{"bbox_2d": {a}}}]</answer> or <answer>[{{"bbox_2d": {b}}}]</answer>',
    "[{a}, {b}]",
    '{{"bbox_2d": {a}}}',
    '[{{"bbox_2d": {a}, "bbox_2d": {b}}}]',
    '[{{"bbox_2d": {a}, "score": 1}}]',
    '[{{"bbox_2d": {a}, "label": 3}}]',
    '[{{"label": "x {a} y", "bbox_2d": {b}}}]',
    '[{{"point_2d": {a}}}, {{"bbox_2d": {b}}}]',
    "[{{'bbox_2d': {a}}}]",
    '[{{"bbox_2d": {a}}}, {{"bbox_2d": [1, 2, 3',
    '[{{"bbox_2d": [100.0, 100.5, 300.0, 1e2]}}]',
    '[{{"bbox_2d": [300, 300, 100, 100]}}]',
    '[{{"bbox_2d": [5, 5, 5, 90]}}, {{"bbox_2d": {a}}}]',
    '[{{"bbox_2d": [-7, 0, 1200, 99999999999999999999]}}]',
    '[{{"bbox_2d": [true, 1, 2, 3]}}, NaN]',
    '[{{"bbox_2d": ["1", "2", "30", "40"]}}]',
    "200e, [1, 2, 3, 200e] [1,2,3,.5] [+1,-2,3.,4e400]",
    "[" * 5000,
    '[{{"bbox_2d": {a}}}]' * 20,
    "[" + ", ".join(['{{"bbox_2d": {a}}}'] * 17) + "]",
    "1" * 5000 + ' [{{"bbox_2d": [' + "1" * 5000 + ", 2, 3, 4]}}]",
    '<think>{b}</think>[{{"bbox_2d": {a}}}]',
    'I see {b}</think>\n\n[{{"bbox_2d": {a}}}]',
    '<think>one</think><think>two</think>[{{"bbox_2d": {a}}}]',
    '[{{"bbox_2d": {a}}}]<think>{b}',
    "</think>",
    "\u00a0[]\u3000",
    '[{{"bbox\\u005f2d": {a}}}, {{"bbox_2d": {b}}}]',
    '[{{"bbox\\u005f2d": [5, 5, 5, 90]}}]',
    '[{{"bbox_2d"                         : {a}}}]',
    '[{{"bbox_2d": {a}, "label": "<answer>"}}]',
    "[]<|endoftext|><|im_end|>",
    '[{{"bbox_2d": {a}}}<|im_start|>]',
    '[{{"bbox_2d": {a}, "label": "<|im_start|>"}}]',
    '<|im_start|></think>[{{"bbox_2d": {a}}}]',
    '[{{"bbox_2d": {a}}}\u0660]',
    "\x00\ud800[{a}]",
]
THINKS = ("none", "prefilled", "full")


def inputs(texts, truths):
    truths = [json.dumps([{"bbox_2d": box} for box in truth]) for truth in truths]
    rows = zip(texts, truths, strict=True)
    return [{"response": t, "response_length": 9, "ground_truth": g} for t, g in rows]


def ours(texts, truths, cfg):
    """The package's reward of one answer per pair: total and parts, f32[B] each."""
    truth = pad_boxes([unit_from_qwen(np.array(t).reshape(-1, 4)) for t in truths], 8)
    ended = np.ones((len(texts), 1), bool)
    reward, _ = score_texts([[t] for t in texts], ended, truth, make_reward(cfg), cfg)
    return {"overall": reward.total} | {n: reward.parts[n] for n in ("format", "f1", "iou")}


def assert_equal(texts, truths, think="none"):
    got = easyr1_reward.compute_score(inputs(texts, truths), think=think)
    want = ours(texts, truths, RewardConfig(think=think))
    for name, values in want.items():
        found = np.array([score[name] for score in got])
        wrong = np.flatnonzero(abs(found - np.asarray(values)[:, 0]) > 1e-6)
        assert not wrong.size, (name, texts[wrong[0]], truths[wrong[0]], found[wrong[0]])


def random_box(rng):
    low, high = np.sort(rng.integers(0, 1001, (2, 2)), axis=0)
    return [*low.tolist(), *high.tolist()]


def near(rng, box):
    return (np.array(box) + rng.integers(-60, 61, 4)).tolist()


@pytest.mark.parametrize("think", THINKS)
def test_it_equals_the_packages_reward_on_every_accident(think):
    rng = np.random.default_rng(0)
    texts, truths = [], []
    for template in TEXTS:
        for truth in ([], TRUE[:1], TRUE):
            text = template.format(a=near(rng, TRUE[0]), b=TRUE[1])
            texts += [text, f"thoughts\n</think>\n\n{text}", f"<think>{text}</think>{text}"]
            truths += [truth] * 3
    assert_equal(texts, truths, think)


def test_it_equals_the_packages_reward_on_random_answers():
    """Boxes near the true ones, far ones, repeats, shuffles: what a policy writes."""
    rng = np.random.default_rng(1)
    texts, truths = [], []
    for _ in range(600):
        truth = [random_box(rng) for _ in range(rng.integers(0, 7))]
        pred = [near(rng, box) for box in truth if rng.random() < 0.8]
        pred += [random_box(rng) for _ in range(rng.integers(0, 3))]
        pred += pred[: rng.integers(0, 2)]
        rng.shuffle(pred)
        texts.append(json.dumps([{"bbox_2d": box} for box in pred]))
        truths.append(truth)
    assert_equal(texts, truths)


def test_it_equals_the_packages_reward_where_the_iou_is_exactly_the_threshold():
    """Half of a box has IoU 1/2, which float32 may round to either side."""
    rng = np.random.default_rng(2)
    truths, texts = [], []
    for _ in range(300):
        x, y, w, h = rng.integers(1, 250, 4).tolist()
        truths.append([[x, y, x + 2 * w, y + h]])
        texts.append(f'[{{"bbox_2d": [{x}, {y}, {x + w}, {y + h}]}}]')
    assert_equal(texts, truths)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.text(st.sampled_from("[]{}\"',:.0123456789e+- bbox_2dlan<>|/thikswer`jso\n\\"), max_size=80)
)
def test_it_reads_any_text_as_the_package_does(text):
    for think in THINKS:
        want = parse(text, think=think, max_boxes=2)
        boxes, count, form = easyr1_reward.read_answer(text, think, 2)
        assert (count, form) == (want.n_boxes, want.ok)
        np.testing.assert_array_equal(boxes, want.boxes_unit)


@pytest.mark.parametrize(("text", "boxes"), IN_FORM)
def test_a_right_form_means_that_its_boxes_were_read(text, boxes):
    read, count, form = easyr1_reward.read_answer(text, "none", 16)
    assert (form, count) == (True, len(boxes))
    np.testing.assert_array_equal(read, unit_from_qwen(np.array(boxes)))


def test_a_cut_off_answer_has_no_format_but_keeps_its_boxes():
    (row,) = inputs(['[{"bbox_2d": [100, 100, 300, 300]}]'], [TRUE[:1]])
    (cut,) = easyr1_reward.compute_score([row], max_response_length=9)
    (whole,) = easyr1_reward.compute_score([row], max_response_length=10)
    assert (cut["format"], cut["f1"]) == (0.0, 1.0)
    assert whole == {"overall": 3.0, "format": 1.0, "f1": 1.0, "iou": 1.0, "accuracy": 1.0}


def test_the_defaults_are_those_of_the_package():
    cfg, given_ = RewardConfig(), easyr1_reward.compute_score.__defaults__
    names = easyr1_reward.compute_score.__code__.co_varnames[1 : 1 + len(given_)]
    defaults = dict(zip(names, given_, strict=True))
    assert defaults.pop("max_response_length") == 0
    assert defaults == {name: getattr(cfg, name) for name in defaults}
    assert (cfg.cost_iou, cfg.iou_denominator, cfg.empty_is_perfect) == (0.0, "max", True)


def test_a_bad_ground_truth_is_named():
    with pytest.raises(ValueError, match=r"of row 1 is no JSON list"):
        easyr1_reward.compute_score(
            [*inputs(["[]"], [[]]), {"response": "[]", "ground_truth": '{"a": 1}'}]
        )
    easyr1_reward.compute_score([{"response": "[]", "ground_truth": "[]"}])  # as it advises
    with pytest.raises(ValueError, match="think='some' is unknown; use one of") as caught:
        easyr1_reward.compute_score(inputs(["[]"], [[]]), think="some")
    for think in str(caught.value).partition("use one of ")[2].split(", "):
        easyr1_reward.compute_score(inputs(["[]"], [[]]), think=think)


def test_trl_calls_it_with_text_and_with_conversations():
    answer = json.dumps([{"bbox_2d": TRUE[0]}])
    blocks = [{"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    conversation = [{"role": "assistant", "content": answer}]
    got = easyr1_reward.trl_reward(
        completions=[answer, conversation, blocks, "no"], answer=[answer] * 4, prompts=None
    )
    assert got == [3.0, 3.0, 3.0, 0.0]


def test_it_runs_alone_by_its_path(tmp_path):
    """As EasyR1 loads it: by file name, with nothing of this package or of jax at hand."""
    copy = tmp_path / "reward.py"
    copy.write_bytes(FILE.read_bytes())
    program = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("custom_reward_fn", {str(copy)!r})
module = importlib.util.module_from_spec(spec)
sys.modules["custom_reward_fn"] = module
spec.loader.exec_module(module)
rows = [{{"response": "[]", "response_length": 1, "ground_truth": "[]"}}]
print(module.REWARD_TYPE, module.compute_score(rows)[0]["overall"])
print([name for name in sys.modules if name.partition(".")[0] in ("dig_jax", "jax", "torch")])
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["batch 3.0", "[]"], done.stderr
