"""Live against torch: fresh random checkpoints, written by Hugging Face itself.

Needs the environment of scripts/parity.sh; everywhere else these tests are skipped and the stored
goldens of tests/model/test_parity.py stand in.
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from dig_jax.hf.weights import save_hf
from tests.model import parity_cases as cases
from tests.model.test_parity import RELATIVE, TOLERANCE

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")

from scripts.make import goldens  # noqa: E402 (imports torch)


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module", params=cases.NAMES)
def live(request, tmp_path_factory):
    """A case with another seed than the stored one, and HF's gradients in full."""
    folder = tmp_path_factory.mktemp(request.param)
    case = goldens.CASES[request.param]()
    case = dataclasses.replace(case, seed=case.seed + 50)
    model, found, gradients = goldens.compute(case)
    model.save_pretrained(folder, max_shard_size="600KB")
    assert (folder / "model.safetensors.index.json").is_file()
    return cases.case_of(folder, found), gradients


def test_logits_equal_torch(live):
    """Prompts, whole answers, and answers token by token along HF's 64 greedy tokens."""
    case, _ = live
    assert max(cases.deviations(case)) < TOLERANCE
    np.testing.assert_allclose(
        cases.decoded_logits(case), case.hf["greedy_logits"], atol=TOLERANCE, rtol=0
    )


def test_gradients_equal_torch(live):
    """Of every parameter, entry by entry, relative to the parameter's gradient norm."""
    case, theirs = live
    loglik, ours = cases.gradients(case)
    np.testing.assert_allclose(loglik, case.hf["loglik"], atol=TOLERANCE)
    assert ours.keys() == theirs.keys()
    for key, gradient in theirs.items():
        gap = np.linalg.norm(ours[key] - gradient) / np.linalg.norm(gradient)
        assert gap < RELATIVE, (key, gap)


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_an_export_generates_the_same_tokens_in_transformers(name, tmp_path):
    """import -> export -> HF: greedy tokens as our own decoding, logits bit for bit HF's."""
    from transformers import Qwen3VLForConditionalGeneration

    stored = cases.golden(name)
    source = cases.GOLDEN / name
    save_hf(tmp_path / "out", stored.params, stored.config, source_folder=source)
    load = partial(
        Qwen3VLForConditionalGeneration.from_pretrained,
        dtype=torch.float32,
        attn_implementation="eager",
    )
    case = goldens.CASES[name]()
    inputs = goldens.hf_inputs(case, goldens.make_ids(case), goldens.make_images(case))
    before, after = (
        goldens.answers_of(load(folder).eval(), inputs)
        for folder in (Path(source), tmp_path / "out")
    )
    np.testing.assert_array_equal(before["logits"], after["logits"])
    np.testing.assert_array_equal(after["greedy"], stored.hf["greedy"])
