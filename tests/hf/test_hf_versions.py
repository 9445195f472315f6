"""Both spellings at work: transformers 4.57 and 5.x open an export, and we open what 4.57 wrote.

Needs torch, and transformers 4.57.6 in a folder of its own named by DIG_TRANSFORMERS_457:

    pip install --target DIR --no-deps transformers==4.57.6 'huggingface-hub<1' \
        'tokenizers>=0.22,<0.23' requests urllib3 charset-normalizer idna certifi
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from transformers import AutoTokenizer

from dig_jax.hf.export import copy_companions
from dig_jax.hf.weights import read_model_config, save_hf
from tests.model.parity_cases import GOLDEN, Case, case_of, golden, logits_of, two_answers
from tests.model.test_parity import TOLERANCE
from tests.tiny_model import ASSETS

CASES = ("tied", "untied")  # the deep one is not stored as a folder
OLDER = os.environ.get("DIG_TRANSFORMERS_457", "")
SCRIPT = Path(__file__).with_name("hf_logits.py")
TOKENS = Path(__file__).with_name("hf_tokens.py")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not OLDER, reason="DIG_TRANSFORMERS_457 names no folder of 4.57.6"),
]


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def by(release: str, *words: object, script: Path = SCRIPT) -> str:
    """What a script prints under the release of a folder, "" for the installed one."""
    env = {**os.environ, "PYTHONPATH": release}
    command = [sys.executable, str(script), *map(str, words)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def write_inputs(name: str, path: Path) -> np.ndarray:
    """HF's inputs of a golden case, by HF's own image processor; returns the attention mask."""
    pytest.importorskip("torch")
    from scripts.make import goldens

    case = goldens.CASES[name]()
    made = goldens.hf_inputs(case, goldens.make_ids(case), goldens.make_images(case))
    arrays = {key: value.numpy() for key, value in made.items() if key != "mm_token_type_ids"}
    np.savez(path, **arrays)
    return arrays["attention_mask"].astype(bool)


def real_logits(path: Path, mask: np.ndarray, version: str) -> np.ndarray:
    """f32[tokens, V] without the padding, once they are known to be that release's."""
    found = np.load(path)
    assert str(found["version"]).startswith(version)
    return found["logits"][mask]


def only_older_spelling(path: Path) -> None:
    top = json.loads(path.read_text())
    del top["text_config"]["rope_parameters"]
    path.write_text(json.dumps(top))


def our_logits(case: Case) -> np.ndarray:
    """f32[tokens, V] without the padding."""
    run = logits_of(case.config)
    prompts, _ = run(case.params, case.prompt, case.images, two_answers(case))
    return np.asarray(prompts)[case.real]


@pytest.mark.parametrize("name", CASES)
def test_an_export_has_the_same_logits_in_457_in_5_and_here(name, tmp_path):
    stored = golden(name)
    save_hf(tmp_path / "out", stored.params, stored.config, source_folder=GOLDEN / name)
    mask = write_inputs(name, tmp_path / "inputs.npz")
    logits = [our_logits(stored)]
    for release, version in ((OLDER, "4.57.6"), ("", "5.")):
        out = tmp_path / f"{version}.npz"
        by(release, "logits", tmp_path / "out", tmp_path / "inputs.npz", out)
        logits.append(real_logits(out, mask, version))
    for other in logits[1:]:
        print(f"{name}: largest difference {np.abs(other - logits[0]).max():.2g}")
        np.testing.assert_allclose(other, logits[0], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_what_457_wrote_is_read_with_equal_logits(name, tmp_path):
    stored = golden(name)
    save_hf(tmp_path / "out", stored.params, stored.config, source_folder=GOLDEN / name)
    only_older_spelling(tmp_path / "out" / "config.json")  # else it would be carried through
    by(OLDER, "resave", tmp_path / "out", tmp_path / "older")
    top = json.loads((tmp_path / "older" / "config.json").read_text())
    assert top["transformers_version"] == "4.57.6"
    assert "rope_scaling" in top["text_config"]
    assert "rope_parameters" not in top["text_config"]
    assert read_model_config(tmp_path / "older") == stored.config
    case = case_of(tmp_path / "older", stored.hf)
    np.testing.assert_array_equal(our_logits(case), our_logits(stored))


def test_an_export_of_a_folder_that_5_wrote_has_the_same_tokens_in_both(tmp_path):
    """What 5 wrote does not open in 4.57 itself: the class and a list have other names there."""
    source = Path(shutil.copytree(ASSETS, tmp_path / "source"))
    AutoTokenizer.from_pretrained(source).save_pretrained(source)
    with pytest.raises(AssertionError, match="TokenizersBackend does not exist"):
        by(OLDER, source, script=TOKENS)
    copy_companions(source, tmp_path)
    shutil.copy(ASSETS / "config.json", tmp_path)
    older, newer = (json.loads(by(release, tmp_path, script=TOKENS)) for release in (OLDER, ""))
    assert older.pop("version") == "4.57.6"
    assert newer.pop("version").startswith("5.")
    assert older == newer
