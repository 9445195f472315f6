"""The verbs list and questions: what is there is told, what is asked can be answered anywhere."""

import io
import json
import shutil

import pytest
from PIL import Image

from dig_jax.benchmark.__main__ import VERBS, main
from dig_jax.benchmarks import catalog
from dig_jax.benchmarks.questions import OURS, read_questions
from dig_jax.inputs.picture_files import upright_size
from scripts.make.benchmark_files import picture, put
from tests.benchmarks.test_readers import FILES, HUB, TSV


def line_of(text, name):
    return next(line for line in text.splitlines() if line.split()[:1] == [name])


def questions(root, name, out, *more):
    return main(["questions", "--root", str(root), "--name", name, "--out", str(out), *more])


def rows_in(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_root_that_is_not_there_is_told_and_an_empty_one_listed(tmp_path, capsys):
    root = tmp_path / "root"
    assert main(["list", "--root", str(root)]) == 1
    assert f"--root {root} is no folder; make it" in capsys.readouterr().err
    root.mkdir()
    assert main(["list", "--root", str(root)]) == 0
    assert "mmbench_v11: copy MMBench_DEV_EN_V11.tsv into" in capsys.readouterr().out


def test_list_tells_of_each_whether_it_is_there_and_how_to_get_it(capsys):
    assert main(["list", "--root", str(HUB)]) == 0
    text = capsys.readouterr().out
    assert line_of(text, "mmbench").split() == [
        "mmbench", "parquet", "9", "4329/4377", "lmms-lab/MMBench", "Apache-2.0"
    ]  # fmt: skip
    assert line_of(text, "vsr").split()[1:4] == ["-", "-", "1222"]
    assert "vsr: hf download cambridgeltl/vsr_zeroshot" in text
    assert "and the pictures of COCO's train2017 and val2017 into" in text
    assert "hf download lmms-lab/POPE" not in text  # it is there
    assert all(line_of(text, name) for name in catalog.NAMES)
    assert max(map(len, text.partition("\n\n")[0].splitlines())) <= 100


def test_list_checks_what_it_is_asked_to_read(tmp_path, capsys):
    for name in ("refcoco", "mme"):
        shutil.copytree(HUB / name, tmp_path / name)
    command = ["list", "--root", str(tmp_path), "--suite", "refcoco_val,mme", "--check"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert line_of(text, "refcoco_val").split()[2] == "6"  # expressions of 4 rows
    assert "refcoco_val: RefCOCO val has 6 rows where the standard has 10834" in text
    path = tmp_path / "mme/data/test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:5000])
    assert main(command) == 1
    text = capsys.readouterr().out
    assert "mme: " in text
    assert "cannot be read" in text
    assert line_of(text, "refcoco_val").split()[2] == "6"
    assert main(["list", "--root", str(tmp_path), "--suite", "mme"]) == 1  # its header is gone


@pytest.mark.parametrize("more", [[], ["--check"]], ids=["rows", "check"])
def test_list_tells_which_counts_are_known_and_why(more, capsys):
    assert main(["list", "--root", str(HUB), "--suite", "pope", *more]) == 0
    text = capsys.readouterr().out
    assert line_of(text, "pope").split()[2:4] == ["12", "9000/8910"]
    assert "8,910 where the random track is that of before October 2023, with 2,910" in text


def test_questions_of_ours_are_not_held_against_the_real_ones(tmp_path, capsys):
    """`data questions` marks its root; scenes of its own are no part of CV-Bench's sources."""
    shutil.copytree(HUB / "cvbench", tmp_path / "cvbench")
    (tmp_path / OURS).write_text("{}")
    for more in ([], ["--check"]):
        assert main(["list", "--root", str(tmp_path), "--suite", "cvbench", *more]) == 0
        text = capsys.readouterr().out
        assert "standard" not in text
        assert "is known with" not in text
        assert "is one of the two files missing" not in text
    assert "cvbench: CV-Bench's form alone: questions about rendered scenes" in text


def test_a_picture_that_was_cut_off_is_named_and_mended_by_another_download(tmp_path, capsys):
    """Its header is whole, so that only who opens it sees it."""
    shutil.copytree(FILES / "vsr", tmp_path / "vsr")
    shutil.copytree(HUB / "vstar", tmp_path / "vstar")
    path = sorted((tmp_path / "vsr/images").iterdir())[0]
    whole = path.read_bytes()
    file = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(file, "JPEG")
    path.write_bytes(file.getvalue()[: file.tell() // 2])
    assert upright_size(path.read_bytes()) == (64, 64)
    command = ["list", "--root", str(tmp_path), "--suite", "vsr,vstar"]
    assert main(command) == 0  # rows alone
    capsys.readouterr()
    assert main([*command, "--check"]) == 1
    text = capsys.readouterr().out
    told = f"{path}: its picture is damaged (image file is truncated"
    assert f"vsr: 1 of 2 pictures cannot be opened; the first: {tmp_path}/vsr/test.jsonl" in text
    assert told in text
    assert "is it cut off or damaged? download it again" in text
    assert line_of(text, "vsr").split()[1:3] == ["jsonl", "3"]
    assert "vstar: 4/4 pictures" in text
    path.write_bytes(whole)  # as advised
    assert main([*command, "--check"]) == 0


@pytest.mark.parametrize(("root", "name"), [(HUB, "pope"), (TSV, "mmbench"), (FILES, "vstar")])
def test_questions_can_be_answered_from_their_file_alone(tmp_path, capsys, root, name):
    out = tmp_path / "asked" / "q.jsonl"
    assert questions(root, name, out) == 0
    wanted = read_questions(root, name)[0]
    rows = rows_in(out)
    assert [(row["id"], row["prompt"]) for row in rows] == [(q.id, q.prompt) for q in wanted]
    assert all(set(row) == {"id", "prompt", "pictures"} for row in rows)
    for row, question in zip(rows, wanted, strict=True):
        (path,) = row["pictures"]
        assert (out.parent / path).read_bytes() == question.pictures[0].read()
    written = list((out.parent / "q_pictures").glob("*"))
    assert len(written) == (0 if root is FILES else len({q.pictures[0].key for q in wanted}))
    assert all(path.suffix == ".png" for path in written)
    told = capsys.readouterr()
    assert f"{len(rows)} questions" in told.out
    assert f"score --root {root} --name {name} --answers" in told.out
    assert "where the standard has" in told.err


def test_the_answers_to_what_was_written_are_scored_by_the_command_that_is_told(tmp_path, capsys):
    assert questions(HUB, "vstar", tmp_path / "q.jsonl") == 0
    said = capsys.readouterr().out
    right = {q.id: q.target for q in read_questions(HUB, "vstar")[0]}
    answers = [{"id": r["id"], "answer": right[r["id"]]} for r in rows_in(tmp_path / "q.jsonl")]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    command = said.partition("python -m dig_jax.benchmark ")[2].partition("`")[0]
    command = command.replace("FILE", str(path)).replace("result.json", f"{tmp_path}/result.json")
    assert main(command.split()) == 0
    scores = json.loads((tmp_path / "result.json").read_text())["scores"]
    assert scores["accuracy"][0] == 1.0


def test_answers_are_not_written_over(tmp_path, capsys):
    out = tmp_path / "a.jsonl"
    out.write_text('{"id": "1", "answer": "A"}\n')
    assert main(["questions", "--root", str(HUB), "--name", "pope", "--out", str(out)]) == 1
    assert "holds answers; name another file" in capsys.readouterr().err
    assert out.read_text() == '{"id": "1", "answer": "A"}\n'
    for _ in range(2):  # questions are
        assert questions(HUB, "pope", tmp_path / "q.jsonl") == 0


def test_pictures_go_where_they_are_wanted_and_are_not_written_twice(tmp_path):
    out, folder = tmp_path / "q.jsonl", tmp_path / "elsewhere" / "pictures"
    assert questions(HUB, "pope", out, "--pictures", str(folder)) == 0
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(times) == 2
    assert rows_in(out)[0]["pictures"][0].startswith("elsewhere/pictures/")
    far = tmp_path / "far" / "q.jsonl"
    assert questions(HUB, "pope", far, "--pictures", str(folder), "--limit", "3") == 0
    assert len(rows_in(far)) == 3
    assert rows_in(far)[0]["pictures"][0].startswith(str(folder))
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_the_prompt_of_expressions_can_be_chosen(tmp_path):
    for prompt, start in (("qwen", "Locate every object"), ("vlmevalkit", "Please provide the")):
        out = tmp_path / f"{prompt}.jsonl"
        assert questions(HUB, "refcocog_test", out, "--prompt", prompt) == 0
        assert all(row["prompt"].startswith(start) for row in rows_in(out))


def test_a_comma_too_many_is_told_and_without_it_the_names_are_read():
    with pytest.raises(ValueError, match="'pope,,vsr' has an empty name; remove the comma"):
        catalog.named("pope,,vsr")
    assert catalog.named("pope,vsr") == ("pope", "vsr")


def test_what_cannot_be_asked_leaves_no_file(tmp_path, capsys):
    out = tmp_path / "q.jsonl"
    assert questions(HUB, "popes", out) == 1
    assert "unknown benchmark 'popes'; nearest: pope" in capsys.readouterr().err
    shutil.copytree(HUB / "mmvp", tmp_path / "root/mmvp")
    path = tmp_path / "root/mmvp/data/train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    assert questions(tmp_path / "root", "mmvp", out) == 1
    assert "download it again" in capsys.readouterr().err
    assert not out.exists()


def test_a_picture_that_cannot_be_read_stops_before_the_file_is_there(tmp_path, capsys):
    shutil.copytree(FILES / "vstar", tmp_path / "vstar")
    table = (tmp_path / "vstar/test_questions.jsonl").read_text()
    (tmp_path / "vstar/test_questions.jsonl").write_text(table.replace(".png", ".gone.png"))
    out = tmp_path / "q.jsonl"
    assert questions(tmp_path, "vstar", out) == 1
    told = capsys.readouterr().err
    assert "4 pictures of V* Bench are not there" in told
    assert "test_questions.jsonl row 1: there is no picture direct_attributes/sa_0.gone.png" in told
    assert not out.exists()
    for seed, category in ((40, "direct_attributes"), (42, "relative_position")):
        for n in range(2):
            put(tmp_path / f"vstar/images/{category}/sa_{n}.gone.png", picture(seed + n))
    assert questions(tmp_path, "vstar", out) == 0


def test_unknown_verbs_and_no_verb_show_the_verbs(capsys):
    assert main(["lsit"]) == 2
    told = capsys.readouterr()
    assert "unknown verb 'lsit'; use one of list, questions, run, score" in told.err
    assert main([]) == 0
    assert all(f"dig_jax.benchmark {verb}" in told.out for verb in VERBS)
