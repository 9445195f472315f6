"""The verb run: answered, scored, stopped and gone on with, by the shipped base on the fixtures."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image
from pyarrow import parquet

from dig_jax import ask
from dig_jax.benchmark import store
from dig_jax.benchmark.__main__ import main
from dig_jax.benchmark.cost import read_cost
from dig_jax.benchmarks.questions import read_questions, wanted
from dig_jax.benchmarks.result import read_result
from dig_jax.run.policy import Policy
from scripts.make.benchmark_files import picture
from tests import ROOT
from tests.mesh.test_distributed import ended, start
from tests.tiny_model import ASSETS

FIXTURES = ROOT / "tests" / "benchmarks" / "fixtures" / "hub"
SUITE = "pope,mmvp"
MOST = 12


def words(out, *more, suite=SUITE):
    given = ["run", "--root", FIXTURES, "--suite", suite, "--source", ASSETS, "--out", out]
    given += ["--max-tokens", MOST, "--rows", 4, "--fsdp", 1, "--resamples", 20, *more]
    return [str(word) for word in given]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(words(out)) == 0
    return out


def answers(out):
    return {
        (name, *tag): (row["answer"], row["ended"], row["tokens"])
        for name in SUITE.split(",")
        for tag, row in store.read_answers(out / name).items()
    }


def result(out, name):
    return (out / name / "result.json").read_text()


def timeless(out, name):
    """A result without the commit, which may move while tests run."""
    found = read_result(out / name / "result.json")
    return found | {"protocol": found["protocol"] | {"commit": None}}


def test_every_question_has_an_answer_and_the_protocol_that_it_was_made_with(whole):
    for name in SUITE.split(","):
        questions, _ = read_questions(FIXTURES, name)
        found = read_result(whole / name / "result.json")
        assert {row["id"] for row in found["rows"]} == {q.id for q in questions}
        told = found["protocol"]
        assert (told["decoding"], told["max_tokens"], told["thinking"]) == ("greedy", MOST, False)
        assert (told["min_pixels"], told["max_pixels"]) == (4096, 1048576)
        assert told["source"] == str(ASSETS)
        assert all(told[n] for n in ("source_digest", "data_digest", "versions", "parser", "dtype"))


def test_what_answering_took_stands_beside_the_result(whole):
    """And not in it: equal answers give equal results."""
    found = read_cost(whole / "mmvp")
    rows = store.read_answers(whole / "mmvp").values()
    assert (found["answers"], found["tokens"]) == (len(rows), sum(r["tokens"] for r in rows))
    assert 0 <= found["compiling"] < found["seconds"]
    assert read_cost(whole / "pope")["compiling"] > 0  # the first one's
    assert "seconds" not in result(whole, "mmvp")


def test_an_answer_is_the_one_that_ask_gives(whole, tmp_path, capsys):
    """Token for token: `ask` encodes the whole prompt at once, by itself."""
    questions, _ = read_questions(FIXTURES, "mmvp")
    question = questions[0]
    picture = tmp_path / "a.png"
    picture.write_bytes(question.pictures[0].read())
    source = ["--source", str(ASSETS), "--max-tokens", str(MOST)]
    ask.main([*source, str(picture), "--question", question.prompt])
    said = capsys.readouterr().out.rstrip("\n")
    assert said == store.read_answers(whole / "mmvp")[question.id, 0]["answer"]


def test_what_is_there_is_not_answered_again(whole, monkeypatch):
    before = {name: timeless(whole, name) for name in SUITE.split(",")}
    monkeypatch.setattr(Policy, "load", lambda self: pytest.fail("weights were read"))
    assert main(words(whole)) == 0
    assert {name: timeless(whole, name) for name in SUITE.split(",")} == before


def test_a_line_that_a_kill_cut_off_is_answered_again(whole, tmp_path):
    out = tmp_path / "out"
    (out / "mmvp").mkdir(parents=True)
    for name in ("protocol.json", "mmvp/protocol.json"):
        (out / name).write_bytes((whole / name).read_bytes())
    text = (whole / "mmvp" / "answers.jsonl").read_text()
    (out / "mmvp" / "answers.jsonl").write_text(text[: len(text) * 2 // 3])
    assert main(words(out)) == 0
    assert answers(out) == answers(whole)
    assert timeless(out, "mmvp") == timeless(whole, "mmvp")


def test_two_shares_make_the_whole(whole, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(words(out, "--shards", "2/2")) == 0
    assert not (out / "mmvp" / "result.json").exists()
    assert "answers are other shares' to give" in capsys.readouterr().out
    assert main(words(out, "--shards", "1/2")) == 0
    assert answers(out) == answers(whole)
    assert read_result(out / "mmvp" / "result.json")["scores"]


def test_pairs_are_in_one_share_and_whole_where_the_number_is_limited(tmp_path):
    out = tmp_path / "out"
    assert main(words(out, "--limit", "1", suite="mmvp")) == 0
    rows = read_result(out / "mmvp" / "result.json")["rows"]
    assert len(rows) == 2
    assert len({row["groups"]["pair"] for row in rows}) == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--max-tokens", "13"), "max_tokens: 12 there, 13 now"),
        (("--decoding", "card"), "decoding: 'greedy' there, 'temperature 1.0"),
        (("--max-pixels", "65536"), "max_pixels: 1048576 there, 65536 now"),
        (("--parser", "vlmevalkit"), "parser: 'dig_jax 1' there, 'vlmevalkit"),
        (("--seed", "1"), "seed: 0 there, 1 now"),
    ],
)
def test_answers_of_two_protocols_are_not_mixed(whole, more, told, capsys):
    assert main([*words(whole), *more]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert "name another --out" in said


def test_answers_to_other_questions_of_the_same_ids_are_not_taken(whole, tmp_path, capsys):
    """The ids of a benchmark's format say nothing of its pictures and answers."""
    out, root = tmp_path / "out", tmp_path / "root"
    shutil.copytree(whole, out)
    shutil.copytree(FIXTURES / "mmvp", root / "mmvp")
    (path,) = (root / "mmvp").rglob("*.parquet")
    table = parquet.read_table(path)
    asked = [f"{text} Now?" for text in table["Question"].to_pylist()]
    place = table.column_names.index("Question")
    parquet.write_table(table.set_column(place, "Question", [asked]), path)
    assert main([*words(out, suite="mmvp"), "--root", str(root)]) == 1
    assert "mmvp was begun with another protocol (data_digest: " in capsys.readouterr().err


