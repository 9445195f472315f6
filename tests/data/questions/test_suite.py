"""A folder of questions is read as the benchmarks are, is whole or absent, and apart."""

import dataclasses
import json
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet
import pytest

from dig_jax.benchmarks.questions import read_questions
from dig_jax.common.files import NoRoom
from dig_jax.data import __main__ as verbs
from dig_jax.data import records
from dig_jax.data.questions import files, gather, suite
from dig_jax.data.questions.formats import TABLES
from dig_jax.data.questions.kinds import KINDS
from dig_jax.inputs.picture_files import upright_size
from dig_jax.lessons.shown import read_things, things_of
from tests.corpora import plain_pair, write_split
from tests.data.questions.planned import LOOK, pair_of, plan_of, planned

PAIRS = 24
NAMES = tuple(dict.fromkeys(table.benchmark for table in TABLES))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_split(root, "test_mixed", [planned(i) for i in range(PAIRS)])
    write_split(root, "single", [planned(i) for i in range(PAIRS, PAIRS + 20)])
    return root


@pytest.fixture(scope="module")
def out(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("suite") / "questions"
    assert verbs.main(["questions", "--root", str(root), "--out", str(out)]) == 0
    return out


def told_rows(out):
    """asked.jsonl by benchmark."""
    found = {name: [] for name in NAMES}
    for line in (out / suite.ASKED).read_text().splitlines():
        told = json.loads(line)
        found[told["file"].partition("/")[0]].append(told)
    return found


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def failure(capsys, *arguments) -> str:
    assert verbs.main(["questions", *map(str, arguments)]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_the_readers_of_the_benchmarks_read_it(out, name):
    questions, _ = read_questions(out, name)
    assert len(questions) > 10
    for question in questions:
        (picture,) = question.pictures
        width, height = upright_size(picture.read())
        assert height == LOOK.height
        assert width in (LOOK.width, 2 * LOOK.width + LOOK.width // 32)


def test_a_reader_finds_the_answers_that_were_meant(out):
    told = told_rows(out)
    for name in ("cvbench", "vstar", "mmvp"):
        questions, _ = read_questions(out, name)
        assert len(questions) == len(told[name])
        for question, row in zip(questions, told[name], strict=True):
            meant = question.options["ABCD".index(question.target)]
            assert meant.lower() == row["answer"].lower()
            assert row["text"] in question.prompt
    statements, _ = read_questions(out, "vsr")
    labels = {"1": "yes", "0": "no"}
    assert [q.target for q in statements] == [labels[row["answer"]] for row in told["vsr"]]
    asked = {(row["picture"], row["idx"], row["text"]): row["answer"] for row in told["pope"]}
    questions, _ = read_questions(out, "pope")
    assert len(questions) == len(asked)
    assert Counter(q.target for q in questions) == Counter(asked.values())
    assert all(q.groups["track"] for q in questions)


def test_boxes_are_those_of_the_masks_in_thousandths(out):
    questions, _ = read_questions(out, "refcoco_val")
    rows = pyarrow.parquet.read_table(out / "refcoco_val" / "val-00000-of-00001.parquet")
    targets = []
    for told, row in zip(told_rows(out)["refcoco_val"], rows.to_pylist(), strict=True):
        mask = getattr(planned(told["idx"]), f"mask_{told['picture']}")
        y, x = np.nonzero(mask == told["things"][0])
        corners = x.min(), y.min(), x.max() + 1, y.max() + 1
        assert row["bbox"] == [*corners[:2], corners[2] - corners[0], corners[3] - corners[1]]
        sides = np.array([LOOK.width, LOOK.height] * 2)
        targets += [1000 * np.array(corners) / sides] * len(row["answer"])
    assert len(questions) == len(targets)
    for question, target in zip(questions, targets, strict=True):
        np.testing.assert_allclose(question.target, target, atol=1e-3)


def test_what_every_picture_shows_is_found_by_its_questions_and_boxes_what_they_box(out):
    """By a file's name and by its bytes; an expression's box is that of one of its things."""
    known = read_things(str(out))
    for name in NAMES:
        if name != "mmvp":
            assert all(things_of(q.pictures, known) for q in read_questions(out, name)[0])
    for question in read_questions(out, "refcoco_val")[0]:
        boxes = [1000 * one.box for one in things_of(question.pictures, known)]
        assert any(np.allclose(box, question.target, atol=1e-3) for box in boxes)


def test_a_folder_without_what_its_pictures_show_has_none_of_it(tmp_path):
    assert read_things(str(tmp_path)) == {}


def test_pictures_are_the_records_own_bytes(root, out):
    shard = records.open_split(root / "test_mixed")[0]
    stored = [records.unpack(record) for record in records.read_shard(shard)]
    rows = pyarrow.parquet.read_table(out / "vstar" / "test-00000-of-00001.parquet").to_pylist()
    for told, row in zip(told_rows(out)["vstar"], rows, strict=True):
        assert row["image"]["bytes"] == stored[told["idx"]][f"image_{told['picture']}"]
        assert row["image"]["path"] == f"test_mixed-{told['idx']:06d}-{told['picture']}.png"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.path)
def test_files_have_the_columns_of_their_format(out, table):
    if not table.columns:
        names = [set(json.loads(line)) for line in (out / table.path).read_text().splitlines()]
        assert {"image", "caption", "label", "relation", "subj", "obj"} <= set.intersection(*names)
        return
    schema = pyarrow.parquet.read_schema(out / table.path)
    assert schema.names == list(table.columns)
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert list(features) == schema.names


def test_datasets_opens_a_table_with_pictures(out, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(
        "parquet",
        data_files=str(out / "refcoco_val" / "*.parquet"),
        split="train",
        cache_dir=str(tmp_path),
    )
    assert rows[0]["image"].size == (LOOK.width, LOOK.height)
    assert len(rows[0]["bbox"]) == 4


def test_two_rows_of_mmvp_ask_one_thing_with_two_answers(out):
    rows = pyarrow.parquet.read_table(out / "mmvp" / "train-00000-of-00001.parquet").to_pylist()
    assert [row["Index"] for row in rows] == list(range(1, len(rows) + 1))
    for row, told in zip(rows, told_rows(out)["mmvp"], strict=True):
        assert row["image"]["path"] == f"test_mixed-{told['idx']:06d}-{told['picture']}.png"
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert (one["Question"], one["Options"]) == (other["Question"], other["Options"])
        assert {one["Correct Answer"], other["Correct Answer"]} == {"(a)", "(b)"}
        assert one["image"]["bytes"] != other["image"]["bytes"]


def test_what_a_kill_left_is_gone_after_the_next_run(root, out, tmp_path):
    for end in ("partial", "old"):
        (tmp_path / f".again.{end}").mkdir()
        (tmp_path / f".again.{end}" / "half").write_text("of a table")
    suite.make(root, tmp_path / "again", splits=["test_mixed"], seed=0)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["again"]  # and the lock
    assert contents(tmp_path / "again") == contents(out)


def test_equal_arguments_give_equal_bytes_and_another_seed_others(root, out, tmp_path):
    splits = ["test_mixed"]
    suite.make(root, tmp_path / "again", splits=splits, seed=0)
    assert contents(tmp_path / "again") == contents(out)
    suite.make(root, tmp_path / "other", splits=splits, seed=1)
    assert contents(tmp_path / "other")[suite.ASKED] != contents(out)[suite.ASKED]


def test_the_manifest_tells_what_is_there(root, out):
    told = json.loads((out / suite.MANIFEST).read_text())
    assert told["splits"]["test_mixed"]["pairs"] == PAIRS
    assert told["apart_from"] == [str(root / "single")]
    for table in TABLES:
        values = told["tables"][table.path]["values"]
        asked = [row for row in told_rows(out)[table.benchmark] if row["file"] == table.path]
        twice = 2 if table.benchmark == "mmvp" else 1
        assert sum(values.values()) * twice == len(asked)
    assert suite.check(out, (root,)) == []


def test_an_altered_a_lost_and_a_foreign_file_are_named(root, tmp_path, capsys):
    made, path = tmp_path / "q", tmp_path / "q" / "vsr" / "test.jsonl"
    arguments = ["--root", root, "--out", made]
    assert verbs.main(["questions", *map(str, arguments)]) == 0
    path.write_bytes(path.read_bytes().replace(b"left of", b"right of", 1))
    next((made / "vsr" / "images").iterdir()).unlink()
    (made / "pope" / "mine.parquet").touch()
    found = suite.check(made, ())
    assert len(found) == 3
    assert sum("is not what was written" in text for text in found) == 2
    assert any("is gone" in text for text in found)
    assert verbs.main(["questions", "--check", str(made)]) == 1
    again = ["questions", *map(str, arguments), "--overwrite"]  # as the message advises
    assert verbs.main(again) == 0
    assert verbs.main(["questions", "--check", str(made), "--apart", str(root)]) == 0
    for text, told in (
        ("{", "is not valid JSON"),
        ("{}", "questions.json: files=None is not {file: digest}; make them again"),
        ('{"files": {}}', "questions.json: pictures=None is not a list; make them again"),
    ):
        (made / suite.MANIFEST).write_text(text)
        assert told in failure(capsys, "--check", made)
    assert verbs.main(again) == 0
    assert suite.check(made, ()) == []


def test_training_splits_are_asked_about_only_when_told(root, tmp_path, capsys):
    arguments = ["--root", root, "--out", tmp_path / "q", "--splits", "single"]
    said = failure(capsys, *arguments)
    assert "--splits='single' is trained on" in said
    assert "--allow-training" in said
    assert not (tmp_path / "q").exists()
    assert verbs.main(["questions", *map(str, arguments), "--allow-training"]) == 0


def test_a_root_of_training_splits_alone_is_refused(tmp_path, capsys):
    write_split(tmp_path, "single", [planned(i) for i in range(20)])
    said = failure(capsys, "--root", tmp_path, "--out", tmp_path / "q")
    assert "holds no held-out split" in said
    named = ["--splits", "single", "--allow-training"]
    arguments = ["--root", tmp_path, "--out", tmp_path / "q", *named]
    assert verbs.main(["questions", *map(str, arguments)]) == 0


def swapped(pair):
    """The pair with its pictures exchanged, as augmentation does."""
    meta = {**pair.meta, "a": pair.meta["b"], "b": pair.meta["a"]}
    images = {"image_a": pair.image_b, "image_b": pair.image_a}
    masks = {"mask_a": pair.mask_b, "mask_b": pair.mask_a}
    new = dataclasses.replace(pair, **images, **masks, meta=meta)
    meta["pixels"] = records.pixel_hashes(new)
    return new


def rerendered(pair):
    """The same scenes by another renderer: other pixels."""
    new = dataclasses.replace(pair, image_a=255 - pair.image_a, image_b=255 - pair.image_b)
    new.meta["pixels"] = records.pixel_hashes(new)
    return new


def imported(pair):
    """The same pictures, of which nothing is known but boxes."""
    meta = {"differences": [], "width": LOOK.width, "height": LOOK.height}
    return records.Pair(pair.image_a, pair.image_b, None, None, meta)


@pytest.mark.parametrize("disguise", [swapped, rerendered, imported])
def test_scenes_that_were_trained_on_are_refused(root, out, tmp_path, capsys, disguise):
    """However they came into the training split; pairs 8 (one camera) and 9 (two)."""
    some = [disguise(pair_of(_plan(planned(index)))) for index in (8, 9)]
    others = [planned(index) for index in range(PAIRS, PAIRS + 3)]
    name = "mine" if disguise is imported else "mixed"
    write_split(tmp_path / "trained", name, [*others, *some])
    arguments = ["--root", root, "--out", tmp_path / "q", "--apart", tmp_path / "trained"]
    said = failure(capsys, *arguments)
    assert f"are trained on in {tmp_path / 'trained' / name} (2 pairs)" in said
    assert not (tmp_path / "q").exists()
    found = suite.check(out, (tmp_path / "trained",))
    assert len(found) == 1
    assert "(2 pairs) shows pictures that these questions are about" in found[0]
    write_split(tmp_path / "other", name, others)  # train on others
    assert suite.check(out, (tmp_path / "other",)) == []


def _plan(pair):
    return plan_of(
        pair.meta["idx"],
        seed=pair.meta["seed"],
        camera_jitter_b=0.1 if pair.meta["camera_b"] else 0.0,
    )


def test_what_is_there_is_replaced_only_when_told_and_nothing_else_ever(
    root, out, tmp_path, capsys
):
    assert "--overwrite" in failure(capsys, "--root", root, "--out", out)
    (tmp_path / "note.txt").write_text("mine")
    said = failure(capsys, "--root", root, "--out", tmp_path, "--overwrite")
    assert "holds no questions made here" in said
    assert (tmp_path / "note.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    suite.make(root, tmp_path / "empty", splits=["test_mixed"], seed=0)
    assert suite.check(tmp_path / "empty", ()) == []


def test_a_full_disk_leaves_nothing_behind_and_what_was_there_as_it_was(
    root, tmp_path, monkeypatch
):
    made = tmp_path / "q"
    suite.make(root, made, splits=["test_mixed"], seed=0)
    before = contents(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_lines", full)
    for target in (made, tmp_path / "new"):
        with pytest.raises(NoRoom, match="free some space"):
            suite.make(root, target, splits=["test_mixed"], seed=1, overwrite=True)
    assert contents(tmp_path) == before


def test_imported_and_inconsistent_records_are_named_and_rendered_ones_do(tmp_path, capsys):
    write_split(tmp_path / "plain", "heldout", [plain_pair((1, 1, 9, 9))])
    said = failure(capsys, "--root", tmp_path / "plain", "--out", tmp_path / "q")
    assert "record 0 was imported and has no plan" in said
    wrong = dataclasses.replace(planned(1), mask_a=planned(2).mask_a)
    write_split(tmp_path / "wrong", "heldout", [planned(0), wrong])
    said = failure(capsys, "--root", tmp_path / "wrong", "--out", tmp_path / "q")
    assert "record 1: mask_a of test_mixed 1 differs from its plan" in said
    assert not (tmp_path / "q").exists()
    shutil.rmtree(tmp_path / "wrong")
    words = "--split heldout --pairs 12 --k 1 --k-max 4 --workers 1".split()
    words += "--set look.renderer=numpy --set look.width=96 --set look.height=64".split()
    assert verbs.main(["render", "--root", str(tmp_path / "wrong"), *words]) == 0
    corpus = gather.survey(tmp_path / "wrong", ["heldout"], None)
    found = gather.offers(corpus, 0)
    assert all(len(found[kind]) > 5 for kind in KINDS)


def test_too_few_pairs_are_refused_and_more_of_them_do(root, tmp_path, capsys):
    arguments = ["--root", root, "--out", tmp_path / "q", "--pairs", 1]
    assert "give no balanced questions for" in failure(capsys, *arguments)
    assert verbs.main(["questions", *map(str, arguments[:-1]), str(PAIRS)]) == 0


def test_a_folder_must_be_named(root, out, tmp_path, capsys):
    assert "--out=None is missing" in failure(capsys, "--root", root)
    assert "has no questions.json; name a folder of questions" in failure(
        capsys, "--check", tmp_path
    )
    assert verbs.main(["questions", "--check", str(out)]) == 0
