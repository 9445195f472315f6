"""The verb score: whose answers they are, what is refused by which line, what is written."""

import json

import pytest

from dig_jax.benchmark.__main__ import main
from dig_jax.benchmarks.catalog import NAMES
from dig_jax.benchmarks.questions import read_questions
from dig_jax.benchmarks.result import protocol, read_result, write_result
from tests import ROOT
from tests.benchmarks.made import right

RELATIONS = ("left of", "behind")
FIXTURES = ROOT / "tests" / "benchmarks" / "fixtures" / "tsv"
MOST = {"mme": 400}  # two of its ten categories of perception are there


@pytest.fixture
def root(tmp_path):
    """VSR's file with six statements about three pictures, true and false by turns."""
    folder = tmp_path / "root" / "vsr"
    folder.mkdir(parents=True)
    lines = [
        {"image": f"{n // 2:012}.jpg", "image_link": "", "caption": f"The cat {n} is here.",
         "label": 1 - n % 2, "relation": RELATIONS[n % 2]}
        for n in range(6)
    ]  # fmt: skip
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "root"


@pytest.fixture
def ids(root):
    return [q.id for q in read_questions(root, "vsr", pictures=False)[0]]


def oracle(ids):
    return [{"id": name, "answer": ("Yes", "No")[n % 2]} for n, name in enumerate(ids)]


def score(root, rows, *words):
    """(status, the result's path) of scoring rows, or lines of a file as they are."""
    answers, out = root.parent / "a.jsonl", root.parent / "result.json"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    answers.write_text("".join(f"{line}\n" for line in lines))
    arguments = ["--root", str(root), "--name", "vsr", "--answers", str(answers)]
    status = main(["score", *arguments, "--out", str(out), "--resamples", "20", *words])
    return status, out


def test_anybodys_answers_are_scored_and_written_with_what_is_known(root, ids, capsys):
    status, out = score(root, oracle(ids))
    assert status == 0
    found = read_result(out)
    assert found["scores"]["accuracy"] == pytest.approx([1.0, 0.025 ** (1 / 3), 1.0])
    assert found["protocol"]["parser"] == "dig_jax 1"
    assert found["protocol"]["rows"] == 6
    assert found["protocol"]["expected_rows"] == 1222
    assert found["protocol"]["source"] is found["protocol"]["prompt"] is None
    said = capsys.readouterr().out
    assert "accuracy    100.0 [29.2, 100.0]" in said  # of three pictures
    assert "6 questions, 6 answers" in said
    assert "warning: VSR zero-shot has 6 rows" in said


def test_whole_numbers_are_ids_and_empty_lines_nothing(root, ids):
    rows = [{**row, "id": int(row["id"])} if row["id"].isdigit() else row for row in oracle(ids)]
    assert score(root, [*rows, "", "  "])[0] == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "0", "answer": "Ye', "line 7 is not JSON"),
        ("[1]", "line 7 is no object"),
        ('{"answer": "Yes"}', "line 7: id (missing)"),
        ('{"id": 1.5, "answer": "Yes"}', "line 7: id (1.5)"),
        ('{"id": "0", "answer": null}', "line 7: answer (null)"),
        ('{"id": "0", "answer": ["Yes"]}', "line 7: answer"),
        ('{"id": "0", "answer": "Yes", "sample": -1}', "line 7: sample (-1)"),
        ('{"id": "0", "answer": "Yes", "sample": true}', "line 7: sample"),
        ('{"id": "0", "answer": "Yes", "sample": 1, "ended": "no"}', "line 7: ended"),
        ('{"id": "0", "answer": "Yes", "sample": 1, "tokens": "9"}', "line 7: tokens"),
        ('{"id": "\\ud800", "answer": "Yes"}', "of no question here"),
    ],
)
def test_a_line_that_is_no_answer_is_refused_by_its_number(line, told, root, ids, capsys):
    assert score(root, [*oracle(ids), line])[0] == 1
    assert told in capsys.readouterr().err
    assert score(root, oracle(ids))[0] == 0


def test_an_answer_is_given_as_the_message_says(root, ids):
    """`answer` (null) is no text; write "" for no answer."""
    status, out = score(root, [*oracle(ids)[:-1], {"id": ids[-1], "answer": ""}])
    assert status == 0
    assert read_result(out)["counts"]["unparsed"] == 1


def test_one_question_answered_twice_is_refused_and_taken_as_samples(root, ids, capsys):
    again = {"id": ids[0], "answer": "No"}
    assert score(root, [*oracle(ids), again])[0] == 1
    assert "lines 1 and 7 both answer" in capsys.readouterr().err
    repeats = [{**row, "sample": 1} for row in oracle(ids)]
    status, out = score(root, [*oracle(ids), *repeats])
    assert status == 0
    found = read_result(out)
    assert found["protocol"]["samples"] == 2
    assert (found["counts"]["questions"], found["counts"]["answers"]) == (6, 12)


