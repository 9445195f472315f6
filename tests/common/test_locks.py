"""One owner for a folder: real processes, dead owners, other machines, a bucket."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from dig_jax.common import locks
from tests import ROOT

HOLD = """
import sys
from dig_jax.common import locks
with locks.owned("run_dir", sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
print("given back", flush=True)
"""


@contextlib.contextmanager
def holder(path, environment=None):
    """A process that owns the lock until it is killed or its input ends."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], env=env, **pipes)
    try:
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def test_a_second_owner_is_refused_with_host_and_process_until_the_first_ends(tmp_path):
    path = tmp_path / "new" / locks.NAME
    with holder(path) as child:
        who = rf"run_dir: {path.parent} is in use by .*\(process {child.pid} on .*\); end that or"
        with pytest.raises(locks.Taken, match=who), locks.owned("run_dir", path):
            pass
        assert child.communicate("")[0] == "given back\n"
    assert not path.parent.exists()  # it was made for the lock alone
    with locks.owned("run_dir", path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        with pytest.raises(locks.Taken, match=f"process {os.getpid()}"), locks.owned("x", path):
            pass


def test_the_lock_of_a_process_that_was_killed_is_taken_over_at_once(tmp_path):
    path = tmp_path / locks.NAME
    with holder(path) as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
        with locks.owned("run_dir", path, pause=never):
            assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_process_number_that_was_given_anew_is_not_the_owner(tmp_path):
    path = tmp_path / locks.NAME
    with holder(path):
        text = json.loads(path.read_text())
    path.write_text(json.dumps(text | {"pid": os.getpid(), "started": "1"}))
    with locks.owned("run_dir", path, pause=never):
        assert json.loads(path.read_text())["started"] != "1"


def test_a_lock_that_is_no_lock_counts_as_one_of_another_machine(tmp_path):
    path = tmp_path / locks.NAME
    path.write_text("")
    os.utime(path, (1e9, 1e9))
    with locks.owned("run_dir", path, pause=never):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def never(seconds):
    pytest.fail("it waits")


ELSEWHERE = json.dumps({"host": "elsewhere", "pid": 1, "started": "1", "program": "p", "boot": "b"})


def test_an_owner_on_another_machine_lives_while_it_touches_its_lock(tmp_path, capsys):
    path = tmp_path / locks.NAME
    path.write_text(ELSEWHERE)
    waits = []

    def touched(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            os.utime(path, (time.time() + 1, time.time() + 1))

    refused = (
        r"in use by p \(process 1 on elsewhere\); .*\(if that .* is surely gone, delete (\S+)\)"
    )
    with pytest.raises(locks.Taken, match=refused) as caught:
        with locks.owned("run_dir", path, pause=touched):
            pass
    assert len(waits) == 3
    assert "last heard of 0 s ago: waiting, 180 s at most" in capsys.readouterr().err
    assert path.read_text() == ELSEWHERE
    with locks.owned("run_dir", tmp_path / "other" / locks.NAME):  # the message's second way
        pass
    os.unlink(re.search(refused, str(caught.value))[1])  # and its third
    with locks.owned("run_dir", path, pause=never):
        pass


def test_an_owner_on_another_machine_that_falls_silent_is_followed(tmp_path, monkeypatch):
    """After SILENCE_S by the clock, which the waiting moves here."""
    path = tmp_path / locks.NAME
    path.write_text(ELSEWHERE)
    clock = [time.time()]
    monkeypatch.setattr(locks.time, "time", lambda: clock[0])
    start = clock[0]

    def wait(seconds):
        clock[0] += seconds

    with locks.owned("run_dir", path, pause=wait):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert locks.SILENCE_S - 2 <= clock[0] - start <= locks.SILENCE_S + 4


def test_an_owner_that_was_followed_meanwhile_is_told(tmp_path):
    path = tmp_path / locks.NAME
    with locks.owned("run_dir", path):
        locks.check_ours(path)
        path.write_text(ELSEWHERE)
        with pytest.raises(locks.Taken, match=r"taken over by p .*elsewhere"):
            locks.check_ours(path)
    assert path.read_text() == ELSEWHERE  # not ours to remove


def test_a_file_system_without_links_is_locked_all_the_same(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / locks.NAME
    with locks.owned("a", path):
        with pytest.raises(locks.Taken), locks.owned("b", path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named_by_its_field(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "run" / locks.NAME
    with pytest.raises(
        OSError, match=r"run_dir='.*file/run' cannot be written .*Not a dir.*another"
    ):
        with locks.owned("run_dir", path):
            pass
    with locks.owned("run_dir", tmp_path / "another" / "run" / locks.NAME):
        pass
    (tmp_path / "file").unlink()
    with locks.owned("run_dir", path):
        pass
