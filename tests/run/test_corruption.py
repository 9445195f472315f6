"""Damage to a run's files is found before it is used and named with a remedy that works.

Every kind of file of a run folder, a checkpoint, kept weights, an evaluation, an export and an
import: one byte changed, cut in half, emptied, deleted, exchanged with another run's. What is not
found must be harmless by construction: the outcome is the undisturbed one. Remedies of messages
are followed to the letter. Run it with -s for the table.
"""

import dataclasses
import itertools
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax import report
from dig_jax.common.files import write_sealed
from dig_jax.config import CheckpointConfig, Config, CurriculumConfig, EvalConfig, LogConfig, Stage
from dig_jax.convert.__main__ import main as convert
from dig_jax.hf import weights
from dig_jax.run import (
    arrays,
    best,
    checkpoint,
    manifest,
    papers,
    resume,
    runlog,
    samples,
    trackers,
)
from tests.convert.test_convert import seeded
from tests.damage import PLANTED, cases, damage
from tests.run.test_checkpoint import state
from tests.test_report import evaluation
from tests.tiny_model import ASSETS, small_base

SCORE, STEPS = "greedy/f1", 6


def config(folder):
    return Config(
        name=folder.parent.name,
        run_dir=str(folder),
        steps=STEPS,
        eval=EvalConfig(every=2, modes=("greedy",)),
        checkpoint=CheckpointConfig(every=2, keep=2, best=SCORE),
        log=LogConfig(samples_every=2),
        curriculum=CurriculumConfig(stages=(Stage(STEPS, {"single": 1.0}),)),
    )


