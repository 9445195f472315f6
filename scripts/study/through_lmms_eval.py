"""Does lmms-eval, asking `dig_jax.serve`, come to the scores that our own commands come to?

    python -m scripts.study.through_lmms_eval --lmms PYTHON --root data/questions --out runs/lmms

PYTHON is one that has lmms-eval and openai (docs/serving.md). The server is started, lmms-eval asks
it all of POPE's and V*'s questions of the root by its model `openai`, `benchmark score` scores the
same answers, and `benchmark run` answers the same questions without a server. Printed: how many
answers and scores agree. What is there in --out is not done again. The exit status is 1 where a
score differs.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from dig_jax.benchmark import __main__ as benchmark
from dig_jax.benchmarks import prompts
from dig_jax.benchmarks.options import within
from dig_jax.benchmarks.questions import read_questions
from dig_jax.common.commandline import path_of, place_of
from dig_jax.common.files import make_folder, write_text
from scripts.bench.serve import started

TASKS = Path(__file__).with_name("lmms_eval")
MOST = 64  # tokens of an answer, as the tasks' files say
SCORES = {  # benchmark -> our metric -> lmms-eval's, and what it makes of 1; the first of rows too
    "pope": {
        "accuracy": ("pope_accuracy", 1),
        "precision": ("pope_precision", 1),
        "recall": ("pope_recall", 1),
        "f1": ("pope_f1_score", 1),
    },
    "vstar": {"accuracy": ("vstar_overall_acc", 100)},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lmms", required=True, help="Python that has lmms-eval")
    parser.add_argument("--root", type=path_of, required=True, help="of `data questions`")
    parser.add_argument("--source", type=place_of, default="assets/tiny_qwen3vl")
    parser.add_argument("--out", type=path_of, required=True)
    parser.add_argument("--bucket", default="128x128:256", help="that holds all pictures")
    parser.add_argument("--clients", type=int, default=16)
    args = parser.parse_args()
    make_folder(args.out)
    if not list(args.out.glob("theirs/*/*_results.json")):
        drive(args)
    run = ["run", "--root", args.root, "--suite", ",".join(SCORES), "--source", args.source]
    run += ["--decoding", "greedy", "--max-tokens", MOST, "--out", args.out / "alone"]
    if status := benchmark.main(list(map(str, run))):
        return status
    return max([compare(args.root, args.out, name) for name in SCORES])


def drive(args) -> None:
    """Serves, and has lmms-eval ask; raises where it fails, which its status may not tell."""
    write_tasks(args.root, args.out / "task")
    words = [sys.executable, "-m", "dig_jax.serve", "--source", args.source, "--port", 0]
    words += ["--bucket", args.bucket, "--pictures", 1, "--batch", args.clients]
    with started([*words, "--max-tokens", MOST]) as (_, (host, port)):
        model = f"model={Path(args.source).name},base_url=http://{host}:{port}/v1"
        model += f",num_concurrent={args.clients},timeout=300,max_retries=2"
        tasks = ",".join(f"dig_{name}" for name in SCORES)
        words = [args.lmms, "-m", "lmms_eval", "--model", "openai", "--model_args", model]
        words += ["--tasks", tasks, "--include_path", args.out / "task", "--log_samples"]
        words += ["--output_path", args.out / "theirs", "--batch_size", "1"]
        home = str((args.out / "hf").resolve())
        quiet = {"HF_HUB_OFFLINE": "1", "HF_HOME": home, "OPENAI_API_KEY": "none"}
        subprocess.run([str(word) for word in words], env={**os.environ, **quiet}, check=True)
    if not list(args.out.glob("theirs/*/*_results.json")):
        raise RuntimeError("lmms-eval wrote no results; what it printed above says why")


def write_tasks(root: Path, folder: Path) -> None:
    """The tasks as lmms-eval reads them, with the place of their questions and our words."""
    make_folder(folder)
    for name in SCORES:
        files = str((root / name).resolve() / "*.parquet")
        task = (TASKS / f"dig_{name}.yaml").read_text(encoding="utf-8")
        write_text(folder / f"dig_{name}.yaml", task.replace("FILES\n", f"{files}\n"))
    words = {text: prompts.yes_no(text) for text in column(root, "pope", "question")}
    words |= {text: prompts.choice(*within(text)) for text in column(root, "vstar", "text")}
    write_text(folder / "words.json", json.dumps(words))
    write_text(folder / "functions.py", (TASKS / "functions.py").read_text(encoding="utf-8"))


def column(root: Path, name: str, column: str) -> list[str]:
    """Of all rows of a benchmark's files, in lmms-eval's order."""
    import pyarrow.parquet

    files = sorted((root / name).glob("*.parquet"))
    tables = [pyarrow.parquet.read_table(file, columns=[column]) for file in files]
    return [value for table in tables for value in table[column].to_pylist()]


def compare(root: Path, out: Path, name: str) -> int:
    """Scores the answers that lmms-eval got, prints both sides; 1 where a score differs."""
    (path,) = out.glob(f"theirs/*/*_samples_dig_{name}.jsonl")
    samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    samples = identified(root, name, samples)
    answers, result = out / f"{name}.jsonl", out / f"{name}.json"
    write_answers(answers, samples)
    words = ["score", "--root", root, "--name", name, "--answers", answers, "--out", result]
    benchmark.main(list(map(str, words)))
    ours, alone = (read(path) for path in (result, out / "alone" / name / "result.json"))
    (path,) = out.glob("theirs/*/*_results.json")
    theirs = read(path)["results"][f"dig_{name}"]
    right = {row["id"]: row["correct"] for row in ours["rows"]}
    words = {row["id"]: row["text"] for row in alone["rows"]}
    first = next(iter(SCORES[name].values()))[0]
    alike = sum(one[first]["score"] == right[one["id"]] for one in samples)
    equal = sum(one["filtered_resps"] == words[one["id"]] for one in samples)
    said = Counter(one["filtered_resps"] for one in samples).most_common(5)
    print(f"\n{name}: {len(samples)} rows of {len(right)} questions; answers {said}")
    print(f"as `benchmark run` answers: {equal} of {len(samples)}")
    print(f"scored alike by lmms-eval and us: {alike} of {len(samples)}")
    same = alike == len(samples)
    for metric, (their, one) in SCORES[name].items():
        found, (a, b) = (
            theirs[f"{their},none"] / one,
            (x["scores"][metric][0] for x in (ours, alone)),
        )
        print(f"{metric:10} lmms-eval {found:.4f}   `score` {a:.4f}   `run` {b:.4f}")
        same = same and abs(found - a) < 1e-9
    return int(not same)


def identified(root: Path, name: str, samples: list[dict]) -> list[dict]:
    """Samples with the "id" of our question. POPE's tracks share questions: rows of one id."""
    questions, _ = read_questions(root, name, pictures=False)
    if len(questions) == len(samples):
        ids = [one.id for one in questions]
    else:  # of what several rows ask the first gives the id
        names = ("category", "question_id", "image_source", "question")
        known: dict[tuple[str, str], str] = {}
        rows = zip(*(column(root, name, each) for each in names), strict=True)
        ids = [known.setdefault((shown, text), f"{track}-{n}") for track, n, shown, text in rows]
    asked = {one.id: one.prompt for one in questions}
    for one in samples:
        one["id"] = ids[one["doc_id"]]
        if one["input"] != asked[one["id"]]:
            raise ValueError(f"{one['id']} was asked {one['input']!r}, not {asked[one['id']]!r}")
    return samples


def write_answers(path: Path, samples: list[dict]) -> None:
    """One line per question; raises ValueError where two rows of one got two answers."""
    said: dict[str, str] = {}
    for one in samples:
        name, text = one["id"], one["filtered_resps"]
        if said.setdefault(name, text) != text:
            raise ValueError(f"{name} was answered {said[name]!r} and {text!r}, greedily")
    lines = [json.dumps({"id": name, "answer": text}) for name, text in said.items()]
    write_text(path, "\n".join(lines) + "\n")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
