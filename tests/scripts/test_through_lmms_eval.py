"""What lmms-eval is given to ask, and what is made of its answers; lmms-eval itself is not here."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dig_jax.benchmark import __main__ as benchmark
from scripts.study import through_lmms_eval as through
from tests.serve.served import file_of, noise

ASKED = ("Is there a cube in the image?", "Is there a ball in the image?")
STARS = ("What is the shape?\n(A) ball\n(B) cube\nAnswer with the option's letter.",
         "What is the color?\n(A) red\n(B) blue\nAnswer with the option's letter.")  # fmt: skip
HELPFUL = " Please answer yes or no."
POPE = [  # track, question, right answer, what is said
    ("adversarial", 0, "yes", "Yes"),
    ("popular", 1, "no", "Yes"),
    ("random", 0, "yes", "Yes"),  # the first one's question again
    ("random", 1, "no", "Yes"),
]


@pytest.fixture
def root(tmp_path):
    picture = {"bytes": file_of(noise(0)), "path": "a.png"}
    pope = [
        {"question_id": str(n), "question": ASKED[which], "answer": right, "image": picture,
         "image_source": "a", "category": track}
        for n, (track, which, right, _) in enumerate(POPE)
    ]  # fmt: skip
    stars = [
        {"text": text, "label": "A", "category": "direct_attributes", "question_id": str(n),
         "image": picture}
        for n, text in enumerate(STARS)
    ]  # fmt: skip
    for name, rows in (("pope", pope), ("vstar", stars)):
        (tmp_path / "root" / name).mkdir(parents=True)
        file = tmp_path / "root" / name / "test-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows), file)
    return tmp_path / "root"


def told(root, out, *, accuracy=0.5, last="Yes"):
    """Files as lmms-eval leaves them, and `benchmark run`'s, for POPE."""
    folder = out / "theirs" / "m"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"doc_id": n, "filtered_resps": said, "input": ASKED[which] + HELPFUL,
         "pope_accuracy": {"score": float(said.lower() == right)}}
        for n, (_, which, right, said) in enumerate([*POPE[:3], (*POPE[3][:3], last)])
    ]  # fmt: skip
    (folder / "1_samples_dig_pope.jsonl").write_text("\n".join(map(json.dumps, lines)))
    scores = {"pope_accuracy": accuracy, "pope_precision": 0.5, "pope_recall": 1.0,
              "pope_f1_score": 2 / 3}  # fmt: skip
    found = {"results": {"dig_pope": {f"{k},none": v for k, v in scores.items()}}}
    (folder / "1_results.json").write_text(json.dumps(found))
    through.write_answers(out / "a.jsonl", through.identified(root, "pope", lines[:3]))
    words = ["score", "--root", root, "--name", "pope", "--answers", out / "a.jsonl", "--out",
             out / "alone" / "pope" / "result.json", "--resamples", "0"]  # fmt: skip
    (out / "alone" / "pope").mkdir(parents=True, exist_ok=True)
    benchmark.main(list(map(str, words)))


def test_a_task_has_its_files_and_our_words(root, tmp_path):
    through.write_tasks(root, tmp_path / "task")
    task = (tmp_path / "task" / "dig_pope.yaml").read_text()
    assert f"test: {root}/pope/*.parquet\n" in task
    words = json.loads((tmp_path / "task" / "words.json").read_text())
    assert words[ASKED[0]] == ASKED[0] + HELPFUL
    assert words[STARS[0]].startswith("Question: What is the shape?\nOptions:\nA. ball\nB. cube\n")
    assert "lmms_eval.tasks.pope.utils" in (tmp_path / "task" / "functions.py").read_text()


def test_rows_that_ask_the_same_are_one_question_and_scores_are_compared(root, tmp_path, capsys):
    told(root, tmp_path)
    assert through.compare(root, tmp_path, "pope") == 0
    said = capsys.readouterr().out
    assert "4 rows of 2 questions" in said
    assert "scored alike by lmms-eval and us: 4 of 4" in said
    assert "as `benchmark run` answers: 4 of 4" in said
    told(root, tmp_path, accuracy=0.75)
    assert through.compare(root, tmp_path, "pope") == 1


def test_one_question_with_two_answers_or_other_words_is_refused(root, tmp_path):
    told(root, tmp_path, last="No")
    with pytest.raises(ValueError, match="popular-1 was answered 'Yes' and 'No', greedily"):
        through.compare(root, tmp_path, "pope")
    other = [{"doc_id": n, "input": "Really?"} for n in range(2)]
    with pytest.raises(ValueError, match="was asked 'Really\\?', not"):
        through.identified(root, "vstar", other)