def test_answers_of_other_questions_are_refused(root, ids, capsys):
    assert score(root, [*oracle(ids), {"id": "coco-7", "answer": "A"}])[0] == 1
    said = capsys.readouterr().err
    assert "1 of 7 answers are of no question here, 'coco-7' (line 7)" in said
    assert "name the benchmark" in said
    assert score(root, oracle(ids))[0] == 0


def test_missing_answers_are_refused_and_scored_with_partial_as_advised(root, ids, capsys):
    assert score(root, oracle(ids)[:4])[0] == 1
    assert "2 of 6 answers are missing" in capsys.readouterr().err
    status, out = score(root, oracle(ids)[:4], "--partial")
    assert status == 0
    found = read_result(out)
    assert any("2 of 6 answers are missing" in each for each in found["warnings"])
    assert found["counts"]["questions"] == 4


def test_a_sample_that_one_question_lacks_is_missing(root, ids, capsys):
    assert score(root, [*oracle(ids), {"id": ids[0], "answer": "Yes", "sample": 1}])[0] == 1
    assert "5 of 12 answers are missing" in capsys.readouterr().err


def test_no_answer_at_all_is_refused_even_in_part(root, ids, capsys):
    assert score(root, [], "--partial")[0] == 1
    assert "6 of 6 answers are missing" in capsys.readouterr().err


def test_a_model_that_thinks_is_cut_off_without_an_end_of_its_thought(root, ids, capsys):
    rows = [{**row, "answer": f"hm, no</think>{row['answer']}"} for row in oracle(ids)]
    rows[0]["answer"] = "Yes, I think"
    found = read_result(score(root, rows, "--thinking")[1])
    assert found["scores"]["accuracy"][0] == pytest.approx(5 / 6)
    assert found["counts"]["truncated"] == 1
    assert found["protocol"]["thinking"] is True
    assert "warning: 16.7% of the answers are cut off" in capsys.readouterr().out


def test_an_answer_without_its_end_is_cut_off(root, ids):
    rows = oracle(ids)
    rows[2]["ended"] = False
    assert read_result(score(root, rows)[1])["counts"]["truncated"] == 1


def test_the_toolkits_reading_is_another_protocol(root, ids):
    rows = [{**row, "answer": f"**{row['answer']}**"} for row in oracle(ids)]
    ours, theirs = (
        read_result(score(root, rows, "--parser", parser)[1])
        for parser in ("dig_jax", "vlmevalkit")
    )
    assert ours["scores"]["accuracy"][0] == 1
    assert theirs["scores"]["accuracy"][0] == 0
    assert theirs["protocol"]["parser"] == "vlmevalkit"


