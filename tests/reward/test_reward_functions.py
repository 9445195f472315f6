"""Named rewards and the user's own: one signature, checked calls, overlong answers."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.boxes import pad_boxes, qwen_from_unit
from dig_jax.config import REWARD_FUNCTIONS, Config, ModelSource, RewardConfig, RolloutConfig
from dig_jax.reward import neighbours
from dig_jax.reward.answers import make_answer_reward, make_samples, overlong_penalty, pair_metas
from dig_jax.reward.custom import RewardError, call, find_function
from dig_jax.reward.functions import NAMED, dig
from dig_jax.reward.parse import parse
from dig_jax.run import session
from tests import ROOT
from tests.tiny_model import ASSETS

A, B = [0.0, 0.0, 0.25, 0.5], [0.5, 0.5, 1.0, 1.0]
A_HALF = [0.0, 0.0, 0.125, 0.5]
DOC = ROOT / "docs" / "rewards.md"
TOLERANCE = 1e-5  # float32 against float64: sums of a few terms near 1


def text_of(*boxes):
    return json.dumps([{"bbox_2d": b} for b in qwen_from_unit(boxes).tolist()])


TEXTS = [
    [text_of(A), text_of(A_HALF), "no idea"],
    [text_of(A_HALF, B), f"Here: {text_of(B, A, A)}", "[]"],
]
TRUTH = pad_boxes([[A], [A, B]], 3)
ENDED = np.array([[True, True, False], [True, True, True]])
TOKENS = np.array([[12, 12, 20], [15, 20, 2]])
PAIR_ID, BUCKET = np.array([7, 3]), np.array([0, -1])


def config(name="dig", **fields) -> Config:
    reward = RewardConfig(function=name, **fields)
    return Config(rollout=RolloutConfig(max_tokens=20), reward=reward)


def rewarded(cfg: Config):
    reward, parsed = make_answer_reward(cfg)(TEXTS, ENDED, TOKENS, TRUTH, PAIR_ID, BUCKET)
    return jax.device_get(reward), parsed


def samples(cfg: Config | None = None):
    parsed = [[parse(t, ended=e) for t, e in zip(*row)] for row in zip(TEXTS, ENDED)]  # noqa: B905
    metas = pair_metas(cfg or config(), PAIR_ID, BUCKET)
    return list(make_samples(TEXTS, ENDED, TOKENS, TRUTH, metas, parsed))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """write(source) -> name of a module that lies in the working directory alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if p])
    names = iter(range(100))

    def write(source: str) -> str:
        name = f"mine_{tmp_path.name}_{next(names)}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


@pytest.mark.parametrize("name", REWARD_FUNCTIONS)
def test_a_named_function_is_the_total_and_digs_parts_stay(name):
    cfg = config(name)
    got, parsed = rewarded(cfg)
    function = find_function(cfg.reward)
    values = [function(sample) for sample in samples()]
    want = [value["reward"] if isinstance(value, dict) else value for value in values]
    np.testing.assert_allclose(got.total.ravel(), want, atol=TOLERANCE)
    plain, _ = rewarded(config())
    for part, value in plain.parts.items():
        np.testing.assert_array_equal(got.parts[part], value)
    extra = set(got.parts) - set(plain.parts)
    dicts = name != "dig" and isinstance(values[0], dict)
    assert extra == ({f"{name}/{key}" for key in values[0] if key != "reward"} if dicts else set())
    assert got.total.dtype == np.float32
    assert parsed[1][1].n_boxes == 3


def test_named_functions_score_the_answers_as_worked_out_by_hand():
    """96x64 px: half of A is 12x32 px, so corners are off by 3 px on average: both points."""
    value = {name: call(NAMED[name], name, samples(), 3)[0].reshape(2, 3) for name in NAMED}
    expect = {
        "dig": [[3, 2.5, 0], [2.75, 4 / 5 + 2 / 3, 1]],
        "perception_r1": [[1, 0.5, 0], [0.75, 1, 0]],
        "vlm_r1_weighted": [[1, 0.65, 0], [0.7 * 0.75 + 0.3, 0.7 + 0.3 * (1 - 1 / 6), 0]],
        "vision_reasoner": [[2, 2, 0], [2, 4 / 3, 0]],
        # A_HALF is a hit at .5 alone: AP 1 there (then, with B, 1; above .5 recall .5 at precision
        # 1/2, read at 51 of 101 recalls); B, A, A finds both first: AP 1 x length 2/3
        "vlm_r1_ap": [[1, 0.1, 0], [0.1 + 0.9 * 0.5 * 51 / 101, 2 / 3, 0]],
    }
    for name, want in expect.items():
        np.testing.assert_allclose(value[name], want, atol=TOLERANCE, err_msg=name)


