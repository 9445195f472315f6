"""Mutated configurations, the short form: none is accepted broken, none refused without a field.

The long form is `python -m scripts.study.fuzz_config --count 20000`.
"""

import random

from dig_jax.common import typed
from dig_jax.config import Config
from scripts.study import fuzz_config


def test_a_mutated_configuration_holds_or_is_refused_by_its_field():
    outcome = fuzz_config.run(400, seed=0)
    assert outcome.others == []
    assert outcome.counts["accepted"] > 40  # so that both sides are tried
    assert outcome.counts["refused"] > 200


def test_what_is_looked_for_would_be_found(monkeypatch):
    """Another exception, a message without a field, and an accepted tree that does not survive."""

    def broken(rng: random.Random, folder):
        return [lambda: [][0], lambda: float("x"), lambda: Config(steps=60)][rng.planted]()

    for planted, told in enumerate(("IndexError", "no field in ValueError", "accepted, but")):
        rng, others = random.Random(0), []
        rng.planted = planted
        with monkeypatch.context() as patch:
            patch.setattr(typed, "from_plain", lambda kind, plain: None)
            assert fuzz_config._tried(broken, rng, None, "it", others) == "other"
        assert told in others[0]


def test_a_seed_decides_the_mutants(tmp_path):
    lines = [[fuzz_config.a_setting(random.Random(s), fuzz_config.CONFIG)] for s in (1, 1, 2)]
    assert lines[0] == lines[1] != lines[2]
