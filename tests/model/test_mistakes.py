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


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def case_for(mistake) -> cases.Case:
    """The checkpoint with theta 10,000; grouped key heads only the tied one has."""
    return cases.golden("tied" if mistake is mistakes.scattered_groups else "untied")


def deviation_with(mistake, monkeypatch) -> float:
    """Largest distance from HF's logits; compiled afresh where the mistake is in the code."""
    case = case_for(mistake)
    if len(signature(mistake).parameters) == 1:
        return max(cases.deviations(mistake(case)))
    case = mistake(case, monkeypatch)
    return max(cases.deviations(case, cases.compiled(cases.all_logits, case.config)))


@pytest.mark.parametrize("mistake", ALL, ids=lambda mistake: mistake.__name__)
def test_a_single_mistake_breaks_parity(mistake, monkeypatch):
    assert deviation_with(mistake, monkeypatch) > 2 * TOLERANCE
