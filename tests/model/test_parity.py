"""Our model computes what Hugging Face's Qwen3-VL computes, in float32 within 1e-4.

`tests/hf_outputs` (scripts/make/goldens.py) holds three random checkpoints and HF's answers:

- tied    three deepstack taps; three, two, one and no image in the rows of one ragged batch
- untied  theta 10,000 and section [16, 8, 8], where wrong frequencies show early
- deep    the 8B's 27 + 36 layers, taps, head sizes (72 and 128), patch and position table

Two correct float32 implementations differ by 2e-5 on such logits (standard deviation 1.5). What
a wrong implementation does is in tests/model/test_mistakes.py.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest

from dig_jax.config import MeshConfig
from dig_jax.mesh.sharding import make_mesh, param_shardings
from dig_jax.model import qwen3vl, vision
from dig_jax.model.specs import model_specs
from dig_jax.sampler.rollout import make_sampler
from scripts.make.random_checkpoint import sketch
from tests.model import mistakes
from tests.model import parity_cases as cases
from tests.model.parity_cases import golden

TOLERANCE = 1e-4
RELATIVE = 1e-3  # of a gradient's norm
EVERY = pytest.mark.parametrize("name", cases.NAMES)


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@EVERY
def test_tokens_and_positions_equal_hf(name):
    """Expansion of the placeholders and M-RoPE positions, exactly."""
    case = golden(name)
    np.testing.assert_array_equal(case.prompt.length, case.hf["length"])
    np.testing.assert_array_equal(case.prompt.tokens[case.real], case.hf["tokens"][case.real])
    positions = case.prompt.positions * case.real[:, None]
    np.testing.assert_array_equal(positions, case.hf["positions"])


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_vision_features_equal_hf(name):
    """Tokens and every deepstack feature of unequal images on one canvas."""
    case = golden(name)
    rows, count = case.images.shape[:2]
    seen = cases.compiled(vision.encode_images, case.config)(
        case.params["vision"],
        images=case.images.reshape(rows * count, *case.images.shape[2:]),
        grids=case.prompt.grids.reshape(rows * count, 2),
    )
    is_image = case.prompt.slot >= 0
    row, slot = np.nonzero(is_image)[0], case.prompt.slot[is_image]

    def placed(features):
        return np.asarray(features).reshape(rows, -1, features.shape[-1])[row, slot]

    np.testing.assert_allclose(placed(seen.tokens), case.hf["vision"], atol=TOLERANCE, rtol=0)
    assert len(seen.deepstack) == len(case.config.vision.deepstack)
    for feature, expected in zip(seen.deepstack, case.hf["deepstack"], strict=True):
        np.testing.assert_allclose(placed(feature), expected, atol=TOLERANCE, rtol=0)


@EVERY
def test_logits_of_prompts_and_answers_equal_hf(name):
    """Ragged rows with none to three images of unequal size, tied and untied, shallow and deep.

    Answers are scored whole against the shared prompt cache; HF generated them step by step.
    """
    prompts, answers = cases.deviations(golden(name))
    assert prompts < TOLERANCE
    assert answers < TOLERANCE


@pytest.mark.parametrize(("fsdp", "tensor"), [pytest.param(8, 1, marks=pytest.mark.slow), (4, 2)])
def test_logits_on_a_mesh_equal_hf(fsdp, tensor):
    """The 8B's shape with its weights split over eight devices."""
    case = golden("deep")
    mesh = make_mesh(MeshConfig(fsdp=fsdp, tensor=tensor))
    where = param_shardings(model_specs(case.config), mesh)
    split = replace(case, params=jax.device_put(case.params, where))
    assert len(split.params["blocks"]["wq"].sharding.device_set) == 8
    assert max(cases.deviations(split)) < TOLERANCE


