"""The scripts of tpu/: refused without arguments, printed by --dry-run, run by a worker's shell.

A program named gcloud, first on the PATH, is whatever a test needs of Google's: one that must not
be called, or one whose workers are a folder.
"""

import os
import re
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

TPU = ROOT / "tpu"
DEADLINE_S = 60  # of what takes milliseconds: only a hang reaches it
ODD = """a b;touch x 'y' "z" $HOME `id` *\\"""

FORBIDDEN = "#!/bin/bash\ntouch {home}/called\nexit 99\n"
# ssh runs --command in the worker's home, scp copies there; the rest is only written down
WORKER = """#!/bin/bash
for word; do
    case $word in
        --command=*sudo* | --command=*env.sh* | --command=*'gcloud storage'*) exit 0 ;;
        --command=*) cd {home} && HOME={home} exec bash -c "${{word#--command=}}" ;;
    esac
done
[[ $4 != scp ]] || exec cp "$5" {home}/"${{6#*:}}"
"""
NAMED = ("--zone", "z")
# script -> arguments that lack something; what it says is missing
LACKING = {
    "create.sh": [(("n",), "--zone"), (("n", *NAMED), "--type")],
    "setup.sh": [
        ((), "NAME"),
        (("n", *NAMED, "--share", "host"), "HOST:/EXPORT"),
        (("n", *NAMED, "--data", "b/f"), "gs://BUCKET/FOLDER"),
        (("n", *NAMED, "--commit", "nobody"), "--commit"),
    ],
    "run.sh": [(("n", *NAMED), "COMMAND"), (("n", *NAMED, "--stop", "--", "x"), "COMMAND")],
    "watch.sh": [(("n",), "--zone"), (("n", *NAMED, "--mirror", "r"), "gs://BUCKET/FOLDER")],
    "delete.sh": [((), "NAME"), (("n", "m"), "one NAME"), (("n", "--zone"), "needs a value")],
    "complete.sh": [(("run", "3"), "COMMAND"), (("run", "x", "true"), "STEPS")],
}
# arguments -> the commands that a dry run prints, by what each line must hold
PRINTED = {
    ("create.sh", "--type", "v5e-16", "--spot"): [
        "queued-resources create --node-id= --accelerator-type=v5litepod-16 --spot "
        "--runtime-version=v2-alpha-tpuv5-lite"
    ],
    ("create.sh", "--type", "v5p-16", "--now"): ["tpu-vm create --version=v2-alpha-tpuv5"],
    ("create.sh", "--type", "v6e-8", "--project", "p", "--", "--network=n"): [
        "--runtime-version=v2-alpha-tpuv6e --project=p --network=n"
    ],
    ("setup.sh",): ["bundle create HEAD", "tpu-vm scp --worker=all", "checkout", "scripts/env.sh"],
    ("setup.sh", "--share", "h:/e", "--data", "gs://b/one/", "--data", "gs://b/two"): [
        "git bundle", "scp", "checkout", "env.sh", "h:/e /mnt/dig",
        "gs://b/one dig_jax/data/one", "gs://b/two dig_jax/data/two",
    ],
    ("run.sh", "--", "python", "x.py"): ["ssh --worker=all setsid nohup python x.py"],
    ("run.sh", "--wait", "--worker", "0", "--", "true"): ["ssh --worker=0 activate true"],
    ("run.sh", "--stop"): ["ssh --worker=all kill -TERM"],
    ("watch.sh",): ["ssh --worker=0 tail"],
    ("watch.sh", "--state"): ["queued-resources describe --format=value(state.state)"],
    ("watch.sh", "--mirror", "run", "--to", "gs://b/run"): ["rsync --recursive run gs://b/run"],
    ("delete.sh",): ["queued-resources delete --force"],
    ("delete.sh", "--now", "--yes"): ["tpu-vm delete --quiet"],
}  # fmt: skip


