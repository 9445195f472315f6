"""Scores that others published of these benchmarks, to be read beside ours and never mixed in.

None was measured here. A row says where it was found and what it may be compared with; a score of
another prompt, pixel budget, decoding or parser is another score.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Published(NamedTuple):
    """One published score.

    metric    as `aggregate` calls it, where the rule is known
    value     in the benchmark's own units: percent, or MME's points
    trained   the same after the training that the source reports; None where it is one score
    source    who published it
    evidence  how it came here
    """

    benchmark: str
    metric: str
    model: str
    value: float
    trained: float | None
    source: str
    evidence: str


_PAPER = "DiG, arXiv 2512.12633"
_THREAD = "VLMEvalKit, pull request 1305: temperature 0.7, its InternVL-style prompt"
_MODEL = "Qwen3-VL-8B-Instruct"


def _refcoco(benchmark: str, value: float) -> Published:
    return Published(benchmark, "accuracy", _MODEL, value, None, _THREAD, "maintainers' thread")


ROWS = (
    # fits the perception part alone, whose most is 2000; protocol, size and repeats are not known
    Published(
        "mme",
        "perception",
        "Qwen3-VL Thinking, size not known here",
        1592,
        1643,
        _PAPER,
        "second hand: a note on its table; the paper itself could not be read here",
    ),
    _refcoco("refcoco_val", 90.4),
    _refcoco("refcoco_testa", 92.2),
    _refcoco("refcoco_testb", 86.9),
    _refcoco("refcocoplus_val", 85.0),
    _refcoco("refcocoplus_testa", 89.0),
    _refcoco("refcocoplus_testb", 78.7),
    _refcoco("refcocog_val", 88.0),
    _refcoco("refcocog_test", 88.2),
)

# 95 % half-widths of one run at a typical level, in points: arithmetic from the standard number of
# independent questions. A published gain within one of them cannot be told from noise.
HALF_WIDTHS = {
    "pope": 0.7,
    "scienceqa": 1.0,
    "ai2d": 1.3,
    "cvbench": 1.4,
    "vsr": 2.1,
    "mmbench": 2.1,
    "mmstar": 2.3,
    "hallusionbench": 2.8,
    "vstar": 5.1,
    "hrbench8k": 6.0,
    "mmvp": 7.8,
}


def in_words(benchmark: str, protocol: Mapping[str, Any], *, short: bool = False) -> str:
    """What was published of a benchmark, and how much one run's score may be off; or "".

    protocol   of a result: of a part of the benchmark, or of other questions in its format, nothing
               was published
    """
    rows, expected = protocol.get("rows"), protocol.get("expected_rows")
    if None not in (rows, expected) and rows != expected:
        return ""
    told = []
    for row in ROWS:
        if row.benchmark == benchmark:
            scores = f"{row.value:g}" if row.trained is None else f"{row.value:g} → {row.trained:g}"
            whose = row.model if short else f"{row.model}; {row.source}; {row.evidence}"
            told.append(f"published, for reading: {row.metric} {scores} ({whose})")
    if benchmark in HALF_WIDTHS:
        told.append(f"one run's 95 % half-width at a typical level: ±{HALF_WIDTHS[benchmark]:g}")
    return "; ".join(told)
