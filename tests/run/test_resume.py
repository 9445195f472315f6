"""Who may write to a run's folders, and what a start may go on from."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dig_jax.common import locks, typed
from dig_jax.config import CheckpointConfig, Config, config_hash
from dig_jax.data.corpus.splits import render_split
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.doctor import folder
from dig_jax.hf.export import new_folder
from dig_jax.reward.custom import find_function
from dig_jax.run import checkpoint, manifest, resume
from dig_jax.run.runlog import RunLog
from tests import ROOT
from tests.common.test_locks import holder
from tests.corpora import FAKE, LOOK, plain_pair, write_split
from tests.run.test_checkpoint import state


def config(tmp_path, *settings):
    cfg = Config(run_dir=str(tmp_path / "run"), checkpoint=CheckpointConfig(every=1, keep=2))
    return typed.override(cfg, list(settings))


OWN = """
import sys
from dig_jax.common import typed
from dig_jax.config import Config
from dig_jax.run import resume
with resume.owned(typed.override(Config(), sys.argv[1:])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    "field", ["run_dir", pytest.param("checkpoint.root", marks=pytest.mark.slow)]
)
def test_a_second_run_in_one_folder_is_refused_by_field_host_and_process(tmp_path, field):
    """Their other folder is each its own."""
    settings = {name: f"{name}={tmp_path}/one/{name}" for name in ("run_dir", "checkpoint.root")}
    command = [sys.executable, "-c", OWN, *settings.values()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    child = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)
    assert child.stdout.readline() == "held\n"
    others = {name: f"{name}={tmp_path}/two/{name}" for name in settings}
    cfg = typed.override(Config(), list((others | {field: settings[field]}).values()))
    refused = rf"{field}: {tmp_path}/one/{field} is in use by .*\(process {child.pid} on .*\); end"
    for enter in (resume.owned, doctored[field]):
        with pytest.raises(locks.Taken, match=refused), enter(cfg):
            pass
    child.communicate("")
    with resume.owned(cfg):
        assert (tmp_path / "one" / field / locks.NAME).is_file()
    assert not (tmp_path / "two").exists()


doctored = {"run_dir": folder.writing, "checkpoint.root": folder.keeping}


def test_one_folder_for_both_is_locked_once(tmp_path):
    cfg = config(tmp_path, f"checkpoint.root={tmp_path}/run/../run")
    with resume.owned(cfg):
        assert [path.name for path in (tmp_path / "run").iterdir()] == [locks.NAME]


@pytest.mark.parametrize("field", ["run_dir", "checkpoint.root"])
def test_a_folder_that_cannot_be_written_is_named_before_anything_starts(tmp_path, field):
    (tmp_path / "file").write_text("")
    cfg = config(tmp_path, f"{field}={tmp_path}/file/x")
    with pytest.raises(OSError, match=rf"{field}='.*/file/x' cannot be written .*; make it"):
        with resume.owned(cfg):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_save_after_another_has_taken_the_folder_over_is_refused(tmp_path):
    """A machine that was suspended for longer than its silence is allowed."""
    cfg = config(tmp_path)
    with resume.owned(cfg):
        checkpoint.save(cfg, 1, state())
        (tmp_path / "run" / locks.NAME).write_text('{"pid": 7, "host": "h", "program": "p"}')
        with pytest.raises(locks.Taken, match=r"taken over by p \(process 7 on h\)"):
            checkpoint.save(cfg, 2, state())
    assert checkpoint.saved_steps(tmp_path / "run") == [1]


def test_two_renders_of_a_split_never_make_one_shard_at_once(tmp_path):
    """Different shards at once are welcome; a held one is refused before a scene is rendered."""
    spec = SplitSpec(Draw("single", 0), 8, 4)
    render = {"workers": 1, "report": lambda *_: None, "command": FAKE}
    with holder(tmp_path / "single" / "shard-00001.lock") as child:
        for shards in (None, [1]):
            with pytest.raises(locks.Taken, match=rf"--root: .*single is in use.*{child.pid}"):
                render_split(tmp_path, spec, LOOK, shards=shards, **render)
        assert not render_split(tmp_path, spec, LOOK, shards=[0], **render)["complete"]
    assert render_split(tmp_path, spec, LOOK, **render)["complete"]
    assert not list(tmp_path.rglob("*.lock"))