BOX = st.tuples(*[st.integers(0, 900)] * 2, *[st.integers(0, 400)] * 2).map(
    lambda t: [t[0], t[1], min(t[0] + t[2], 1000), min(t[1] + t[3], 1000)]
)
CONFIGS = [
    RewardConfig(max_boxes=4),
    RewardConfig(max_boxes=4, iou_denominator="matched", empty_is_perfect=False, w_f1=0.5),
    RewardConfig(max_boxes=4, iou_denominator="true", cost_l1=0.0, cost_giou=0.0, cost_iou=1.0),
]
KERNELS = [make_answer_reward(Config(reward=cfg)) for cfg in CONFIGS]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(BOX, max_size=6), st.lists(BOX, max_size=4), st.integers(0, 2), st.booleans())
def test_dig_of_one_sample_is_the_jitted_reward(pred, true, which, near):
    pred = [*true[::-1], *pred][:6] if near else pred
    text = json.dumps([{"bbox_2d": box} for box in pred])
    truth = pad_boxes([np.array(true, np.float32).reshape(-1, 4) / 1000], 4)
    batch = [[text]], np.array([[True]]), np.array([[9]]), truth
    got, parsed = KERNELS[which](*batch, PAIR_ID[:1], BUCKET[:1])
    metas = pair_metas(config(), PAIR_ID[:1], BUCKET[:1])
    (sample,) = make_samples(*batch, metas, parsed)
    one = dig(sample, CONFIGS[which])
    assert one["reward"] == pytest.approx(float(got.total[0, 0]), abs=TOLERANCE)
    for part in ("format", "f1", "iou"):
        assert one[part] == pytest.approx(float(got.parts[part][0, 0]), abs=TOLERANCE)


@pytest.mark.parametrize(
    ("pred", "true", "surplus", "ap", "length"),
    [
        ([A, B], [A, B], 0, 1, 1),
        ([B, A, A], [A, B], 0, 1, 2 / 3),  # false ones last cost length alone
        ([A, A, B], [A, B], 0, (51 + 50 * 2 / 3) / 101, 2 / 3),  # before a right one: precision too
        ([A], [A, B], 0, 51 / 101, 1),  # recalls 0 to .5 of 101
        ([A], [A], 3, 1, 1 / 4),
        ([A_HALF], [A], 0, 1 / 10, 1),  # a hit at .5 alone
        ([], [A], 0, 0, 0),
        ([A], [], 0, 0, 0),
        ([], [], 0, 1, 1),
    ],
)
def test_average_precision_is_cocos(pred, true, surplus, ap, length):
    pred, true = (np.array(boxes).reshape(-1, 4) * 100 for boxes in (pred, true))
    got = neighbours.vlm_r1_ap(pred, true, surplus)
    assert got == pytest.approx({"reward": ap * length, "ap": ap, "length": length})


# pycocotools 2's stats[0] (bbox, all scores 1) of boxes drawn around the true ones
COCO = [
    (
        [[5, -3, 42, 34], [10, 45, 40, 75], [20, 0, 39, 32], [7, 48, 35, 72]],
        [[30, 16, 58, 53], [18, 2, 42, 29], [4, 0, 43, 31], [10, 48, 38, 73]],
        0.4277227722772277,
    ),
    (
        [
            [7, 35, 33, 52],
            [42, 52, 61, 71],
            [42, 52, 59, 70],
            [11, 32, 30, 55],
            [44, 47, 57, 70],
            [45, 49, 62, 70],
        ],
        [[8, 34, 32, 54], [43, 50, 60, 71]],
        0.6252475247524752,
    ),
    (
        [
            [40, 53, 81, 60],
            [11, 42, 29, 76],
            [12, 44, 33, 74],
            [14, 42, 30, 75],
            [13, 44, 30, 72],
            [40, 51, 80, 59],
        ],
        [[40, 53, 78, 62], [11, 45, 30, 73]],
        0.5353465346534654,
    ),
    (
        [[54, 23, 84, 38], [54, 20, 88, 37], [6, 32, 31, 46], [11, 33, 30, 46], [55, 24, 71, 58]],
        [[57, 21, 91, 36], [8, 31, 31, 49], [58, 22, 73, 58], [53, 23, 86, 35]],
        0.45544554455445546,
    ),
]