def test_answers_of_a_run_keep_its_protocol_and_its_thoughts(root, ids):
    """`run` puts answers.jsonl beside result.json; scored again, only the parser is another."""
    rows = [{**row, "answer": f"hm</think>{row['answer']}"} for row in oracle(ids)]
    body = read_result(score(root, rows, "--thinking")[1])
    made = protocol(parser="dig_jax 1", thinking=True, prompt="qwen 1", seed=7, source="models/x")
    beside = root.parent / "vsr"
    beside.mkdir()
    write_result(beside / "result.json", {**body, "protocol": made})
    (beside / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = root.parent / "again.json"
    words = ["--answers", str(beside / "answers.jsonl"), "--out", str(out), "--resamples", "0"]
    words += ["--parser", "vlmevalkit"]
    assert main(["score", "--root", str(root), "--name", "vsr", *words]) == 0
    found = read_result(out)
    assert found["scores"]["accuracy"] == [1, 1, 1]
    kept = {name: found["protocol"][name] for name in ("thinking", "prompt", "seed", "source")}
    assert kept == {"thinking": True, "prompt": "qwen 1", "seed": 7, "source": "models/x"}
    assert found["protocol"]["parser"] == "vlmevalkit"


def test_what_was_said_of_anybodys_answers_is_not_said_again(root, ids):
    """Scored with --thinking by mistake, then as the warning advises, into the same folder."""
    answers, out = root.parent / "answers.jsonl", root.parent / "result.json"
    answers.write_text("".join(json.dumps(row) + "\n" for row in oracle(ids)))
    words = ["score", "--root", str(root), "--name", "vsr", "--answers", str(answers)]
    words += ["--out", str(out), "--resamples", "0"]
    assert main([*words, "--thinking"]) == 0
    assert "leave out --thinking" in " ".join(read_result(out)["warnings"])
    assert main(words) == 0
    assert read_result(out)["scores"]["accuracy"][0] == 1


def test_how_anybodys_answers_were_made_is_told_or_said_to_be_unknown(root, ids, capsys):
    """The pixel budget stands in every result: of others' answers their owner tells it."""
    _, out = score(root, oracle(ids))
    (warning,) = [w for w in read_result(out)["warnings"] if "nobody tells" in w]
    assert "tells decoding, max_tokens, min_pixels, max_pixels, seed: see --told" in warning
    fields = {"decoding": "greedy", "max_tokens": 64, "min_pixels": 65536, "max_pixels": 1 << 20}
    fields |= {"seed": 3, "source": "Qwen/Qwen3-VL-8B"}
    said = [word for name, value in fields.items() for word in ("--told", f"{name}={value}")]
    _, out = score(root, oracle(ids), *said)
    found = read_result(out)
    assert {name: found["protocol"][name] for name in fields} == fields
    assert not [w for w in found["warnings"] if "nobody tells" in w]
    for wrong in ("max_pixels=many", "pixels=3", "decoding"):
        with pytest.raises(SystemExit):
            score(root, oracle(ids), "--told", wrong)
        assert "is not NAME=VALUE with a number of max_tokens" in capsys.readouterr().err


def test_what_a_run_knows_is_not_told_otherwise(root, ids, capsys):
    beside = root.parent / "vsr"
    beside.mkdir()
    path = beside / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in oracle(ids)))
    body = read_result(score(root, oracle(ids))[1])
    made = protocol(parser="dig_jax 1", thinking=False, source="models/x", max_pixels=4096)
    write_result(beside / "result.json", {**body, "protocol": made})
    words = ["score", "--root", str(root), "--name", "vsr", "--answers", str(path)]
    words += ["--out", str(root.parent / "r.json"), "--resamples", "0"]
    assert main([*words, "--told", "max_pixels=64"]) == 1
    told = "--told max_pixels=64: of these answers 4096 is known; leave it out"
    assert told in capsys.readouterr().err
    assert main(words) == 0  # as advised
    assert read_result(root.parent / "r.json")["protocol"]["max_pixels"] == 4096


def test_answers_of_a_run_to_other_questions_are_told(root, ids):
    beside = root.parent / "vsr"
    beside.mkdir()
    (beside / "answers.jsonl").write_text("".join(json.dumps(r) + "\n" for r in oracle(ids)))
    body = read_result(score(root, oracle(ids))[1])
    made = protocol(parser="dig_jax 1", thinking=False, source="models/x", data_digest="another")
    write_result(beside / "result.json", {**body, "protocol": made})
    _, out = score(root, oracle(ids), "--answers", str(beside / "answers.jsonl"))
    assert "were others" in " ".join(read_result(out)["warnings"])


def test_answers_are_not_written_over_and_folders_are_made(root, ids, capsys):
    answers = root.parent / "a.jsonl"
    assert score(root, oracle(ids), "--out", str(answers))[0] == 1
    assert "is what is read; name another file" in capsys.readouterr().err
    assert json.loads(answers.read_text().splitlines()[0]) == oracle(ids)[0]
    assert score(root, oracle(ids), "--out", str(root))[0] == 1
    assert "is a folder; name a file in it" in capsys.readouterr().err
    assert score(root, oracle(ids), "--out", str(root.parent / "new" / "r.json"))[0] == 0


def test_an_unknown_benchmark_and_a_missing_file_are_told(root, ids, capsys):
    words = ["--root", str(root), "--out", str(root / "r.json")]
    assert main(["score", *words, "--name", "vrs", "--answers", "x"]) == 1
    assert "nearest: vsr" in capsys.readouterr().err
    assert main(["score", *words, "--name", "vsr", "--answers", str(root / "none.jsonl")]) == 1
    assert "none.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_an_oracle_of_every_benchmarks_file_has_all(name, tmp_path):
    """The groups that readers give are those that the rules ask for."""
    questions, _ = read_questions(FIXTURES, name, pictures=False)
    answers = tmp_path / "a.jsonl"
    lines = [json.dumps({"id": q.id, "answer": right(q)}) for q in questions]
    answers.write_text("\n".join(lines))
    words = ["--root", str(FIXTURES), "--name", name, "--answers", str(answers)]
    out = tmp_path / "result.json"
    assert main(["score", *words, "--out", str(out), "--resamples", "10"]) == 0
    found = read_result(out)
    score, low, high = found["scores"][found["headline"]]
    assert (score, high) == pytest.approx([MOST.get(name, 1)] * 2)
    assert 0 < low <= score  # a few rows do not make it sure; of one picture nothing is known
