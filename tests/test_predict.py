"""predict: any two pictures, or a folder of pairs, become boxes, a drawing, JSON and a status."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from dig_jax import ask, predict
from dig_jax.config import (
    Config,
    DataConfig,
    EvalConfig,
    ModelSource,
    PromptConfig,
    RolloutConfig,
)
from dig_jax.engine.loop import Answered
from dig_jax.hf import weights
from dig_jax.inputs.pair_files import PairFiles, difference, find_pairs, read_pair
from dig_jax.inputs.prompt import encode_answer
from dig_jax.pictures.drawing import GAP, MARGIN, PRED
from dig_jax.pictures.prediction import prediction_sheet
from dig_jax.run import best
from dig_jax.run.policy import Policy
from tests import ROOT
from tests.convert.test_convert import save, seeded
from tests.tiny_model import ASSETS, small_base

EXAMPLE = [ROOT / "dig_jax" / "serve" / f"example_{side}.png" for side in "ab"]
SOURCE = ["--source", str(ASSETS), "--max-pixels", "6144"]
TWO = '[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [500, 600, 700, 800]}]'
SIDEWAYS = 6  # EXIF: to be turned clockwise by a quarter


def picture(path, size, color=(200, 30, 60), mode="RGB", orientation=None):
    """A picture file with a mark in its upper left quarter, as it is seen."""
    image = Image.new("RGB", size, color)
    image.paste((255, 255, 255), (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    if orientation == SIDEWAYS:
        exif[0x0112] = orientation
        image = image.rotate(90, expand=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path, exif=exif)
    return path


@pytest.fixture
def shots(tmp_path):
    """A folder of three pairs: the example, a phone's pictures, and screenshots of two sizes."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for side, path in zip("ab", EXAMPLE, strict=True):
        shutil.copyfile(path, folder / f"cubes_{side}.png")
        picture(folder / "phone" / f"{side}.JPG", (120, 90), orientation=SIDEWAYS)
    picture(folder / "screen_a.png", (300, 200), mode="RGBA")
    picture(folder / "screen_b.webp", (160, 100))
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".DS_Store").write_bytes(b"")
    return folder


@pytest.fixture
def answering(monkeypatch):
    """A function that sets what every pair is answered, instead of a model; weights stay unread."""
    monkeypatch.setattr(Policy, "load", lambda self: pytest.fail("weights were read"))

    def answer_with(*texts, ended=True):
        def answers(args, policy, questions):
            for number, group in enumerate(questions.groups):
                ids = encode_answer(policy.processor, texts[number % len(texts)])
                ids = ids if ended else ids[:-1]
                yield Answered(group.name, np.array(ids), np.zeros(len(ids)), ended)

        monkeypatch.setattr(predict, "answers", answers)

    return answer_with


def told(capsys, *args, status=0):
    """The JSON rows that a call prints."""
    assert predict.main([*SOURCE, "--json", *map(str, args)]) == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
def test_a_folder_is_answered_together_and_each_pair_as_ask_answers_it(shots, tmp_path, capsys):
    """Token for token; the base has learned to box such renders, and boxes both differences."""
    short = ["--max-tokens", "38"]
    out = tmp_path / "out"
    assert predict.main([*SOURCE, *short, "--json", str(shots), "--out", str(out)]) in (0, 3)
    said = capsys.readouterr()
    rows = {row["pair"]: row for row in map(json.loads, said.out.splitlines())}
    assert set(rows) == {"cubes", "phone", "screen"}
    assert len(rows["cubes"]["boxes"]) == 2
    assert "pairs: 3/3 answered" in said.err
    assert {path.name for path in out.iterdir()} == {
        f"{n}.{s}" for n in rows for s in ("png", "json")
    }
    assert json.loads((out / "phone.json").read_text()) == rows["phone"]
    for name in ("cubes", "screen"):
        ask.main([*SOURCE, *short, rows[name]["a"], rows[name]["b"]])
        assert capsys.readouterr().out.rstrip("\n") == rows[name]["answer"]


