"""Damaged settings of a folder are opened or refused by name, and a case is always the same one."""

import os

import numpy as np

from scripts.study import fuzz_folders

COUNT = int(os.environ.get("DIG_FUZZ_FOLDERS", "300"))


def test_no_damaged_folder_ends_in_anything_but_a_named_error(tmp_path):
    """DIG_FUZZ_FOLDERS=5000 makes as many; what fails is shown by the script's --case."""
    base = fuzz_folders.make_base(tmp_path / "base")
    fuzz_folders.open_all(base)
    outcomes = list(fuzz_folders.fuzz(base, 0, range(COUNT)))
    bad = [(o.case, o.file, o.damage, repr(o.error)) for o in outcomes if not o.named]
    assert not bad
    opened = sum(outcome.error is None for outcome in outcomes)
    assert 0.1 * COUNT < opened < 0.6 * COUNT  # the damage is neither deadly nor none
    fuzz_folders.open_all(base)  # whole again


def test_a_case_is_always_the_same_damage():
    text = (fuzz_folders.BASE / "config.json").read_text()
    for case in range(50):
        first, second = (
            fuzz_folders.damaged(text, np.random.default_rng((3, case))) for _ in range(2)
        )
        assert first == second
