"""Two processes are one run: the same tokens and losses as one, and one end for both.

The moment at which a process is killed is a step, not a second: it signals itself.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import jax
import numpy as np
import pytest

from dig_jax.config import (
    CheckpointConfig,
    Config,
    CurriculumConfig,
    DataConfig,
    EvalConfig,
    GrpoConfig,
    LogConfig,
    MeshConfig,
    ModelSource,
    OptimConfig,
    RewardConfig,
    RolloutConfig,
    Stage,
)
from dig_jax.hf import weights
from dig_jax.mesh import distributed
from dig_jax.mesh.sharding import CPU_ORDER
from dig_jax.run import checkpoint
from dig_jax.run.runlog import read_rows
from tests import ROOT
from tests.test_train import HEIGHT, WIDTH, config_file, write_split
from tests.tiny_model import ASSETS, make_tiny, small_base

STEPS = 4

# `python -m dig_jax.train`, with a checksum of all tokens in every row, and `kill -9` in the
# middle of the step that the test names as "<process> <step of this start>".
TRAIN = """
import os, signal, zlib
import jax
from dig_jax import train
process, step = map(int, os.environ["TEST_KILL"].split())
plain, done = train.step_metrics, 0
def step_metrics(drawn, *rest):
    global done
    done += 1
    if (jax.process_index(), done) == (process, step):
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(drawn, *rest) | {"tokens_crc": zlib.crc32(drawn.host.tokens.tobytes())}
train.step_metrics = step_metrics
train.main()
"""
SCORED = "def lettered(sample):\n    return len(set(sample.text)) / 8\n"


Child = tuple[subprocess.Popen, IO[str]]  # and the file that it prints into


def start(
    code: str, *arguments: str, processes: int, devices: int, cwd: Path | None = None, **more: str
) -> list[Child]:
    """That many children with `devices` each, joined by the three variables if there are several.

    more   of the environment
    """
    flags = f"--xla_force_host_platform_device_count={devices} {CPU_ORDER}"
    env = {**os.environ, "XLA_FLAGS": f"{flags} --xla_backend_optimization_level=0", **more}
    env["PYTHONPATH"] = str(ROOT)
    port, children = free_port(), []
    for index in range(processes):
        if processes > 1:
            env |= {"DIG_COORDINATOR": f"127.0.0.1:{port}", "DIG_PROCESSES": str(processes)}
            env |= {"DIG_PROCESS": str(index), "DIG_HEARTBEAT_TIMEOUT": "30"}
        command, printed = [sys.executable, "-c", code, *arguments], TemporaryFile("w+")
        child = subprocess.Popen(command, env=env, cwd=cwd, stdout=printed, stderr=printed)
        children.append((child, printed))
    return children


def ended(children: list[Child]) -> list[tuple[int, str]]:
    """(status, what it printed) of each, when all have ended by themselves."""
    try:
        statuses = [child.wait(timeout=900) for child, _ in children]
    finally:
        for child, _ in children:
            child.kill()
    for _, printed in children:
        printed.seek(0)
    return [(status, file.read()) for status, (_, file) in zip(statuses, children, strict=True)]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """A mesh of 4 x 2, a reward that differs between answers, pictures of every pair."""
    root = tmp_path_factory.mktemp("distributed")
    (root / "scored.py").write_text(SCORED)
    for name, differences in (("single", 1), ("dual", 2), ("heldout", 1)):
        write_split(root / "data", name, 8, differences)
    model = small_base()
    weights.save_hf(
        root / "model", make_tiny(jax.random.key(0), model), model, source_folder=ASSETS
    )
    return Config(
        steps=STEPS,
        pairs_per_step=8,
        run_dir=str(root / "one"),
        mesh=MeshConfig(fsdp=4, tensor=2),
        model=ModelSource(source=str(root / "model")),
        data=DataConfig(
            root=str(root / "data"), image_width=WIDTH, image_height=HEIGHT,
            buckets=("single", "dual"),
        ),
        rollout=RolloutConfig(group=2, max_tokens=8),
        grpo=GrpoConfig(kl_coef=0.0, entropy_coef=0.01, resample=1),
        reward=RewardConfig(function="scored:lettered"),
        optim=OptimConfig(rate=1e-3, freeze=("vision",)),
        curriculum=CurriculumConfig(stages=(Stage(STEPS, {"single": 0.5, "dual": 0.5}),)),
        eval=EvalConfig(pairs=8, batch=8, every=2, modes=("greedy",)),
        checkpoint=CheckpointConfig(every=1, keep=STEPS, best="greedy/reward"),
        log=LogConfig(samples_every=1, samples=8),
    )  # fmt: skip


def train(config: Config, run_dir: str, kill: str = "-1 0", **place) -> list[tuple[int, str]]:
    root = Path(config.run_dir).parent
    named = ("--config", config_file(config, root), "--run-dir", run_dir)
    return ended(start(TRAIN, *named, cwd=root, TEST_KILL=kill, **place))


PAIR = {"processes": 2, "devices": 4}


@pytest.fixture(scope="module")
def one(config) -> list[dict]:
    """The rows of one process with eight devices, never stopped."""
    [(status, printed)] = train(config, config.run_dir, processes=1, devices=8)
    assert status == 0, printed[-3000:]
    return read_rows(config.run_dir)


@pytest.fixture(scope="module")
def killed(config) -> tuple[str, list[tuple[int, str]], list[int]]:
    """Run folder of two processes, of which one dies in step 2; how they end; what is saved."""
    run_dir = str(Path(config.run_dir).with_name("two"))
    ends = train(config, run_dir, "1 3", **PAIR)
    return run_dir, ends, checkpoint.saved_steps(run_dir)


@pytest.fixture(scope="module")
def two(config, killed) -> str:
    """Its run folder, after both were started again."""
    ends = train(config, killed[0], **PAIR)
    assert [status for status, _ in ends] == [0, 0], ends
    return killed[0]


@pytest.mark.slow
def test_a_killed_process_ends_the_other_with_a_reason(killed):
    _, [(left, printed), (status, _)], saved = killed
    assert status == -signal.SIGKILL
    assert left not in (0, -signal.SIGKILL), printed
    assert "another process has ended first" in printed or "another task died" in printed
    assert saved == [1, 2]


@pytest.mark.slow
def test_two_processes_draw_the_tokens_and_compute_the_losses_of_one(one, two):
    """Through a kill and a restart, and each row once; sums may be in another order."""
    rows = read_rows(two)
    assert [(row["kind"], row["step"]) for row in rows] == [(r["kind"], r["step"]) for r in one]
    for mine, theirs in zip(rows, one, strict=True):
        assert mine.keys() == theirs.keys()
        for name in ("tokens_crc", "reward", "redrawn", "length", "greedy/reward"):
            assert mine.get(name) == theirs.get(name), (mine["step"], name)
        for name in ("loss", "grad_norm", "sampler_gap"):
            assert mine.get(name, 0) == pytest.approx(theirs.get(name, 0), rel=1e-5, abs=1e-5)
    assert max(row["grad_norm"] for row in one if "grad_norm" in row) > 0.01


@pytest.mark.slow
def test_process_0_alone_writes_what_one_process_would(config, one, two):
    texts = [
        [row["text"] for row in read_rows(folder, name="samples.jsonl")]
        for folder in (config.run_dir, two)
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) == STEPS * config.log.samples
    for folder in ("samples", "best", "checkpoints"):
        names = [
            sorted(path.name for path in Path(run, folder).iterdir())
            for run in (config.run_dir, two)
        ]
        assert names[0] == names[1], folder
    assert len(json.loads(Path(two, "manifest.json").read_text())["starts"]) == 2
    assert not Path(two, ".shared").exists()


AGREE = """
import os, signal, sys
import jax, numpy as np
from dig_jax.mesh import distributed
from dig_jax.mesh.notice import stop_on_notice
case, folder = sys.argv[1:]
with distributed.joined(), stop_on_notice() as notice:
    me = jax.process_index()
    assert not distributed.any_process(False)
    if case == "raises":
        if me == 1:
            raise RuntimeError("a bug on one machine")
        distributed.any_process(False)
    assert distributed.any_process(me == 1)
    assert not distributed.first_says(me == 1)
    distributed.check_same("answer", 42)
    distributed.check_shared("run_dir", folder)
    distributed.check_rewards(np.full((2, 3), np.nan), np.arange(2))
    reward = np.arange(6, dtype=np.float32).reshape(2, 3)
    for check, given in (
        (distributed.check_same, ("configuration", f"of {me}")),
        (distributed.check_shared, ("run_dir", folder if me else folder + "/other")),
        (distributed.check_rewards, (reward + me * (reward == 4), np.array([7, 8]))),
    ):
        try:
            check(*given)
        except (ValueError, RuntimeError) as error:
            print(error)
    step = 0
    while not notice.given(step):
        step += 1
        if me == 1 and step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
    print("steps", step)
