"""The kill campaign in short: every command is killed twice and comes out as if it had not been."""

import pytest

from scripts.study import kill
from scripts.study.killing import commands


@pytest.mark.slow
@pytest.mark.bpy
@pytest.mark.parametrize("name", commands.NAMES)
def test_a_killed_command_ends_as_one_that_was_not(name, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.delenv("XLA_FLAGS")  # one device, as its commands say, and not the tests' eight
    work = tmp_path_factory.getbasetemp() / "kill"  # one trained run for all
    status = kill.main(["--work", str(work), "--times", "2", "--seed", "0", "--only", name])
    assert status == 0, capsys.readouterr().out