@pytest.mark.parametrize(("pred", "true", "ap"), COCO)
def test_average_precision_equals_pycocotools(pred, true, ap):
    assert neighbours.vlm_r1_ap(np.array(pred), np.array(true))["ap"] == pytest.approx(
        ap, abs=1e-12
    )


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("<think>so</think>\n<answer>{'bbox_2d': [1, 2, 3, 4]}</answer>", 1),
        ("<think>so</think><answer>[{[1,2,3,4]}, {[5,6,7,8]}]</answer> bye", 1),
        ("so</think><answer>{[1,2,3,4]}</answer>", 0),  # the prompt opened it
        ("<think>so</think> then <answer>{[1,2,3,4]}</answer>", 0),
        ("<think>so</think><answer>{[1,2,3]}</answer>", 0),
        ("<think>so</think><answer>[1,2,3,4]</answer>", 0),
        ("<think>so</think><answer>{[1,2,3,4]}", 0),
        (text_of(A), 0),
    ],
)
def test_vlm_r1s_format_is_its_grounding_rule(text, ok):
    assert neighbours.vlm_r1_format(text) == ok


def test_surplus_boxes_count_against_every_neighbour_that_counts_boxes():
    pred = np.array([A]) * 100
    assert neighbours.perception_r1(pred, pred, 3) == 1  # free there, as published
    assert neighbours.vlm_r1_weighted(pred, pred, 3)["completeness"] == 1 - 0.75 / 2
    assert neighbours.vision_reasoner(pred, pred, 3) == 2 / 4


def test_a_sample_holds_its_pair_and_cannot_be_changed():
    first, last = samples()[0], samples()[-1]
    assert dict(first.meta) == {"pair_id": 7, "bucket": "single", "width": 96, "height": 64}
    assert (last.meta["bucket"], last.meta["pair_id"], last.tokens) == ("heldout", 3, 2)
    assert first.truth_px.tolist() == [[0, 0, 24, 32]]
    assert (samples()[2].ended, samples()[2].verdict) == (False, "no_json")
    for array in (first.truth, first.boxes):
        with pytest.raises(ValueError, match="read-only"):
            array += 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.text = ""


def test_the_documented_example_is_found_in_the_working_directory_and_pays(module):
    (code,) = re.findall(r"```python\n(.*?)```", DOC.read_text(), flags=re.S)
    name = module(code)
    got, _ = rewarded(config(f"{name}:few_words"))
    plain, _ = rewarded(config())
    penalty = got.parts["few_words/penalty"]
    np.testing.assert_allclose(got.total, plain.total - penalty, atol=TOLERANCE)
    assert len(code.strip().splitlines()) <= 12
    assert penalty[0, 2] > 0  # seven characters around no box
    assert (penalty[1] == 0).all()  # a held-out pair is not "single"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("return float('nan')", "its value is nan, not a finite number"),
        ("return {'reward': 1.0, 'x': float('inf')}", "entry 'x' is inf"),
        ("return 1e39", "not a finite number of float32"),
        ("return None", "its value is a NoneType, not one number"),
        ("return '1'", "its value is a str"),
        ("return sample.truth[0]", r"its value is a ndarray of shape \(4,\)"),
        ("return {'score': 1.0}", r"a dict of \['score'\] without 'reward'"),
        ("return {'reward': [1.0]}", r"entry 'reward' is a list of shape \(1,\)"),
        ("sample.truth[0] = 0; return 1", "read-only"),
    ],
)
def test_a_failing_function_stops_the_run_with_the_answer_it_failed_on(module, body, what):
    name = module(f"def f(sample):\n    if sample.meta['pair_id'] == 7: return 0.0\n    {body}\n")
    function = f"{name}:f"
    where = rf"'{function}' failed on answer 0 to pair 3 of 'heldout': .*{what}.*\[0, 0, 125, 500\]"
    with pytest.raises(RewardError, match=where) as caught:
        rewarded(config(function))
    assert isinstance(caught.value.__cause__, Exception)


def test_entries_must_be_the_same_for_every_answer():
    answers = iter([{"reward": 1, "a": 1}, {"reward": 1, "b": 2}])
    with pytest.raises(RewardError, match=r"answer 1 to pair 7 .*'b'.*first answer .*'a'"):
        call(lambda sample: next(answers), "f", samples(), 3)


