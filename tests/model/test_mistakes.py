"""The parity tests have teeth: every single mistake moves the logits beyond their tolerance.

Each mistake of tests/model/mistakes.py is made in our program, on a small checkpoint, and compared
with HF's logits of prompts and of 64-token answers as tests/model/test_parity.py does.
"""

from inspect import signature

import jax
import pytest

from tests.model import mistakes
from tests.model import parity_cases as cases
from tests.model.test_parity import TOLERANCE

ALL = (*mistakes.SENSITIVITY_TABLE, *mistakes.OTHERS)
# Mistakes in weights or inputs share one program. Those in the configuration or in the code are
# compiled afresh, so that most of them are left to the second line.
CONFIGURED = (mistakes.vision_eps, mistakes.text_eps, mistakes.other_theta)
FIRST_LINE = (mistakes.text_eps, mistakes.images_see_each_other)


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def case_for(mistake) -> cases.Case:
    """The checkpoint with theta 10,000; grouped key heads only the tied one has."""
    return cases.golden("tied" if mistake is mistakes.scattered_groups else "untied")


def compiles_afresh(mistake) -> bool:
    """In a program of its own; scattered groups are, because they need another checkpoint."""
    in_code = len(signature(mistake).parameters) == 2
    return in_code or mistake in (*CONFIGURED, mistakes.scattered_groups)


def case_of(mistake):
    slow = compiles_afresh(mistake) and mistake not in FIRST_LINE
    marks = [pytest.mark.slow] if slow else []
    return pytest.param(mistake, id=mistake.__name__, marks=marks)


def deviation_with(mistake, monkeypatch) -> float:
    """Largest distance from HF's logits; compiled afresh where the mistake is in the code."""
    case = case_for(mistake)
    if len(signature(mistake).parameters) == 1:
        return max(cases.deviations(mistake(case)))
    case = mistake(case, monkeypatch)
    return max(cases.deviations(case, cases.compiled(cases.all_logits, case.config)))


@pytest.mark.parametrize("mistake", [*map(case_of, ALL)])
def test_a_single_mistake_breaks_parity(mistake, monkeypatch):
    assert deviation_with(mistake, monkeypatch) > 2 * TOLERANCE