def test_two_exports_to_one_folder_are_not_made_at_once(tmp_path):
    (tmp_path / "hf").mkdir()
    with (
        holder(tmp_path / ".hf.lock") as child,
        pytest.raises(locks.Taken, match=rf"--out: .* in use by .*{child.pid}"),
        new_folder(tmp_path / "hf"),
    ):
        pass
    with new_folder(tmp_path / "hf") as partial:
        (partial / "new").write_text("")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["checksums.json", "hf", "new"]


def started(cfg, steps=2, first=0):
    """A start of a run as `train` makes it, with a checkpoint after `steps`; no model."""
    with resume.owned(cfg):
        resume.check_start(cfg)
        with RunLog(cfg, first):
            checkpoint.save(cfg, steps, state(seed=steps))


def starts_of(cfg):
    return json.loads((Path(cfg.run_dir) / "manifest.json").read_text())["starts"]


def test_a_second_run_does_not_take_over_the_checkpoints_of_another(tmp_path):
    """Two run folders, one checkpoint.root: the second trained nothing and exported the first's."""
    root = f"checkpoint.root={tmp_path}/kept"
    first, second = (config(tmp_path, f"run_dir={tmp_path}/{n}", root) for n in ("one", "two"))
    started(first)
    message = (
        rf"checkpoint.root='{tmp_path}/kept' holds step 2 of another run, 'tiny' of "
        rf"{tmp_path}/one, not of {tmp_path}/two; name another .* by --run-dir {tmp_path}/one"
    )
    for check in (resume.check_start, lambda cfg: folder.continuing(cfg)):
        with pytest.raises(ValueError, match=message):
            check(second)
    started(typed.override(second, [f"checkpoint.root={tmp_path}/other"]))  # one remedy
    started(first, 3, first=2)  # the other
    assert checkpoint.saved_steps(tmp_path / "kept") == [2, 3]


def test_a_run_that_never_saved_does_not_go_on_from_another_s_checkpoints(tmp_path):
    """It began in the root first, so that its config.json names it; numbers tell them apart."""
    root = f"checkpoint.root={tmp_path}/kept"
    first, second = (config(tmp_path, f"run_dir={tmp_path}/{n}", root) for n in ("one", "two"))
    with RunLog(first, 0):
        pass
    started(second)
    with pytest.raises(ValueError, match=rf"of another run, 'tiny' of {tmp_path}/two"):
        resume.check_start(first)


