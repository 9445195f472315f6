"""Small results of benchmarks, scored by the real rules from answers that are made up here."""

from functools import partial

from dig_jax.benchmarks.question import Picture, Question
from dig_jax.benchmarks.readings import OURS
from dig_jax.benchmarks.result import make_result, protocol, write_result
from dig_jax.benchmarks.scored import score_answer
from dig_jax.common.files import read_sealed, write_sealed

BOX = (100.0, 200.0, 500.0, 600.0)
MISS = "[600, 700, 900, 950]"
OPTIONS = ("one", "two", "three", "four")
PROTOCOL = {
    "parser": OURS,
    "prompt": "qwen 1",
    "thinking": False,
    "decoding": "greedy",
    "max_tokens": 512,
    "min_pixels": 65536,
    "max_pixels": 1048576,
    "data_digest": "d1",
    "pictures_digest": "p1",
    "source": "base",
    "samples": 1,
}


def letter_questions(count, read=None):
    """V*'s: a question to each picture, the letters in turn."""
    return [
        Question(f"v{i}", "Which?", _pictures(f"v{i}", read), "letter", "ABCD"[i % 4], OPTIONS,
                 {"picture": f"v{i}", "category": "direct_attributes"})
        for i in range(count)
    ]  # fmt: skip


def pair_questions(count):
    """MMVP's: two questions to a pair, which are right together or not at all."""
    return [
        Question(f"m{i}", "Which?", (), "letter", "AB"[i % 2], OPTIONS[:2],
                 {"picture": f"m{i}", "pair": f"{i // 2}"})
        for i in range(count)
    ]  # fmt: skip


def yes_no_questions(count):
    """VSR's: two captions to a picture."""
    return [
        Question(f"y{i}", "Is it?", (), "yes_no", "yes", (), {"picture": f"y{i // 2}"})
        for i in range(count)
    ]


def box_questions(count, read=None):
    """RefCOCO's: an expression to each picture."""
    return [
        Question(f"r{i}", f"Locate thing {i}.", _pictures(f"r{i}", read), "box", BOX, (),
                 {"picture": f"r{i}", "object": f"r{i}"})
        for i in range(count)
    ]  # fmt: skip


def _pictures(key, read):
    return () if read is None else (Picture(key, partial(read, key)),)


def text_of(question, right):
    """An answer that is right, or one that is wrong."""
    if question.kind == "box":
        return f"[{', '.join(f'{v:g}' for v in BOX)}]" if right else MISS
    if question.kind == "yes_no":
        return "yes" if right else "no"
    return question.target if right else "ABCD"["ABCD".index(question.target) - 1]


def write(folder, name, questions, right, *, texts=None, warnings=(), **changed):
    """<folder>/<name>/result.json.

    right   of each question, or of each of its samples
    texts   id -> the answer in place of one that is right or wrong
    """
    scored = []
    for question, outcome in zip(questions, right, strict=True):
        for sample, ok in enumerate(outcome if isinstance(outcome, tuple) else (outcome,)):
            text = (texts or {}).get(question.id) or text_of(question, ok)
            told = {"sample": sample, "tokens": len(text)}
            thinking = changed.get("thinking", False)
            scored.append(score_answer(question, text, parser=OURS, thinking=thinking, **told))
    told = protocol(**(PROTOCOL | {"rows": len(questions)} | changed))
    path = folder / name / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    body = make_result(name, scored, protocol=told, warnings=warnings, resamples=50)
    write_result(path, body)
    return path


def edit(path, **changed):
    """Another protocol in a result that was written, or without a field where it is None."""
    body = read_sealed(path, "")
    body["protocol"] |= changed
    write_sealed(path, body)