def test_boxes_are_told_in_thousandths_and_in_pixels_of_the_second_picture(
    answering, shots, tmp_path, capsys
):
    answering(TWO)
    out = tmp_path / "boxes.png"
    a, b = shots / "screen_a.png", shots / "screen_b.webp"
    (row,) = told(capsys, a, b, "--out", out)
    assert (row["size_a"], row["size_b"]) == ([300, 200], [160, 100])
    assert row["boxes"] == [[100, 200, 300, 400], [500, 600, 700, 800]]
    assert np.allclose(row["boxes_px"], [[16, 20, 48, 40], [80, 60, 112, 80]])
    assert (row["answer"], row["verdict"], row["readable"]) == (TWO, "ok", True)
    assert row["ended"] is True
    assert row["warnings"] == []
    with Image.open(out) as drawn:
        assert drawn.width > 3 * 384


def test_a_phones_picture_is_seen_and_measured_upright(answering, shots, capsys):
    answering(TWO)
    phone = shots / "phone"
    (row,) = told(capsys, phone / "a.JPG", phone / "b.JPG")
    assert row["size_b"] == [120, 90]
    pictures, _ = read_pair(PairFiles("phone", phone / "a.JPG", phone / "b.JPG"))
    assert pictures[0][:20, :20].min() > 240


@pytest.mark.parametrize(
    ("text", "ended", "status", "verdict"),
    [
        ("[]", True, 0, "ok"),
        (f"Here: {TWO}", True, 0, "extra_text"),
        ("They are the same.", True, 3, "no_json"),
        ('[{"bbox_2d": [1', False, 3, "unclosed"),
    ],
)
def test_the_status_says_whether_an_answer_was_read(
    answering, capsys, text, ended, status, verdict
):
    answering(text, ended=ended)
    (row,) = told(capsys, *EXAMPLE, status=status)
    assert (row["verdict"], row["readable"]) == (verdict, status == 0)
    assert predict.main([*SOURCE, *map(str, EXAMPLE)]) == status
    assert text in capsys.readouterr().out


def test_one_answer_that_is_not_read_shows_in_the_status_of_a_folder(answering, shots, capsys):
    answering(TWO, "nothing")
    rows = told(capsys, shots, status=3)
    assert [row["readable"] for row in rows] == [True, False, True]


def test_deep_greys_are_named_and_answered(answering, tmp_path, capsys):
    answering("[]")
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((40, 60), 3000, np.uint16)).save(deep)
    assert predict.main([*SOURCE, "--json", str(deep), str(EXAMPLE[1])]) == 0
    said = capsys.readouterr()
    assert f"warning: {deep} will not look as it should" in said.err
    assert "3000" in json.loads(said.out)["warnings"][0]


def refused(capsys, *args):
    assert predict.main([*SOURCE, *map(str, args)]) == 1
    return capsys.readouterr().err


def test_what_is_no_pair_is_refused_by_name_and_the_remedy_helps(answering, shots, capsys):
    answering("[]")
    extra = picture(shots / "extra.png", (40, 40))
    assert f"{extra} is no picture of a pair; pairs are X_a.png" in refused(capsys, shots)
    extra.unlink()
    inside = picture(shots / "phone" / "c.png", (40, 40))
    assert f"{inside} is no picture of a pair" in refused(capsys, shots)
    inside.unlink()
    double = picture(shots / "cubes_a.jpg", (40, 40))
    assert f"{double} and {shots / 'cubes_a.png'} are both picture a" in refused(capsys, shots)
    double.unlink()
    alone = picture(shots / "alone_b.png", (40, 40))
    assert f"{alone} is picture b of pair 'alone', which has no picture a" in refused(capsys, shots)
    picture(shots / "alone_a.png", (40, 40))
    assert len(told(capsys, shots)) == 4
    assert [pair.name for pair in find_pairs(shots)] == ["alone", "cubes", "phone", "screen"]


def test_other_wrong_input_is_refused_before_weights_are_read(answering, shots, tmp_path, capsys):
    answering("[]")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"folder {empty} holds no pictures" in refused(capsys, empty)
    assert f"folder {tmp_path / 'gone'} does not exist; name one" in refused(
        capsys, tmp_path / "gone"
    )
    assert "image gone.png does not exist" in refused(capsys, "gone.png", EXAMPLE[0])
    broken = tmp_path / "broken.png"
    broken.write_bytes(EXAMPLE[0].read_bytes()[:3000])
    assert f"{broken} is not a picture that Pillow can read" in refused(capsys, broken, EXAMPLE[0])
    strip = picture(tmp_path / "strip.png", (900, 4))
    assert f"{strip} is 900x4 px" in refused(capsys, strip, EXAMPLE[0])
    double = refused(capsys, strip, EXAMPLE[0], "--out", strip)
    assert f"--out {strip} is one of the pictures; name another file" in double
    within = refused(capsys, *EXAMPLE, "--out", broken / "boxes.png")
    assert str(broken) in within
    far = refused(capsys, *EXAMPLE, "--max-tokens", "262144")
    assert "lower --max-pixels or --max-tokens" in far
    assert f"lies in {shots}" in refused(capsys, shots, "--out", shots / "boxes")
    assert len(told(capsys, shots, "--out", tmp_path / "boxes", "--max-tokens", "9")) == 3