"""


def agree(case: str, folder: Path) -> list[tuple[int, str]]:
    return ended(start(AGREE, case, str(folder), processes=2, devices=1))


@pytest.fixture(scope="module")
def agreed(tmp_path_factory) -> list[str]:
    """What two processes that differ on purpose print."""
    ends = agree("differ", tmp_path_factory.mktemp("agreed"))
    assert [status for status, _ in ends] == [0, 0], ends
    return [printed for _, printed in ends]


def test_what_differs_between_processes_is_said_on_both(agreed):
    for index, printed in enumerate(agreed):
        assert f"[1] have another configuration than process 0; process {index} has of" in printed
        assert "of process 0 is not what processes [1] see there" in printed
        assert "answer 1 to pair 8: 4.0 on process 0, 5.0 on process 1" in printed
        assert "(1 of 6)" in printed


def test_sigterm_on_one_process_ends_both_after_the_same_step(agreed):
    # not as a whole line: other logs go to the same file
    assert [re.findall(r"steps (\d+)", printed) for printed in agreed] == [["5"], ["5"]]
    assert "asked to end: stopped after step 5" in agreed[0]
    assert "SIGTERM: ends after the running step" in agreed[1]


def test_an_exception_on_one_process_does_not_leave_the_other_waiting(tmp_path):
    """Leaving as usual would keep both for five minutes (`shutdown_timeout_seconds`)."""
    (first, said), (second, failed) = agree("raises", tmp_path)
    assert second == 1
    assert "RuntimeError: a bug on one machine" in failed
    assert "process 1 of 2 ends by the error above" in failed
    assert first not in (0, -signal.SIGKILL), said


def test_a_lone_process_joins_nothing_and_agrees_with_itself(monkeypatch, tmp_path):
    for name in ("DIG_COORDINATOR", "DIG_PROCESSES", "DIG_PROCESS"):
        monkeypatch.delenv(name, raising=False)
    with distributed.joined():
        assert not jax.distributed.is_initialized()
        assert [distributed.any_process(flag) for flag in (False, True)] == [False, True]
        assert [distributed.first_says(flag) for flag in (False, True)] == [False, True]
        distributed.check_same("answer", 42)
        distributed.check_shared("run_dir", tmp_path / "absent")
        distributed.check_rewards(np.ones((2, 3), np.float32), np.arange(2))
    assert not (tmp_path / "absent").exists()


SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[3-4]", "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1", "SLURM_LOCALID": "0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "several"),
    [
        ({}, False),
        (SLURM, True),
        (SLURM | {"SLURM_NTASKS": "1"}, False),  # one task; an sbatch script before srun
        ({name: SLURM[name] for name in ("SLURM_JOB_ID", "SLURM_NTASKS")}, False),
        (SLURM | {"DIG_PROCESSES": "1"}, False),  # a shell inside an allocation of several tasks
    ],
)
def test_jaxs_detection_decides_unless_a_process_says_it_is_alone(monkeypatch, environ, several):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = distributed.join_arguments(os.environ)
    assert found == ({} if several else None)


def test_a_kubernetes_pod_without_its_client_is_warned_about_by_jax(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.warns(UserWarning, match="kubernetes"):
        assert distributed.join_arguments({}) is None


def test_a_cluster_that_cannot_be_read_is_an_error_with_the_way_out(monkeypatch):
    for name, value in (SLURM | {"SLURM_NTASKS": "two"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"a SlurmCluster fails .*DIG_PROCESSES=1 for a process"):
        distributed.join_arguments(os.environ)
    assert distributed.join_arguments({**os.environ, "DIG_PROCESSES": "1"}) is None
    assert distributed.join_arguments({**os.environ, **PLACE})["process_id"] == 3


PLACE = {"DIG_COORDINATOR": "10.0.0.1:8476", "DIG_PROCESSES": "4", "DIG_PROCESS": "3"}


def test_the_variables_name_a_process_and_how_long_it_waits():
    waits = {"DIG_JOIN_TIMEOUT": "60", "DIG_HEARTBEAT_TIMEOUT": "20"}
    assert distributed.join_arguments(PLACE | waits) == {
        "coordinator_address": "10.0.0.1:8476",
        "num_processes": 4,
        "process_id": 3,
        "cluster_detection_method": "deactivate",
        "initialization_timeout": 60,
        "heartbeat_timeout_seconds": 20,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert distributed.join_arguments({"DIG_PROCESSES": "1"}) is None


def test_a_port_that_is_taken_is_said_before_jax_crashes(monkeypatch):
    with socket.create_server(("", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        place = {"DIG_COORDINATOR": address, "DIG_PROCESSES": "2", "DIG_PROCESS": "0"}
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit, match=rf"'{address}': process 0 cannot listen"):
            with distributed.joined():
                pytest.fail("it went on")
        with socket.create_server(("", 0)) as free:  # another port
            other = f"127.0.0.1:{free.getsockname()[1]}"
        distributed._check_port(other)
    distributed._check_port(address)  # or once the program that had it has ended


@pytest.mark.parametrize(
    ("change", "message"),
    [  # a value of PLACE in place of each is what they advise
        ({"DIG_PROCESS": "4"}, r"DIG_PROCESS=4 is not below DIG_PROCESSES=4; .* 0 to 3"),
        ({"DIG_PROCESS": "-1"}, r"DIG_PROCESS='-1' is not a whole number from 0"),
        ({"DIG_PROCESSES": "four"}, r"DIG_PROCESSES='four' is not a whole number from 1"),
        ({"DIG_COORDINATOR": "10.0.0.1"}, r"DIG_COORDINATOR='10.0.0.1' is not host:port; write"),
        ({"DIG_COORDINATOR": "a:70000"}, r"DIG_COORDINATOR='a:70000' is not host:port"),
        ({"DIG_PROCESS": None}, r"DIG_PROCESSES=4 needs DIG_PROCESS; set all three, or none"),
        ({"DIG_PROCESSES": None}, r"DIG_COORDINATOR='10.0.0.1:8476' needs DIG_PROCESSES; set it"),
        ({"DIG_JOIN_TIMEOUT": "0"}, r"DIG_JOIN_TIMEOUT='0' is not a whole number from 1"),
    ],
)
def test_a_wrong_variable_is_named_with_its_rule_and_remedy(change, message):
    environ = {name: value for name, value in (PLACE | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        distributed.join_arguments(environ)
    advised = re.search(r"as DIG_COORDINATOR=(\S+)$", message_of(environ))
    place = PLACE | ({"DIG_COORDINATOR": advised[1]} if advised else {})
    assert distributed.join_arguments(place)["num_processes"] == 4
    assert distributed.join_arguments({"DIG_PROCESSES": "1"}) is None  # "or none", and alone


def message_of(environ) -> str:
    try:
        distributed.join_arguments(environ)
    except ValueError as error:
        return str(error)
    return ""
