"""Questions and answers of every benchmark's shape, made here, with groups that share something."""

from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.readings import OURS
from dig_jax.benchmarks.scored import score_answer

BOX = (100.0, 100.0, 300.0, 300.0)


def asked(name, target, **groups):
    """A question; `groups` without a picture have one of their own."""
    kind = "box" if isinstance(target, tuple) else "yes_no" if target in ("yes", "no") else "letter"
    groups = {"picture": f"picture of {name}", **groups}
    return Question(str(name), f"{name}?", (), kind, target, groups=groups)


def answered(question, text, sample=0, **how):
    how = {"parser": OURS, "thinking": False, **how}
    return score_answer(question, text, sample=sample, **how)


def right(question):
    """What an oracle says."""
    return str(list(question.target)) if question.kind == "box" else str(question.target)


def table(lines):
    """Scored answers of lines (name, target, answer, groups)."""
    return [answered(asked(name, target, **groups), text) for name, target, text, groups in lines]


def _letters(count, groups_of):
    return [asked(n, "ABCD"[n % 4], **groups_of(n)) for n in range(count)]


def _words(count, groups_of):
    return [asked(n, ("yes", "no")[n % 2], **groups_of(n)) for n in range(count)]


MME = (
    "existence count position color posters celebrity scene landmark artwork OCR "
    "commonsense_reasoning numerical_calculation text_translation code_reasoning"
).split()
QUESTIONS = {
    "pope": _words(12, lambda n: {"track": ("adversarial", "popular", "random")[n // 2 % 3]}),
    "hallusionbench": _words(
        16, lambda n: {"set": f"{n // 8}", "figure": f"{n // 4}", "question": f"{n // 8} {n % 4}"}
    ),
    "mme": _words(56, lambda n: {"category": MME[n // 4], "pair": f"p{n // 2}"}),
    "vsr": _words(6, lambda n: {"picture": f"p{n // 2}"}),
    "vstar": _letters(
        8, lambda n: {"category": ("direct_attributes", "relative_position")[n // 5]}
    ),
    "hrbench8k": _letters(
        16, lambda n: {"category": ("single", "cross")[n // 8], "cycle": str(n % 4),
                       "question": f"q{n // 4}"}
    ),
    "cvbench": _letters(
        12, lambda n: {"source": ("ADE20K", "COCO", "Omni3D")[n % 3], "category": "Count",
                       "type": "2D"}
    ),
    "mmvp": _letters(8, lambda n: {"pair": str(n // 2)}),
    "mmbench": _letters(12, lambda n: {"question": str(n // 4), "l2": "perception",
                                       "category": "scene"}),
    "mmstar": _letters(12, lambda n: {"category": f"c{n % 2}", "subcategory": f"s{n % 4}"}),
    "scienceqa": _letters(5, lambda n: {"category": "biology"}),
    "ai2d": _letters(5, lambda n: {}),
    "refcoco_val": [asked(n, BOX, picture=f"p{n // 3}", object=f"o{n // 2}") for n in range(9)],
}  # fmt: skip
QUESTIONS |= {
    "hrbench4k": QUESTIONS["hrbench8k"],
    "mmbench_v11": QUESTIONS["mmbench"],
    **{
        name: QUESTIONS["refcoco_val"]
        for name in "refcoco_testa refcoco_testb refcocoplus_val refcocoplus_testa "
        "refcocoplus_testb refcocog_val refcocog_test".split()
    },
}
