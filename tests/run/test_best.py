"""The best weights of a run: which are kept, for how long, and what a fall back leaves."""

import json
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.common import typed
from dig_jax.config import Config
from dig_jax.run import arrays, best, checkpoint
from tests.corpora import plain_pair, write_split

METRIC = "sampled/f1"


def config(tmp_path, *settings):
    asked = ["eval.every=1", "checkpoint.best=f1", *settings]
    return typed.override(Config(run_dir=str(tmp_path)), asked)


def weights(value):
    return {"wq": jnp.full((4, 4), float(value)), "norm": jnp.full(4, float(value))}


def offer(keeper, step, value):
    """Weights that bear their step, so that what is kept tells its origin."""
    return keeper.offer(step, {METRIC: value}, weights(step))


def kept(tmp_path):
    return sorted(int(path.name) for path in (tmp_path / "best").iterdir())


def test_the_best_is_kept_and_of_equals_the_first(tmp_path):
    keeper = best.BestKeeper(config(tmp_path), 0)
    told = [offer(keeper, step, value) for step, value in enumerate((0.2, 0.5, 0.5, 0.4), start=1)]
    assert told == [True, True, False, False]
    assert best.read_best(tmp_path) == {"step": 2, "metric": METRIC, "value": 0.5}
    like = {"norm": weights(0)["norm"]}
    np.testing.assert_array_equal(best.load_best(tmp_path, like)["norm"], np.full(4, 2.0))
    assert typed.to_plain(config(tmp_path)) == json.loads(best.best_config(tmp_path))


def test_a_restart_remembers_the_best(tmp_path):
    keeper = best.BestKeeper(config(tmp_path), 0)
    offer(keeper, 2, 0.5)
    again = best.BestKeeper(config(tmp_path), 3)
    assert not offer(again, 4, 0.4)
    assert offer(again, 5, 0.6)
    assert best.read_best(tmp_path)["step"] == 5


def test_a_run_that_falls_back_falls_back_to_what_was_best_then(tmp_path):
    """A checkpoint of step 3; bests of steps 2, 5, 6; the newest start begins with step 3."""
    cfg = config(tmp_path)
    keeper = best.BestKeeper(cfg, 0)
    offer(keeper, 2, 0.5)
    checkpoint.save(cfg, 3, weights(3))
    offer(keeper, 5, 0.6)
    offer(keeper, 6, 0.7)
    assert kept(tmp_path) == [2, 6]  # 5 can be needed by no fall back
    again = best.BestKeeper(cfg, 3)
    assert kept(tmp_path) == [2]
    assert best.read_best(tmp_path)["value"] == 0.5
    assert offer(again, 6, 0.55)
    assert best.read_best(tmp_path)["value"] == 0.55


def test_a_run_that_starts_afresh_has_no_best(tmp_path):
    offer(best.BestKeeper(config(tmp_path), 0), 0, 0.9)
    keeper = best.BestKeeper(config(tmp_path), 0)
    with pytest.raises(FileNotFoundError, match=r"holds no best weights; .*eval.every=N"):
        best.read_best(tmp_path)
    assert offer(keeper, 0, 0.1)  # a validation, as the message advises
    assert best.read_best(tmp_path)["value"] == 0.1


@pytest.mark.parametrize("text", ["", '{"step": '])
def test_damaged_facts_of_the_best_are_named_and_their_remedy_works(tmp_path, text):
    cfg = config(tmp_path)
    keeper = best.BestKeeper(cfg, 0)
    checkpoint.save(cfg, 3, weights(3))
    offer(keeper, 2, 0.5)
    offer(keeper, 4, 0.6)
    (tmp_path / "best" / "4" / best.FACTS).write_text(text)
    for use in (best.read_best, lambda root: best.BestKeeper(cfg, 5)):
        with pytest.raises(ValueError, match=rf"best/4/{best.FACTS} .*move \S+ away") as caught:
            use(tmp_path)
    shutil.move(re.search(r"move (\S+) away", str(caught.value))[1], tmp_path / "away")
    assert best.read_best(tmp_path)["step"] == 2
    assert offer(best.BestKeeper(cfg, 5), 6, 0.7)


def test_damaged_best_weights_are_moved_away_as_advised_and_those_before_are_used(tmp_path):
    cfg = config(tmp_path)
    keeper = best.BestKeeper(cfg, 0)
    checkpoint.save(cfg, 3, weights(3))
    offer(keeper, 2, 0.5)
    offer(keeper, 4, 0.6)
    for path in (tmp_path / "best" / "4").rglob("d/*"):
        path.write_bytes(b"rotten")
    with pytest.raises(
        ValueError, match=r"best/4/params cannot be restored; .*move \S+ away"
    ) as caught:
        best.load_best(tmp_path, weights(0))
    shutil.move(re.search(r"move (\S+) away", str(caught.value))[1], tmp_path / "away")
    np.testing.assert_array_equal(best.load_best(tmp_path, weights(0))["norm"], np.full(4, 2.0))