def test_a_long_answer_is_shortened_in_the_error():
    long = dataclasses.replace(samples()[0], text="x" * 10_000)
    with pytest.raises(RewardError) as caught:
        call(lambda sample: None, "f", [long], 1)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [1, True, np.float32(1), np.ones(()), {"reward": np.int64(1)}])
def test_any_kind_of_single_number_is_a_reward(value):
    assert call(lambda sample: value, "f", samples()[:1], 1)[0].tolist() == [1]


@pytest.mark.parametrize(
    ("source", "attribute", "what"),
    [
        ("def reward(sample): return 1", "rewrd", "rewrd does not exist in .*functions: reward;"),
        ("reward = 3", "reward", "reward is not callable"),
        ("def reward(): return 1", "reward", "not called with one argument"),
        ("async def reward(sample): return 1", "reward", "not called with one argument"),
        (
            "import not_a_package",
            "reward",
            r"imported .*\.py, line 1: ModuleNotFoundError: .*not_a",
        ),
        ("def", "reward", r"cannot be imported .*\.py, line 1: SyntaxError"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused_by_field_and_remedy(
    module, source, attribute, what
):
    name = f"{module(source)}:{attribute}"
    with pytest.raises(ValueError, match=rf"reward.function='{name}': .*{what}.*use one of dig, "):
        find_function(RewardConfig(function=name))


def test_a_session_refuses_a_function_before_it_reads_anything(monkeypatch):
    monkeypatch.setattr(session.weights, "read_model_config", None)
    cfg = Config(model=ModelSource(str(ASSETS)), reward=RewardConfig(function="nowhere_at_all:f"))
    with pytest.raises(ValueError, match=r"nowhere_at_all cannot be imported .*nowhere_at_all.py"):
        session.open_session(cfg)


def test_a_module_is_found_where_the_message_says_to_put_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg = RewardConfig(function="put_here_as_told:reward")
    with pytest.raises(ValueError, match=r"; put (\S+) into (\S+), install it, or mend it") as told:
        find_function(cfg)
    file, folder = re.search(r"put (\S+) into (\S+), install", str(told.value)).groups()
    (Path(folder) / file).write_text("def reward(): return 1")
    with pytest.raises(ValueError, match=r"; define it as (reward\(sample\)) -> float"):
        find_function(cfg)
    (Path(folder) / file).write_text("def reward(sample): return 1.0")
    monkeypatch.delitem(sys.modules, "put_here_as_told")
    assert find_function(cfg)


@pytest.mark.parametrize("name", ["perception-r1", "", ":f", "module:", "DiG"])
def test_a_name_that_is_none_is_refused_at_config_time(name):
    with pytest.raises(ValueError, match=r"reward.function=.* names no reward; .*module:function"):
        RewardConfig(function=name)


def test_the_overlong_penalty_is_a_line_over_the_last_tokens():
    cfg = config(overlong_buffer=8, overlong_weight=0.5)
    tokens = np.array([[0, 12, 13], [16, 18, 20]])
    np.testing.assert_allclose(
        overlong_penalty(cfg, tokens, np.ones(tokens.shape, bool)),
        [[0, 0, -1 / 16], [-0.25, -0.375, -0.5]],
    )
    readable = np.array([[False, True, False], [True, True, False]])  # at any length: all of it
    np.testing.assert_allclose(
        overlong_penalty(cfg, tokens, readable), [[-0.5, 0, -0.5], [-0.25, -0.375, -0.5]]
    )


@pytest.mark.parametrize("name", ["dig", "vision_reasoner"])
def test_the_overlong_penalty_is_taken_off_any_total_and_logged(name):
    plain, _ = rewarded(config(name))
    got, _ = rewarded(config(name, overlong_buffer=5, overlong_weight=2.0))
    np.testing.assert_allclose(got.parts["overlong"], [[0, 0, -2], [0, -2, 0]])
    np.testing.assert_allclose(got.total, plain.total + got.parts["overlong"], atol=TOLERANCE)
    assert "overlong" not in plain.parts


def test_an_overlong_buffer_longer_than_an_answer_is_refused():
    with pytest.raises(ValueError, match=r"reward.overlong_buffer=21 is longer .*max_tokens=20"):
        config(overlong_buffer=21)
    assert config(overlong_buffer=20).reward.overlong_buffer == 20


def test_a_chosen_function_makes_no_implicit_transfer():
    """The loop runs under transfer_guard("disallow")."""
    with jax.transfer_guard("disallow"):
        got, _ = rewarded(config("vlm_r1_ap", overlong_buffer=5))
    assert got.total.shape == (2, 3)
