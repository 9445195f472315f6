"""What tpu/README.md tells to run exists; the image and the JobSet are made of what there is."""

import importlib.util
import re
import shlex
import subprocess
import tomllib

import pytest
import yaml

from dig_jax.common.typed import leaves
from dig_jax.config import Config
from tests import ROOT
from tpu import cost

TPU = ROOT / "tpu"
README = (TPU / "README.md").read_text()
FIELDS = {path for path, _ in leaves(Config())}
SETTING = re.compile(r"--set[ =]([\w.]+)=")
SCRIPTS = ("create.sh", "setup.sh", "run.sh", "watch.sh", "delete.sh")


def commands() -> list[str]:
    """Lines of the page's code blocks, continued ones as one, without what are comments."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.M | re.S)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def modules(line: str) -> list[str]:
    """What `python -m` starts in a line."""
    return re.findall(r"python -m ([\w.]+)", line)


def test_the_page_has_commands():
    """So that the tests below have something to look at."""
    names = {name for line in commands() for name in modules(line)}
    assert {"dig_jax.train", "dig_jax.data", "dig_jax.convert", "tpu.cost"} <= names
    assert {SETTING.findall(line)[0] for line in commands() if "--set" in line} <= FIELDS
    scripts = {name for line in commands() for name in re.findall(r"tpu/(\w+\.sh)", line)}
    assert scripts == {*SCRIPTS, "complete.sh"}


@pytest.mark.parametrize("line", commands(), ids=lambda line: line[:60])
def test_a_command_names_only_what_there_is(line):
    for name in modules(line):
        assert importlib.util.find_spec(name), name
    for path in re.findall(r"(?<![\w/])(?:tpu|scripts|configs)/[\w.]+", line):
        assert (ROOT / path).is_file(), path
    assert set(SETTING.findall(line)) <= FIELDS


@pytest.mark.parametrize(
    "line", [c for c in commands() if c.startswith("tpu/")], ids=lambda line: line[:60]
)
def test_a_script_understands_its_command_on_the_page(line):
    """Run as it stands there, with --dry-run."""
    script, *words = shlex.split(line, comments=True)
    words.insert(1, "--dry-run")
    done = subprocess.run(["bash", ROOT / script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") >= 1


def test_the_table_of_hours_is_what_cost_prints(capsys):
    (line,) = (line for line in commands() if "tpu.cost" in line)
    assert cost.main(shlex.split(line)[3:]) == 0
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("|")]
    assert len(rows) == 7
    assert "\n".join(rows) in README


def test_the_image_installs_what_constraints_pin_and_nothing_else():
    text = (TPU / "Dockerfile").read_text()
    lines = [line.split() for line in text.replace("\\\n", " ").splitlines() if line[:1] != "#"]
    (image,) = (words[1] for words in lines if words[:1] == ["FROM"])
    assert image == f"python:{(ROOT / '.python-version').read_text().strip()}-slim"
    installs = [words for words in lines if words[:1] == ["RUN"]]
    (install,) = installs
    assert " ".join(install[1:3]) == "pip install"
    packages = [word for word in install[3:] if not word.startswith("--no-cache")]
    assert packages == ["-c", "constraints.txt", "-e", '".[${EXTRAS}]"']
    (extras,) = (words[1] for words in lines if words[:1] == ["ARG"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.removeprefix("EXTRAS=").split(",")) <= set(project["optional-dependencies"])
    for words in lines:
        if words[:1] == ["COPY"]:
            assert all((ROOT / name).exists() for name in words[1:-1]), words
    assert lines[-1] == ["ENTRYPOINT", '["python",', '"-m",', '"dig_jax.train"]']
    assert "jax==" in (ROOT / "constraints.txt").read_text()


def test_the_jobset_starts_a_process_per_host_and_restarts_them_together():
    (line,) = (line for line in commands() if "jobset.yaml" in line)
    given = dict(re.findall(r"(\w+)=(\S+)", line.split("envsubst")[0]))
    text = (TPU / "jobset.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(given)
    filled = re.sub(r"\$\{(\w+)\}", lambda match: given[match[1]], text)
    spec = yaml.safe_load(filled)["spec"]
    (job,) = spec["replicatedJobs"]
    assert spec["failurePolicy"] == {"maxRestarts": 100}
    assert job["replicas"] == 1
    job = job["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (4, 4, 0)
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["/dig_jax/tpu/complete.sh", given["ROOT"], "300"]
    assert container["args"][:3] == ["python", "-m", "dig_jax.train"]
    settings = [SETTING.match(word) for word in container["args"] if word.startswith("--set")]
    assert {match[1] for match in settings} <= FIELDS
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