def test_a_run_is_asked_what_it_was_trained_on(tmp_path, monkeypatch, capsys):
    """Its question, its length of an answer, its limit of a picture; newest or best weights."""
    base, folder = tmp_path / "base", tmp_path / "run"
    weights.save_hf(base, seeded(0), small_base(), source_folder=ASSETS)
    cfg = Config(
        name="mine",
        run_dir=str(folder),
        model=ModelSource(source=str(base)),
        prompt=PromptConfig("What is new here?"),
        data=DataConfig(image_width=96, image_height=64, max_pixels=6144),
        rollout=RolloutConfig(max_tokens=33),
        eval=EvalConfig(every=2),
    )
    save(cfg, 3, seed=3)
    best.BestKeeper(cfg, 3).offer(4, {"sampled/reward": 1.0}, seeded(9))
    seen = []

    def answers(args, policy, questions):
        (group,) = questions.groups
        (asked,) = group.asked
        norm = np.asarray(policy.load()["norm"])
        seen.append(
            (policy.processor.tokenizer.decode(asked.suffix), asked.most, group.sizes, norm)
        )
        ids = np.array(encode_answer(policy.processor, "[]"))
        yield Answered(group.name, ids, np.zeros(len(ids)), True)

    monkeypatch.setattr(predict, "answers", answers)
    for more, seed in ([], 3), (["--from-best"], 9):
        given = ["--run", str(folder), *more, *map(str, EXAMPLE)]
        assert predict.main(given) == 0
        question, most, sizes, norm = seen.pop()
        assert "What is new here?" in question
        assert (most, sizes) == (33, [(64, 96)] * 2)
        assert np.array_equal(norm, seeded(seed)["norm"])
    assert predict.main([*given, "--max-tokens", "5", "--question", "And now?"]) == 0
    assert "And now?" in seen[0][0]
    assert seen[0][1] == 5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (EXAMPLE[:1], "alone is no pair; give a second picture"),
        ([*EXAMPLE, EXAMPLE[0]], "give two pictures, or one folder of pairs"),
        ([*EXAMPLE, "--from-best"], "--from-best is of a run; give --run RUN"),
        ([*EXAMPLE, "--out", "boxes.jpg"], "end its name in .png"),
    ],
)
def test_a_wrong_request_ends_with_status_2(args, message, capsys):
    with pytest.raises(SystemExit) as stop:
        predict.main([*SOURCE, *map(str, args)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_boxes_are_drawn_in_the_frame_of_each_picture():
    grey = [np.full((300, 400, 3), 128, np.uint8), np.full((600, 400, 3), 128, np.uint8)]
    box = np.array([[0.25, 0.25, 0.75, 0.75]])
    sheet = prediction_sheet(
        [("A", grey[0]), ("B", grey[1])], box, heat=("d", grey[1]), title="t", text="x" * 5000
    )
    red = (np.asarray(sheet) == [int(PRED[n : n + 2], 16) for n in (1, 3, 5)]).all(-1)
    columns = np.flatnonzero(red.sum(0) > 200)  # upright edges
    starts = [MARGIN, MARGIN + 600 + GAP, MARGIN + 1000 + 2 * GAP]  # of pictures 600, 400, 400 wide
    for start, wide in zip(starts, (600, 400, 400), strict=True):
        for edge in (start + wide / 4, start + 3 * wide / 4):
            assert np.abs(columns - edge).min() < 2


def test_the_difference_of_two_sizes_is_that_of_the_second():
    a, b = np.zeros((20, 30, 3), np.uint8), np.full((40, 60, 3), 7, np.uint8)
    b[..., 2] = 90
    found = difference([a, b])
    assert found.shape == (40, 60)
    assert (found == 90).all()