@EVERY
def test_the_sampler_writes_hfs_64_greedy_tokens(name):
    """The rollout's own loop at temperature 0; a stop token that never comes, as told to HF."""
    case = golden(name)
    config = replace(case.config, eos_tokens=(-1,))
    steps = case.hf["greedy"].shape[1]
    assert steps == 64
    sample = jax.jit(
        make_sampler(config, group=2, max_tokens=steps, temperature=0.0),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    made = sample(case.params, case.prompt, case.images, jax.random.key(0))
    for answer in (0, 1):
        np.testing.assert_array_equal(made.tokens[:, answer], case.hf["greedy"])


@EVERY
def test_every_greedy_steps_logits_equal_hf(name):
    """Prompt cache and one token at a time, against HF's generate on a left-padded batch."""
    case = golden(name)
    logits = cases.decoded_logits(case)
    np.testing.assert_allclose(logits, case.hf["greedy_logits"], atol=TOLERANCE, rtol=0)


def gradient_gap(case: cases.Case, found: dict[str, np.ndarray]) -> dict[str, float]:
    """Distance to HF's gradient relative to its norm, by key, from the stored sketches."""
    keys = sorted(found)
    assert len(keys) == len(case.hf["gradient_norm"])
    stored = zip(keys, case.hf["gradient_sketch"], case.hf["gradient_norm"], strict=True)
    return {
        key: np.sqrt(np.square(sketch(key, found[key]) - theirs).mean()) / norm
        for key, theirs, norm in stored
    }


@pytest.mark.parametrize("name", ["tied", "untied", pytest.param("deep", marks=pytest.mark.slow)])
def test_every_parameters_gradient_equals_hf(name):
    """Of the mean log-likelihood of two answers per prompt: one shared encoding against HF's
    forward over repeated prompts."""
    case = golden(name)
    loglik, found = cases.gradients(case)
    np.testing.assert_allclose(loglik, case.hf["loglik"], atol=TOLERANCE)
    gaps = gradient_gap(case, found)
    worst = max(gaps, key=gaps.get)
    assert gaps[worst] < RELATIVE, (worst, gaps[worst])


def test_a_prompt_cache_without_gradient_is_seen():
    """The usual way to get this wrong: the answers' loss does not reach the prompt's pass."""
    case = golden("untied")

    def detached(params, prompt, images, answers, config):
        cache = qwen3vl.encode_prompt(params, config, prompt, images)
        return cases.cached_loglik(params, jax.lax.stop_gradient(cache), answers, config)

    _, found = cases.gradients(case, detached)
    gaps = gradient_gap(case, found)
    assert {key for key, gap in gaps.items() if gap < RELATIVE} == {"lm_head.weight"}


@EVERY
def test_bfloat16_deviates_as_hfs_own_bfloat16_does(name):
    """Statistical: see `bfloat16_excess`."""
    case = golden(name)
    excess, bound = bfloat16_excess(case)
    assert excess < bound, (excess, bound)


def bfloat16_excess(case: cases.Case) -> tuple[float, float]:
    """Our bfloat16 error over HF's, and the bound on it.

    Both errors are against HF's float32 logits, as mean squares over the vocabulary, per token. If
    ours rounds no more than HF's does, both are draws from one distribution over tokens; the ratio
    of two means of n such draws exceeds 1 by more than 3 c sqrt(2 / n) once in 700 times, c being
    the standard deviation over the mean of one draw, estimated from HF's.
    """
    config = replace(case.config, compute_dtype="bfloat16")
    run = cases.logits_of(config)
    narrow, _ = run(case.params, case.prompt, case.images, cases.two_answers(case))
    ours = np.square(np.asarray(narrow) - case.hf["logits"]).mean(-1)[case.real]
    theirs = np.square(case.hf["bfloat16_rms"])[case.real]
    spread = theirs.std() / theirs.mean()
    return ours.mean() / theirs.mean(), 1 + 3 * spread * np.sqrt(2 / len(theirs))


@pytest.mark.parametrize("mistake", [mistakes.swapped_axes, mistakes.flat_positions])
def test_bfloat16_sees_a_wrong_structure(mistake):
    """But not a wrong eps or GELU, which hide in its rounding: float32 is there for those."""
    excess, bound = bfloat16_excess(mistake(golden("untied")))
    assert excess > 3 * bound
