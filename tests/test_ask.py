"""A checkpoint answers about pictures from the command line; mistakes are said before it loads."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dig_jax import ask
from dig_jax.convert.__main__ import main
from tests.tiny_model import ASSETS

LENGTH = ["--max-tokens", "24"]


@pytest.fixture
def pictures(tmp_path):
    """Two PNGs of different sizes and modes, neither of whole cells."""
    rng = np.random.default_rng(0)
    paths = []
    for name, (height, width), mode in (("a", (70, 90), "RGB"), ("b", (50, 120), "L")):
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
        image.save(tmp_path / f"{name}.png")
        paths.append(str(tmp_path / f"{name}.png"))
    return paths


def answer(capsys, *args: str) -> str:
    ask.main(["--source", str(ASSETS), *LENGTH, *args])
    return capsys.readouterr().out.splitlines()[-1]  # before it a slow machine's progress


def test_two_pictures_of_different_sizes_get_an_answer_that_a_bucket_does_not_change(
    capsys, pictures
):
    """Greedy, so twice the same; the tiny base has only learned to write boxes."""
    exact = answer(capsys, *pictures)
    assert exact.startswith("[")
    assert answer(capsys, *pictures, "--bucket", "96x64:80", "--bucket", "160x96:160") == exact


@pytest.mark.slow
def test_an_import_on_four_devices_answers_as_the_folder_it_came_from(capsys, pictures, tmp_path):
    imported = str(tmp_path / "orbax")
    assert main(["import", "--source", str(ASSETS), "--out", imported]) == 0
    exact = answer(capsys, *pictures)
    ask.main(["--source", imported, "--devices", "4", *LENGTH, *pictures])
    assert capsys.readouterr().out.splitlines()[-1] == exact


def refused(*args: str) -> str:
    with pytest.raises(SystemExit) as stop:
        ask.main(["--source", str(ASSETS), *args])
    return str(stop.value)


def test_whatever_is_wrong_is_said_before_weights_are_read(monkeypatch, pictures, tmp_path):
    def load(*args):
        pytest.fail("weights were read")

    monkeypatch.setattr(ask, "read_weights", load)
    a, b = pictures
    assert refused(a, "gone.png") == "error: image gone.png does not exist"
    strip = tmp_path / "strip.png"
    Image.new("RGB", (900, 4)).save(strip)
    assert "strip.png, image 2 is 900x4 px" in refused(a, str(strip))
    assert "with 96x64 px, 128x48 px fits no bucket (160x96" in refused(
        a, b, "--bucket", "160x96:20"
    )
    assert "128x48 px fits no bucket (96x64 px, 120 tokens" in refused(
        a, b, "--bucket", "96x64:120"
    )
    assert "more than the model's context of 262144" in refused(a, "--max-tokens", "262144")
    shutil.copyfile(ASSETS / "config.json", tmp_path / "config.json")
    with pytest.raises(SystemExit, match=r"names no eos_token_id"):
        ask.main(["--source", str(tmp_path), a])


def changed_copy(tmp_path, name: str, change) -> str:
    """The shipped base with another `name`, whose JSON `change` alters in place."""
    folder = Path(shutil.copytree(ASSETS, tmp_path / "changed"))
    found = json.loads((folder / name).read_text())
    change(found)
    (folder / name).write_text(json.dumps(found))
    return str(folder)


def test_a_question_with_a_token_that_has_no_row_is_refused(pictures, tmp_path):
    """It would be read as the last row, whichever token it is; HF raises."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    token = {"id": 768, "content": "<differs>", **flags}
    folder = changed_copy(
        tmp_path, "tokenizer.json", lambda found: found["added_tokens"].append(token)
    )
    message = refused("--source", folder, *pictures, "--question", "What <differs>?")
    assert "has token '<differs>' with id 768, but the model's embedding has 768 rows" in message


def test_a_checkpoint_that_stops_at_endoftext_only_is_refused_as_a_run_refuses_it(
    pictures, tmp_path
):
    """Its answers would run on past <|im_end|> to --max-tokens."""
    folder = changed_copy(
        tmp_path, "generation_config.json", lambda found: found.update(eos_token_id=742)
    )
    message = refused("--source", folder, *pictures)
    assert "the tokenizer's eos_token is 744, but answers stop at [742]" in message


def test_a_picture_of_16_bits_is_answered_with_a_warning(capsys, pictures, tmp_path):
    """Hugging Face would show it all white, too, and say nothing (M8)."""
    values = np.linspace(300, 4095, 64 * 96).reshape(64, 96).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "depth.png")
    ask.main(
        ["--source", str(ASSETS), "--max-tokens", "1", pictures[0], str(tmp_path / "depth.png")]
    )
    told = capsys.readouterr().err
    assert "depth.png will not look as it should: its values are 300..4095" in told
    assert pictures[0] not in told


def test_a_malformed_bucket_is_refused_with_an_example(capsys):
    with pytest.raises(SystemExit):
        ask.parse_args(["--source", "x", "--bucket", "640"])
    assert "'640' is not WIDTHxHEIGHT:TOKENS, as 640x480:1024" in capsys.readouterr().err
