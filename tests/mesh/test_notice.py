"""SIGTERM asks a run to end between two steps; insisting ends it at once."""

import os
import signal
import subprocess
import sys

import pytest

from dig_jax.mesh import notice
from tests import ROOT


def test_a_notice_is_given_once_heard_and_the_signal_is_given_back(capfd):
    before = signal.getsignal(signal.SIGTERM)
    with notice.stop_on_notice() as told:
        assert not told.given(3)
        os.kill(os.getpid(), signal.SIGTERM)
        assert told.given(4)
    assert signal.getsignal(signal.SIGTERM) == before
    assert "asked to end: stopped after step 4" in capfd.readouterr().out


# Busy in C without the interpreter's lock, as in a step on the devices: no handler gets to run.
CHILD = """
import hashlib, signal, sys
from dig_jax.mesh import notice
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has it ignored
notice.SAME_NOTICE_S = float(sys.argv[1])
with notice.stop_on_notice():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


@pytest.mark.parametrize(
    ("signals", "same_s"), [((signal.SIGTERM,), 0), ((signal.SIGTERM, signal.SIGINT), 3600)]
)
def test_who_insists_ends_it_at_once_while_the_main_thread_is_busy(signals, same_s):
    """Another SIGTERM, unless it is the same notice come by another way; SIGINT always."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(same_s)], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        assert "SIGTERM: ends after the running step" in child.stdout.readline()
        for number in signals:
            child.send_signal(number)
        assert child.wait(timeout=300) == 128 + signals[-1]
    finally:
        child.kill()