@pytest.mark.parametrize("held", [False, True])
def test_checkpoints_are_copied_to_another_root_by_the_command_that_is_told(tmp_path, held):
    """Into a folder that is not there, and into one that a start has opened already."""
    old, root = config(tmp_path), tmp_path / "a place" / "kept"
    started(old)
    moved = typed.override(old, [f"checkpoint.root={root}"])
    if held:
        (root / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds no checkpoint, but .*; set it back to") as caught:
        resume.check_start(moved)
    assert resume.check_start(old) == 2  # the first way
    assert resume.check_start(typed.override(moved, [f"run_dir={tmp_path}/new"])) is None
    command = re.search(r"by `([^`]*)`", str(caught.value))[1]
    subprocess.run(command, shell=True, check=True)
    assert resume.check_start(moved) == 2
    started(moved, 3, first=2)


def test_the_root_of_a_run_is_no_run_folder_of_another(tmp_path):
    started(config(tmp_path, f"checkpoint.root={tmp_path}/kept"))
    with pytest.raises(ValueError, match=rf"run_dir='{tmp_path}/kept' holds step 2 of another"):
        resume.check_start(config(tmp_path, f"run_dir={tmp_path}/kept"))


def test_a_run_goes_on_after_its_folder_was_lost_or_moved(tmp_path):
    """A machine that takes another's place starts the same command with an empty disk."""
    cfg = config(tmp_path, f"checkpoint.root={tmp_path}/kept")
    started(cfg)
    number = json.loads((tmp_path / "run" / "manifest.json").read_text())["run"]
    shutil.rmtree(tmp_path / "run")
    started(cfg, 3, first=2)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["run"] == number
    shutil.move(tmp_path / "run", tmp_path / "moved")
    started(typed.override(cfg, [f"run_dir={tmp_path}/moved"]), 4, first=3)
    whole = config(tmp_path, f"run_dir={tmp_path}/whole")  # checkpoints inside
    started(whole)
    shutil.move(tmp_path / "whole", tmp_path / "away")
    started(typed.override(whole, [f"run_dir={tmp_path}/away"]), 3, first=2)


def splits(root, seed):
    """single, dual and mixed of one pair each."""
    for name in ("single", "dual", "mixed"):
        write_split(root, name, [plain_pair((4, 5, 20, 25), seed=seed)])


def test_pairs_that_were_replaced_are_refused_by_split_or_accepted_and_recorded(tmp_path):
    cfg = config(tmp_path, f"data.root={tmp_path}/data")
    splits(tmp_path / "data", seed=1)
    started(cfg)
    shutil.move(tmp_path / "data", tmp_path / "moved")
    moved = typed.override(cfg, [f"data.root={tmp_path}/moved"])
    started(moved, 3, first=2)
    shutil.rmtree(tmp_path / "moved" / "dual")
    write_split(tmp_path / "moved", "dual", [plain_pair((1, 1, 9, 9), seed=7)])
    wrong = r"(?s)data.dual: saved '1 pairs \w{12}', now '1 pairs \w{12}'\n.*accept=data.dual$"
    for check in (resume.check_start, lambda cfg: folder.continuing(cfg)):
        with pytest.raises(ValueError, match=wrong) as caught:
            check(moved)
        assert "data.single" not in str(caught.value)
    for accept in ("data.dual", "data"):
        resume.check_start(typed.override(moved, [f"checkpoint.accept={accept}"]))
    started(typed.override(moved, ["checkpoint.accept=data.dual"]), 4, first=3)
    last = starts_of(moved)[-1]
    assert list(last["accepted"]) == ["data.dual"]
    assert last["depends"]["data.dual"] == last["accepted"]["data.dual"][1]
    started(moved, 5, first=4)  # what was accepted is what later starts are compared with
    assert "accepted" not in starts_of(moved)[-1]


def test_a_reward_module_that_was_edited_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "my_rewards_of_resume.py"
    file.write_text("def reward(sample):\n    return 1.0\n")
    cfg = config(tmp_path, "reward.function=my_rewards_of_resume:reward")
    find_function(cfg.reward)
    started(cfg)
    file.write_text("def reward(sample):\n    return 2.0\n")
    wrong = r"reward.module: saved 'my_rewards_of_resume.py \w+', now 'my_rewards_of_resume.py \w+'"
    with pytest.raises(ValueError, match=wrong):
        resume.check_start(cfg)
    resume.check_start(typed.override(cfg, ["checkpoint.accept=reward"]))


def test_another_source_is_refused_by_what_differs(tmp_path):
    """Its template, its weights, in numbers or in size; not its card."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "assets" / "tiny_qwen3vl", source)
    cfg = config(tmp_path, f"model.source={source}")
    started(cfg)
    (source / "README.md").write_text("other words")
    resume.check_start(cfg)
    template = source / "chat_template.jinja"
    whole = template.read_text()
    template.write_text("another")
    with pytest.raises(ValueError, match=r"source.files: saved '\w+', now '\w+'\n(?!  source)"):
        resume.check_start(cfg)
    template.write_text(whole)  # put back, the first way of the message
    resume.check_start(cfg)
    template.write_text("another")
    resume.check_start(typed.override(cfg, [f"run_dir={tmp_path}/new"]))  # the second
    template.write_text(whole)
    weights = next(source.glob("*.safetensors"))
    stored = weights.read_bytes()
    start = 8 + int.from_bytes(stored[:8], "little")
    tuned = np.frombuffer(stored[start:], np.float32) * np.float32(1.001)
    weights.write_bytes(stored[:start] + tuned.tobytes())  # the same shapes, sizes and names
    with pytest.raises(ValueError, match=r"source.weights: saved '\w+', now '\w+'\n"):
        resume.check_start(cfg)
    template.write_text("another")
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"(?s)source.files: .*source.weights: saved"):
        resume.check_start(cfg)


def test_precision_and_versions_that_differ_are_refused_by_name(tmp_path, monkeypatch):
    cfg = config(tmp_path)
    started(cfg)
    with jax.enable_x64(True):
        with pytest.raises(ValueError, match=r"jax_enable_x64: saved 'False', now 'True'"):
            resume.check_start(cfg)
    with jax.default_matmul_precision("bfloat16"):
        with pytest.raises(ValueError, match=r"matmul_precision: saved 'None', now 'bfloat16'"):
            resume.check_start(cfg)
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_allow_excess_precision=false")
        with pytest.raises(ValueError, match=r"xla_allow_excess_precision: saved '', now 'false'"):
            resume.check_start(cfg)
    known = {**manifest.versions(), "jax": "0.1"}
    monkeypatch.setattr(manifest, "versions", lambda: known)
    with pytest.raises(ValueError, match=rf"versions.jax: saved '{jax.__version__}.*', now '0.1'"):
        resume.check_start(cfg)
    accepted = typed.override(cfg, ["checkpoint.accept=versions"])
    started(accepted, 3, first=2)
    assert list(starts_of(cfg)[-1]["accepted"]) == ["versions.jax"]


def test_what_is_accepted_is_named_and_has_no_say_in_the_numbers(tmp_path):
    with pytest.raises(
        ValueError, match=r"checkpoint.accept=\['versoins'\] is nothing .* versions"
    ):
        config(tmp_path, "checkpoint.accept=versoins")
    cfg = config(tmp_path)
    assert config_hash(cfg) == config_hash(typed.override(cfg, ["checkpoint.accept=data"]))


def test_a_run_made_before_anything_was_recorded_goes_on_with_a_word(tmp_path, capsys):
    cfg = config(tmp_path)
    started(cfg)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2" / "record")
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"starts": [{"first_step": 0}]}))
    started(cfg, 3, first=2)
    assert "2 does not tell what it depends on: nothing is compared" in capsys.readouterr().out
    assert checkpoint.saved_record(tmp_path / "run", 3)["depends"]


def test_the_advice_of_a_stop_for_a_number_that_is_not_finite_works(tmp_path):
    """ "lower optim.rate or set grpo.kl_max, and start again": until a checkpoint is past it."""
    cfg = config(tmp_path)
    started(cfg)
    advised = typed.override(cfg, ["optim.rate=1e-9", "grpo.kl_max=5"])
    with pytest.raises(ValueError, match=r"(?s)grpo.kl_max: saved 0.0, now 5.0.*optim.rate"):
        resume.check_start(advised)
    with RunLog(cfg, 2) as log, pytest.raises(FloatingPointError, match=r"lower optim.rate"):
        log.write(3, {"loss": math.nan})
    resume.check_start(advised)
    assert "goes on after step 2" in folder.continuing(advised).text
    with pytest.raises(ValueError, match=r"seed: saved 0, now 1"):
        resume.check_start(typed.override(advised, ["seed=1"]))
    started(advised, 4, first=2)
    last = starts_of(cfg)
    assert last[-2]["stopped"] == {"step": 3, "why": "loss=nan"}
    assert set(last[-1]["changed"]) == {"optim.rate", "grpo.kl_max"}
    with pytest.raises(ValueError, match=r"optim.rate: saved 1e-09"):
        resume.check_start(cfg)


def test_a_finished_run_says_so_and_its_remedy_works(tmp_path, capsys):
    cfg = config(tmp_path)
    started(cfg, cfg.steps)
    assert resume.check_start(cfg) == cfg.steps
    resume.tell_done(cfg)
    said = capsys.readouterr().out
    assert f"nothing left to do: {cfg.run_dir} has its {cfg.steps} steps; it goes on by" in said
    longer = re.findall(r"--set (\S+)=N", said)
    resume.check_start(typed.override(cfg, [f"{name}=90" for name in longer]))


def test_fewer_steps_than_are_done_are_refused_by_that_field(tmp_path):
    started(config(tmp_path), 50)
    fewer = config(tmp_path, "steps=45", "curriculum.stages.2.until=45")
    with pytest.raises(ValueError, match=r"steps=45, but .*/50 has done 50 .*; use steps=50 or"):
        resume.check_start(fewer)
    assert resume.check_start(config(tmp_path, "steps=50", "curriculum.stages.2.until=50")) == 50
    assert resume.check_start(typed.override(fewer, [f"run_dir={tmp_path}/new"])) is None


@pytest.mark.parametrize("text", ["", '{"run": '])
def test_a_damaged_file_of_a_run_is_named_and_its_remedy_works(tmp_path, text):
    cfg = config(tmp_path)
    started(cfg, 2)
    started(cfg, 3, first=2)
    run = tmp_path / "run"
    files = [run / "manifest.json", run / "config.json"]
    files += [run / "checkpoints" / "3" / name / "metadata" for name in ("config", "record")]
    for path in files:
        whole = path.read_text()
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"{path} (is empty|is not valid JSON).*; move ") as e:
            started(cfg, 4, first=3)
        away = Path(re.search(r"move (it|\S+) away", str(e.value))[1].replace("it", str(path)))
        if away != path:
            assert away == run / "checkpoints" / "3"
            path.write_text(whole)
            continue
        shutil.move(path, tmp_path / path.name)
        resume.check_start(cfg)
        shutil.move(tmp_path / path.name, path)
        path.write_text(whole)
    (files[2]).write_text(text)
    shutil.move(run / "checkpoints" / "3", tmp_path / "3")
    started(cfg, 3, first=2)
    assert checkpoint.saved_steps(run) == [2, 3]