def test_answers_about_other_pictures_of_the_same_names_are_not_taken(tmp_path, capsys):
    """VSR's pictures are files beside its table; one is replaced before the run goes on."""
    root, out = tmp_path / "root", tmp_path / "out"
    shutil.copytree(FIXTURES.parent / "files" / "vsr", root / "vsr")
    command = [*words(out, "--limit", "1", suite="vsr"), "--root", str(root)]
    assert main(command) == 0
    path = next((root / "vsr" / "images").iterdir())
    whole = path.read_bytes()
    path.write_bytes(picture(77))
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "vsr was begun with another protocol (pictures_digest: " in said
    assert "name another --out, or move the folder away" in said
    again = [*words(tmp_path / "again", "--limit", "1", suite="vsr"), "--root", str(root)]
    assert main(again) == 0  # as advised
    assert main(["compare", str(out), str(tmp_path / "again"), "--resamples", "100"]) == 1
    assert "are of two protocols (pictures_digest: " in capsys.readouterr().err
    path.write_bytes(whole)
    assert main(command) == 0


def test_a_picture_that_was_cut_off_stops_with_its_name(tmp_path, capsys):
    root = tmp_path / "root"
    shutil.copytree(FIXTURES.parent / "files" / "vsr", root / "vsr")
    path = next((root / "vsr" / "images").iterdir())
    file = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(file, "JPEG")
    path.write_bytes(file.getvalue()[: file.tell() // 2])
    assert main([*words(tmp_path / "out", suite="vsr"), "--root", str(root)]) == 1
    said = capsys.readouterr().err
    assert f"{path}: its picture is damaged (image file is truncated" in said
    assert "download it again" in said


def test_answers_without_their_protocol_are_not_added_to(whole, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    (out / "protocol.json").unlink()
    assert main([*words(out), "--seed", "1"]) == 1
    said = capsys.readouterr().err
    assert f"answers.jsonl is there, but no {out / 'protocol.json'}" in said
    assert answers(out) == answers(whole)


@pytest.mark.parametrize("name", ["protocol.json", "mmvp/protocol.json"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "has no "),
        ("[]", "holds a list in place of an object"),
        ("", "is empty"),
        ('{"thinking": fal', "is not valid JSON"),
    ],
)
def test_a_broken_protocol_is_refused_by_file_field_and_remedy(
    whole, name, text, told, tmp_path, capsys
):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    (out / name).write_text(text)
    assert main(words(out, suite="mmvp")) == 1
    said = capsys.readouterr().err
    assert f"{out / name} {told}" in said
    assert "name another --out, or move the folder away" in said
    if text == "{}":
        assert ("seed" if name == "protocol.json" else "data_digest") in said
    assert answers(out) == answers(whole)


def test_lines_that_run_did_not_write_are_refused_by_name(whole, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    (out / "mmvp" / "answers.jsonl").write_text('{"id": "1", "answer": "A"}\n')
    assert main(words(out, suite="mmvp")) == 1
    assert "answers.jsonl line 1 has no sample, ended, tokens" in capsys.readouterr().err
    aside = (out / "mmvp" / "answers.jsonl").rename(tmp_path / "a.jsonl")  # as advised
    given = ["--root", str(FIXTURES), "--name", "mmvp", "--answers", str(aside), "--partial"]
    assert main(["score", *given, "--out", str(tmp_path / "result.json")]) == 0
    assert main(words(out, "--limit", "1", suite="mmvp")) == 0


def test_a_part_of_the_questions_is_compared_with_all_and_replaces_no_result(
    whole, tmp_path, capsys
):
    part, out = tmp_path / "part", tmp_path / "out"
    assert main(words(part, "--limit", "1", suite="mmvp")) == 0
    assert main(["compare", str(part), str(whole), "--resamples", "100"]) == 0
    assert "only the 2 questions that both sides have" in capsys.readouterr().out
    shutil.copytree(whole, out)
    assert main(words(out, "--limit", "1", suite="mmvp")) == 0
    assert "keeps its 4 answers; name another --out" in capsys.readouterr().out
    assert result(out, "mmvp") == result(whole, "mmvp")


def test_another_folder_takes_another_protocol(whole, tmp_path):
    """What the refusals of another protocol, and of too long answers, advise."""
    assert main([*words(whole, suite="mmvp"), "--max-tokens", "9"]) == 1
    out = tmp_path / "other"
    assert main([*words(out, "--limit", "1", suite="mmvp"), "--max-tokens", "262144"]) == 1
    assert main([*words(out, "--limit", "1", suite="mmvp"), "--max-tokens", "9"]) == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--repeats", "2"), "--repeats 2 greedy answers are all the same"),
        (("--max-tokens", "262144"), "leaves 26"),
        (("--rows", "3", "--fsdp", "2"), "mesh.fsdp=2"),
        (("--from-best",), "--from-best chooses among a run's weights; give --run"),
        (("--fsdp", "4096"), "--fsdp 4096 x --tensor 1 are 4096 devices, but there are 8"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_answered(more, told, tmp_path, capsys):
    assert main([*words(tmp_path / "out"), *more]) == 1
    assert told in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*/answers.jsonl"))


def test_here_is_all_that_the_root_holds(tmp_path, capsys):
    assert main([*words(tmp_path / "out", suite="here"), "--root", str(tmp_path)]) == 1
    assert f"{tmp_path} holds no benchmark; see `list --root" in capsys.readouterr().err
    (tmp_path / "mmvp").symlink_to(FIXTURES / "mmvp")
    assert wanted(tmp_path, "here") == ("mmvp",)


def test_a_share_that_is_none_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(words(tmp_path / "out", "--shards", "3/2"))
    assert "'3/2' is not I/N with 1 <= I <= N" in capsys.readouterr().err


def test_samples_have_seeds_of_their_own(tmp_path):
    out = tmp_path / "out"
    assert main(words(out, "--repeats", "3", "--decoding", "card", suite="mmvp")) == 0
    found = store.read_answers(out / "mmvp")
    texts = [{found[q, n]["answer"] for n in range(3)} for q, _ in found]
    assert max(map(len, texts)) > 1
    assert read_result(out / "mmvp" / "result.json")["protocol"]["samples"] == 3


@pytest.mark.slow
def test_kill_9_and_the_same_command_give_the_answers_of_an_undisturbed_run(whole, tmp_path):
    """Killed as soon as a first answer is on the disk; what is there stays, byte for byte."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "dig_jax.benchmark", *words(out)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    path = out / "pope" / "answers.jsonl"
    started = subprocess.Popen(command, cwd=ROOT, env=environment)
    while not (path.is_file() and path.stat().st_size) and started.poll() is None:
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    kept = path.read_bytes()
    kept = kept[: kept.rindex(b"\n") + 1] if b"\n" in kept else b""
    assert subprocess.run(command, cwd=ROOT, env=environment, check=True).returncode == 0
    assert path.read_bytes().startswith(kept)
    assert answers(out) == answers(whole)
    rows = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    assert len(rows) == len(set(rows))


@pytest.mark.slow
def test_two_processes_with_two_devices_each_give_the_answers_of_one(whole, tmp_path):
    """Rows over a mesh of 4; the first process alone writes."""
    out = tmp_path / "out"
    given = words(out)
    given[given.index("--fsdp") + 1] = "4"
    code = "import sys; from dig_jax.benchmark.__main__ import main; sys.exit(main(sys.argv[1:]))"
    for status, said in ended(start(code, *given, processes=2, devices=2)):
        assert status == 0, said
    assert answers(out) == answers(whole)