def train(folder, until=STEPS, seed=0):
    """A run as `train` makes it, of arithmetic instead of a model; goes on where it stopped."""
    cfg, like = config(folder), state()
    with resume.owned(cfg):
        first = resume.check_start(cfg) or 0
        papers.check_papers(cfg)
        now = checkpoint.restore(cfg, like)[0] if first else state(seed)
        path, number = folder / samples.ROWS, checkpoint.run_number(cfg, first)
        samples.tell_missing(cfg, first, runlog.drop_rows(path, first, number)[0])
        keeper = best.BestKeeper(cfg, first)
        with runlog.RunLog(cfg, first) as log:
            if not trackers.read_ids(folder):
                trackers.write_ids(folder, {"wandb": f"id{seed}"})
            for step in range(first, until):
                now = jax.tree.map(lambda leaf: leaf * 1.25 if leaf.ndim else leaf, now)
                log.write(step, {"reward": float(now["params"]["wq"][0, 0])})
                if step == 0 or step % 2:
                    row = {"step": step, "text": f"{seed} {step}"}
                    runlog.append_rows(path, [row], manifest.number_of(folder))
                if step % 2:
                    score = (0.1, 0.3, 0.2)[step // 2] + seed / 100
                    log.write(step, {SCORE: score}, kind="eval")
                    keeper.offer(step + 1, {SCORE: score}, now["params"])
                    checkpoint.save(cfg, step + 1, now)


def evaluate(folder, name, seed=0):
    """An evaluation of the run, which is the same whenever it is made."""
    body = evaluation(name, {"before": 1.0, "after": 1.5}[name] + seed / 10)
    body["rows"] = body["rows"][:2]
    write_sealed(folder / f"eval_{name}.json", {**body, "run": manifest.number_for(folder)})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs, four steps of six done, evaluated, exported and imported: one/, two/."""
    base = tmp_path_factory.mktemp("whole")
    for seed, name in enumerate(("one", "two")):
        work = base / "work"  # all are made and used at one place
        (work / "run").mkdir(parents=True)
        evaluate(work / "run", "before", seed)
        train(work / "run", 4, seed)
        evaluate(work / "run", "after", seed)
        report.write_report(work / "run")
        make_hf(work / "hf", seed)
        words = ["--source", str(work / "hf"), "--out", str(work / "orbax")]
        assert convert(["import", *words]) == 0
        work.rename(base / name)
    return base


def going_on(copy):
    """The run to its end: what came out, whatever was there before."""
    train(copy / "run")
    cfg = config(copy / "run")
    final = checkpoint.restore(cfg, state())[0]
    kept = best.read_best(copy / "run")
    told = {
        name: runlog.read_rows(copy / "run", name=name) for name in ("metrics.jsonl", samples.ROWS)
    }
    return {
        "later": [runlog.comparable(row) for row in told[runlog.METRICS] if row["step"] >= 4],
        "final": _bits(final),
        "steps": checkpoint.saved_steps(copy / "run"),
        "rows": [[runlog.comparable(row) for row in rows] for rows in told.values()],
        "best": (kept, _bits(best.load_best(copy / "run", state()["params"]))),
        "ids": trackers.read_ids(copy / "run"),
        "config": manifest.read_settings(copy / "run"),
    }


def reported(copy):
    report.write_report(copy / "run")
    text = (copy / "run" / "report.md").read_text()
    rows = [r for r in runlog.read_rows(copy / "run", kind="train") if r["step"] < 4]
    return {"table": text.partition("## Cost")[0].partition("Left out")[0], "rows": len(rows)}


def kept_weights(copy):
    """As `convert export --from-best` reads them."""
    told = json.loads(best.best_config(copy / "run"))
    return {"config": told, "facts": best.read_best(copy / "run"),
            "bits": _bits(best.load_best(copy / "run", state()["params"]))}  # fmt: skip


def restored(copy):
    """The newest checkpoint as an evaluation and a resume read it."""
    return {"bits": _bits(checkpoint.restore(config(copy / "run"), state())[0])}


def opened(copy):
    model = weights.read_model_config(copy / "hf")
    return {"model": model, "bits": _bits(weights.load_params(copy / "hf", model))}


def imported(copy):
    model = weights.read_model_config(copy / "orbax")
    like = jax.tree.map(lambda leaf: jax.device_put(jnp.zeros_like(leaf)), seeded(0))
    return {"model": model, "bits": _bits(arrays.load_params(copy / "orbax", like))}


def _bits(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def make_hf(folder, seed=0):
    weights.save_hf(folder, seeded(seed), small_base(), source_folder=ASSETS, shard_bytes=40_000)


def make_again(copy, text):
    """ "by the command that made it", into the same folder."""
    folder = copy / ("orbax" if f"{copy}/orbax" in text else "hf")
    if folder.name == "hf":
        make_hf(folder)
    else:
        words = ["--source", str(copy / "hf"), "--out", str(folder), "--overwrite"]
        assert convert(["import", *words]) == 0


def follow(copy, text):
    """Do what a message says, whatever else it says."""
    if "move both away" in text:
        for name in (manifest.NAME, manifest.SETTINGS):
            (copy / "run" / name).unlink()
    elif away := re.search(r"move (it|the file|/\S+) (?:away|is)", text):
        named = re.search(r"/\S+", text)[0] if away[1] in ("it", "the file") else away[1]
        named = Path(named.rstrip(",;:"))
        shutil.rmtree(named) if named.is_dir() else named.unlink()
    elif "delete it, and evaluate again" in text or "make it with `python -m dig_jax.eval" in text:
        path = Path(re.search(r"/\S+eval_\w+\.json", text)[0])
        path.unlink(missing_ok=True)
        evaluate(path.parent, path.stem.removeprefix("eval_"))
    elif "The command that trains there" in text:
        train(copy / "run")
    elif "then the same import makes it again" in text:
        shutil.rmtree(re.search(r"delete (\S+):", text)[1])
        make_again(copy, text)
    elif "by the command that made it" in text or "make it again" in text:
        make_again(copy, text)
    else:
        pytest.fail(f"no remedy in: {text}")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file, and what is done with it next.

    path      below a run's folder; of several files that match, each is damaged in every way
    use       (copy) -> name -> what comes out; raises where damage is found
    may_lose  names of what a remedy that gives up the file may change
    told      where nothing is refused: what the output says; "": the outcome is undisturbed
    """

    path: str
    use: Callable
    may_lose: tuple[str, ...] = ()
    told: str = ""


STEP = "run/checkpoints/4/"
ROWS, KEPT = ("rows", "best"), ("best",)
KINDS = {
    "config.json": Kind("run/config.json", going_on),
    "config.json, report": Kind("run/config.json", reported, ("rows",)),
    "manifest.json": Kind("run/manifest.json", going_on, told="lacks manifest.json"),
    "manifest.json, report": Kind("run/manifest.json", reported, ("rows",)),
    "metrics.jsonl": Kind("run/metrics.jsonl", going_on, ROWS, "metrics.jsonl lacks the rows of"),
    "metrics.jsonl, report": Kind("run/metrics.jsonl", reported, ("rows",), "lacks the rows of"),
    "samples.jsonl": Kind("run/samples.jsonl", going_on, ROWS, "samples.jsonl lacks the answers"),
    "trackers.json": Kind("run/trackers.json", going_on, ("ids",), "trackers.json"),
    "best.json": Kind("run/best/4/best.json", going_on, KEPT, "best weights of step 4"),
    "best.json, export": Kind("run/best/4/best.json", kept_weights, ("facts", "bits", "config"),
                              "4 has no best.json"),
    "best config": Kind("run/best/4/config.json", kept_weights, ("facts", "bits", "config")),
    "best digest": Kind("run/best/4/digest.json", kept_weights, ("facts", "bits", "config")),
    "best arrays": Kind("run/best/4/params/**/*", kept_weights, ("facts", "bits", "config")),
    "checkpoint config": Kind(STEP + "config/metadata", going_on),
    "checkpoint record": Kind(STEP + "record/metadata", going_on),
    "checkpoint digest": Kind(STEP + "digest/metadata", going_on),
    "checkpoint arrays": Kind(STEP + "state/**/*", restored, ("bits",)),
    "checkpoint arrays, run": Kind(STEP + "state/d/*", going_on),
    "checkpoint notes": Kind(STEP + "_CHECKPOINT_METADATA", going_on),
    "evaluation": Kind("run/eval_after.json", reported),
    "evaluation before": Kind("run/eval_before.json", reported),
    "events": Kind("run/tensorboard/*", going_on),
    "report": Kind("run/report.md", reported),
    "picture": Kind("run/curves.png", reported),
    "export config": Kind("hf/config.json", opened),
    "export tokenizer": Kind("hf/tokenizer.json", opened),
    "export processor": Kind("hf/preprocessor_config.json", opened),
    "export index": Kind("hf/model.safetensors.index.json", opened),
    "export weights": Kind("hf/model-00002-of-*.safetensors", opened),
    "export checksums": Kind("hf/checksums.json", opened),
    "import config": Kind("orbax/config.json", imported),
    "import digest": Kind("orbax/digest.json", imported),
    "import checksums": Kind("orbax/checksums.json", imported),
    "import arrays": Kind("orbax/params/**/*", imported),
}  # fmt: skip


def is_found(kind, copy, path, wanted, capsys):
    """Found and mended by its remedy, or harmless; says which."""
    texts = []
    for _ in range(4):
        capsys.readouterr()
        try:
            got = kind.use(copy)
        except (ValueError, OSError) as error:
            texts.append(str(error))
            follow(copy, texts[-1])
            continue
        if texts:
            parts = [*path.relative_to(copy).parts[1:]]
            names = [part for part in parts if any(part in text for text in texts)]
            assert names, texts
        said = capsys.readouterr().out + _left_out(copy)
        lost = kind.may_lose if texts or (kind.told and kind.told in said) else ()
        wrong = [name for name in wanted if name not in lost and got[name] != wanted[name]]
        assert not wrong, f"{wrong} differ; {texts} {said}"
        return "found" if texts else "told" if lost else "harmless"
    return f"still: {texts}"


def _left_out(copy):
    path = copy / "run" / "report.md"
    return path.read_text() if path.is_file() else ""


TOTAL = Counter()


@pytest.fixture(scope="module", autouse=True)
def _total():
    yield
    print(f"\nin all {TOTAL.total()} planted: {dict(TOTAL)}")


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_planted_damage_is_found_named_and_mended_or_harmless(name, made, capsys):
    kind, rng, table = KINDS[name], random.Random(name), Counter()
    copy = made / "work"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(made / "one", copy)
    wanted = kind.use(copy)
    shutil.rmtree(copy)
    files = sorted(path for path in (made / "one").glob(kind.path) if path.is_file())
    for file, damaged in itertools.product(files, cases()):
        shutil.copytree(made / "one", copy)
        path = copy / file.relative_to(made / "one")
        others = [made / "two" / path.relative_to(copy)]
        if not others[0].is_file():  # Orbax names its data by chance
            others = [p for p in (made / "two").glob(kind.path) if p.is_file()]
        damage(damaged, path, others[0], rng)
        outcome = is_found(kind, copy, path, wanted, capsys)
        assert outcome in ("found", "told", "harmless"), f"{damaged} {path}: {outcome}"
        table[outcome] += 1
        TOTAL[outcome] += 1
        shutil.rmtree(copy)
    with capsys.disabled():
        print(f"{name}: {dict(table)}")
    assert table.total() == PLANTED * len(files) > 0