@pytest.fixture
def gcloud(tmp_path):
    """Puts a program named gcloud first on the PATH: use(text) -> environment."""

    def use(text: str) -> dict[str, str]:
        program = tmp_path / "bin" / "gcloud"
        program.parent.mkdir(exist_ok=True)
        program.write_text(text.format(home=shlex.quote(str(tmp_path))))
        program.chmod(0o755)
        return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}",
                "TMPDIR": str(tmp_path)}  # fmt: skip

    return use


def call(script: str, *words: object, tpu: Path = TPU, **more) -> subprocess.CompletedProcess:
    command = ["bash", str(tpu / script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, **more)


def said(fifo: int) -> str:
    """The next thing that the far end of a FIFO says."""
    assert select.select([fifo], [], [], DEADLINE_S)[0], "nothing was said"
    return os.read(fifo, 100).decode()


def test_every_script_is_covered_here():
    scripts = {path.name for path in TPU.glob("*.sh")} - {"arguments.sh"}
    assert scripts == set(LACKING)
    assert {words[0] for words in PRINTED} == scripts - {"complete.sh"}


@pytest.mark.parametrize("path", sorted(TPU.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_parses_and_is_strict_and_short(path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    text = path.read_text()
    assert "set -euo pipefail" in text or path.name == "arguments.sh"
    assert len(text.splitlines()) < 60


@pytest.mark.parametrize("script", LACKING)
def test_without_its_arguments_a_script_is_refused_with_its_usage(script, gcloud, tmp_path):
    env = gcloud(FORBIDDEN)
    for words, missing in [((), ""), *LACKING[script]]:
        done = call(script, *words, env=env)
        assert (done.returncode, done.stdout) == (2, ""), (words, done.stderr)
        reason, usage = done.stderr.split("\n", 1)
        assert missing in reason
        assert f"tpu/{script} " in usage
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("script", LACKING)
def test_help_is_the_scripts_own_comment(script):
    done = call(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    comment = (TPU / script).read_text().split("\nset -euo", 1)[0].splitlines()[1:]
    assert done.stdout.splitlines() == [line[2:] for line in comment]


@pytest.mark.parametrize("words", PRINTED, ids=" ".join)
def test_a_dry_run_prints_one_command_a_line_and_runs_none(words, gcloud, tmp_path):
    script, *rest = words
    at = rest.index("--") if "--" in rest else len(rest)
    given = [*rest[:at], *NAMED, "--dry-run", "my-slice", *rest[at:]]
    done = call(script, *given, env=gcloud(FORBIDDEN))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(PRINTED[words])
    for line, parts in zip(lines, PRINTED[words], strict=True):
        command = shlex.split(line)
        assert command[0] in ("gcloud", "git")
        assert all(part in " ".join(command) for part in parts.split()), line
        if command[0] == "gcloud":
            assert "--zone=z" in command
            assert any("my-slice" in word for word in command)
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@pytest.mark.parametrize("words", PRINTED, ids=" ".join)
def test_a_name_of_odd_characters_stays_one_word(words):
    script, *rest = words
    done = call(script, ODD, *NAMED, "--dry-run", *rest)
    assert done.returncode == 0, done.stderr
    for command in map(shlex.split, done.stdout.splitlines()):
        assert command[0] == "git" or {ODD, f"{ODD}:dig_jax.bundle"} & set(command)


def test_a_workers_command_has_the_words_it_was_given(gcloud, tmp_path):
    """Through this shell, gcloud's --command, and the worker's shell."""
    (tmp_path / "dig_jax" / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "dig_jax" / ".venv" / "bin" / "activate").touch()
    words = [ODD, "", "--set", "prompt.question=what's 'new'?", "{a,b}", "~", "#", "two\nlines"]
    show = [sys.executable, "-c", "import sys; print(sys.argv[1:])"]
    done = call("run.sh", "n", *NAMED, "--wait", "--", *show, *words, env=gcloud(WORKER))
    assert done.stdout == f"{words}\n", done.stderr


def test_a_run_goes_on_by_itself_once_and_stops_when_told(gcloud, tmp_path):
    """Its output goes to its log, a second one is refused, --stop is a SIGTERM to the command."""
    (tmp_path / "dig_jax" / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "dig_jax" / ".venv" / "bin" / "activate").touch()
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    child = (
        "import os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "print('it runs', flush=True)\n"
        "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "signal.sigwait({signal.SIGTERM})\n"
        "open(sys.argv[1], 'w').write('stopped')\n"
    )
    start = ["run.sh", "n", *NAMED, "--", sys.executable, "-c", child, tmp_path / "fifo"]
    env = gcloud(WORKER)
    assert call(*start, env=env).returncode == 0
    number = int(said(fifo))
    try:
        assert (tmp_path / "dig_jax" / "log" / "run.pid").read_text() == f"{number}\n"
        again = call(*start, env=env)
        assert (again.returncode, again.stderr) == (1, "a run is going on here; --stop ends it\n")
        assert call("run.sh", "n", *NAMED, "--stop", env=env).returncode == 0
        assert said(fifo) == "stopped"
        assert (tmp_path / "dig_jax" / "log" / "run.log").read_text() == "it runs\n"
    finally:
        subprocess.run(["kill", "-KILL", str(number)], capture_output=True)
        os.close(fifo)


def test_setup_brings_a_commit_to_a_worker_and_its_successor(gcloud, tmp_path):
    """By a bundle: the worker's checkout is a git repository, which a run's manifest reads."""

    def git(*words: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e"]
        command = ["git", "-C", str(here), *who, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    here = tmp_path / "mine"
    (here / "tpu").mkdir(parents=True)
    for name in ("arguments.sh", "setup.sh"):
        (here / "tpu" / name).write_text((TPU / name).read_text())
    git("init", "-q")
    for text in ("first", "second"):
        (here / "code").write_text(text)
        git("add", ".")
        git("commit", "-q", "-m", text)
    (here / "code").write_text("not committed")
    env, worker = gcloud(WORKER), tmp_path / "dig_jax"
    for commit, text in (("HEAD~1", "first"), ("HEAD", "second")):
        done = call("setup.sh", "n", *NAMED, "--commit", commit, tpu=here / "tpu", env=env)
        assert done.returncode == 0, done.stderr
        assert (worker / "code").read_text() == text
    head = (worker / ".git" / "HEAD").read_text().strip()
    assert head == git("rev-parse", "HEAD")
    git("checkout", "-q", "-f", "HEAD~1")
    done = call("setup.sh", "n", *NAMED, "--commit", head, tpu=here / "tpu", env=env)
    assert (done.returncode, "does not descend" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("true", 143),
        ("mkdir -p run/checkpoints/2", 143),
        ("mkdir -p run/checkpoints/3", 0),
        ("mkdir -p run/checkpoints/3; exit 7", 7),
    ],
)
def test_a_run_is_complete_with_the_checkpoint_of_its_last_step(command, status, tmp_path):
    done = call("complete.sh", "run", 3, "bash", "-c", command, cwd=tmp_path)
    assert done.returncode == status


@pytest.mark.parametrize(("last", "status"), [("2", 143), ("3", 0)])
def test_a_notice_reaches_the_command_and_only_a_finished_run_is_done(last, status, tmp_path):
    child = (
        "import os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "print('up', flush=True)\n"
        "signal.sigwait({signal.SIGTERM})\n"
        "os.makedirs(sys.argv[1])\n"
    )
    words = ["bash", str(TPU / "complete.sh"), "run", "3", sys.executable, "-c", child]
    words.append(f"run/checkpoints/{last}")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == status
    assert (tmp_path / "run" / "checkpoints" / last).is_dir()


def test_no_file_names_a_project_a_bucket_or_a_host():
    """They are arguments; BUCKET stands for one."""
    for path in sorted(TPU.iterdir()):
        if path.is_file():
            for bucket in re.findall(r"gs://([\w.-]+)", path.read_text()):
                assert bucket == "BUCKET", path.name
            assert not re.search(r"\d+\.\d+\.\d+\.\d+\b(?!\.)", _without_versions(path)), path.name


def _without_versions(path: Path) -> str:
    """A file's text but for packages' versions, which can look like addresses."""
    return re.sub(r"(jax|libtpu) [\d.]+", "", path.read_text())
