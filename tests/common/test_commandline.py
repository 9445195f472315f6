"""Places and seeds on a command line: `~` is the home folder, a seed is one of 2**32."""

import argparse
import re

import pytest

from dig_jax import ask
from dig_jax.common.commandline import path_of, place_of, seed_of, within
from dig_jax.common.fields import SEED
from dig_jax.config.commandline import parse_config
from dig_jax.convert import __main__ as convert
from dig_jax.data import make
from tests import ROOT


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_tilde_is_the_home_folder_in_the_places_of_a_command_line(home):
    """`--out=~/x` reaches a program as it stands and made a folder called `~`."""
    given = convert.parse_args(["export", "--run=~/run", "--out=~/hf", "--source=~/model"])
    assert (given.run, given.out, given.source) == (f"{home}/run", f"{home}/hf", f"{home}/model")
    given = convert.parse_args(["check", "~/hf", "--run=gs://BUCKET/run"])
    assert (given.folder, given.run) == (f"{home}/hf", "gs://BUCKET/run")
    given = ask.parse_args(["--source=~/model", "~/a.png"])
    assert (given.source, given.images) == (f"{home}/model", [f"{home}/a.png"])
    parser = argparse.ArgumentParser()
    make.add_arguments(parser, "make")
    assert parser.parse_args(["--root=~/data"]).root == home / "data"
    (home / "mine.py").write_text((ROOT / "configs" / "tiny_cpu.py").read_text())
    assert parse_config(["--config=~/mine.py", "--run-dir=~/run"]).run_dir == f"{home}/run"


def test_a_place_that_cannot_be_meant_is_refused(capsys):
    for wrong in ("", " x", "~no_such_user/x"):
        with pytest.raises(SystemExit):
            convert.parse_args(["export", "--run=r", f"--out={wrong}"])
        assert "argument --out: " in capsys.readouterr().err
    for right in (".", "./~no_such_user/x", "/home/no_such_user/x"):  # as the messages say
        convert.parse_args(["export", "--run=r", f"--out={right}"])
    assert str(path_of("a/b")) == place_of("a/b") == "a/b"


@pytest.mark.parametrize("text", ["-1", str(SEED + 1), "1.0", "²", "", "x"])
def test_a_seed_outside_its_range_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="use one of 0 to 4294967295"):
        seed_of(text)
    assert seed_of(str(SEED)) == SEED


def test_no_program_takes_a_place_or_a_seed_unread():
    """Of all files with arguments: the rule for the next one."""
    folders = r"run-dir|run_dir|out|root|source|run|config|data|folder|arms|corpus|json|results"
    argument = re.compile(rf'add(?:_argument)?\(\s*"(?:--)?(?:{folders}|seeds?)",([^)]*)\)')
    for name in ("dig_jax", "scripts", "tpu"):
        for file in sorted((ROOT / name).rglob("*.py")):
            text = file.read_text()
            assert "type=Path" not in text, file
            for given in argument.findall(text):
                assert re.search(r"type=(place|path|seed)_of|SUPPRESS|store_true", given), (
                    file,
                    given,
                )


@pytest.mark.parametrize("text", ["inf", "nan", "1e400", "-1", "x", "", "101"])
def test_a_number_of_a_command_line_is_finite_and_in_its_range(text, capsys):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number from 0 to 100"):
        within(float, 0, 100)(text)
    assert within(float, 0, 100)("0.5") == 0.5
    with pytest.raises(SystemExit):
        ask.parse_args(["--source", "m", "a.png", f"--temperature={text}"])
    assert "argument --temperature: " in capsys.readouterr().err


def test_a_temperature_that_leaves_float32_is_refused(capsys):
    with pytest.raises(SystemExit):
        ask.parse_args(["--source", "m", "a.png", "--temperature", "1e-45"])
    assert "--temperature is 0, or 0.001 and more" in capsys.readouterr().err