def test_weights_without_their_facts_do_not_count(tmp_path):
    """A kill after the weights and before best.json."""
    cfg = config(tmp_path)
    offer(best.BestKeeper(cfg, 0), 2, 0.5)
    arrays.save_params(tmp_path / "best" / "3", weights(3))
    assert best.read_best(tmp_path)["step"] == 2
    keeper = best.BestKeeper(cfg, 4)
    assert kept(tmp_path) == [2]
    assert offer(keeper, 5, 0.6)


def test_another_score_is_judged_anew_and_the_old_best_stays_until_then(tmp_path):
    offer(best.BestKeeper(config(tmp_path), 0), 2, 0.5)
    keeper = best.BestKeeper(config(tmp_path, "checkpoint.best=greedy/iou"), 3)
    assert best.read_best(tmp_path)["metric"] == METRIC
    assert keeper.offer(4, {"greedy/iou": 0.1}, weights(4))
    assert best.read_best(tmp_path)["metric"] == "greedy/iou"


def test_no_best_is_kept_where_none_is_asked_for(tmp_path):
    keeper = best.BestKeeper(config(tmp_path, "checkpoint.best="), 0)
    assert not offer(keeper, 1, 1.0)
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["checkpoint.best=f2"], r"checkpoint.best='f2' is no score.*reward, f1, .*sampled/reward"),
        (["checkpoint.best=greedy/f1", "eval.modes=sampled"], r"checkpoint.best='greedy/f1'"),
        (["checkpoint.best=sampled/novel/f1"], r"checkpoint.best='sampled/novel/f1'"),
        (["checkpoint.best=sampled/controls/empty"], r"checkpoint.best='sampled/controls/empty'"),
        (["eval.modes=greedy,greedy"], r"eval.modes=.* repeats a mode"),
        (["eval.splits=heldout"], r"eval.splits.*data.eval_split"),
        (["eval.splits=a,b", "eval.controls=b"], r"eval.splits=.* repeats a name"),
        (["eval.controls=single"], r"eval.controls.*trained on"),
    ],
)
def test_what_a_validation_cannot_give_is_refused_with_what_it_can(tmp_path, settings, text):
    with pytest.raises(ValueError, match=text):
        config(tmp_path, *settings)


def test_a_score_of_another_split_may_choose_the_best(tmp_path):
    asked = ("eval.splits=novel", "eval.controls=same", "checkpoint.best=greedy/novel/f1")
    assert config(tmp_path, *asked).checkpoint.best == "greedy/novel/f1"
    config(tmp_path, "eval.controls=same", "checkpoint.best=sampled/controls/empty")


def test_another_protocol_is_judged_anew_and_another_split_beside_it_is_not(tmp_path, capsys):
    """The old best score stayed the bar for other pairs, or for another way of answering."""
    cfg = config(tmp_path)
    assert offer(best.BestKeeper(cfg, 0), 2, 0.9)
    same = typed.override(cfg, ["eval.every=3", "eval.bootstrap=7", "eval.controls=test_same"])
    assert not offer(best.BestKeeper(same, 2), 4, 0.5)
    assert "judged anew" not in capsys.readouterr().out
    settings = ("eval.pairs=3", "data.eval_split=other", "eval.samples=5")
    for number, setting in enumerate(settings):
        other = typed.override(cfg, [setting])
        assert offer(best.BestKeeper(other, 4 + number), 5 + number, 0.5 - number / 10), setting
        told = capsys.readouterr().out
        assert "best weights: judged anew by another validation (" in told
        assert best.read_best(tmp_path)["value"] == 0.5 - number / 10


def test_a_best_score_of_replaced_pairs_is_no_bar(tmp_path):
    """The same split by name, other pairs."""
    cfg = typed.override(config(tmp_path), [f"data.root={tmp_path}/data"])
    write_split(tmp_path / "data", "heldout", [plain_pair((4, 5, 20, 25), seed=1)])
    assert offer(best.BestKeeper(cfg, 0), 2, 0.9)
    assert not offer(best.BestKeeper(cfg, 2), 3, 0.5)
    shutil.rmtree(tmp_path / "data")
    write_split(tmp_path / "data", "heldout", [plain_pair((4, 5, 20, 25), seed=2)])
    assert offer(best.BestKeeper(cfg, 2), 3, 0.5)
