"""The command: what is wrong is said before weights are read; it ends when it is told to."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from dig_jax.serve import __main__ as command
from tests import ROOT
from tests.serve.served import asked, client, file_of, noise
from tests.tiny_model import ASSETS

SOURCE = ["--source", str(ASSETS)]
CHATS = 6  # at once, of two rows each, where the server has two


def said(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        command.main([str(word) for word in words])
    return f"{ended.value} {capsys.readouterr().err}"


def test_others_may_ask_only_with_a_key(capsys, tmp_path):
    told = said(capsys, *SOURCE, "--host", "0.0.0.0")
    assert "--host 0.0.0.0: others than this machine could ask without a key; give" in told
    empty = tmp_path / "key"
    empty.write_text("\n")
    told = said(capsys, *SOURCE, "--host", "0.0.0.0", "--api-key-file", empty)
    assert "holds no key; write one line of ASCII into it" in told
    empty.write_text("secret\n")
    args = command.parse_args([*SOURCE, "--host", "0.0.0.0", "--api-key-file", str(empty)])
    assert command.read_key(args) == "secret"


def test_a_port_that_is_taken_is_named_and_another_is_free(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = said(capsys, *SOURCE, "--port", port)
        assert f"--host 127.0.0.1 --port {port} cannot be listened at" in told
        assert "use another --port" in told
    command.listening("127.0.0.1", 0).close()


def test_a_wrong_folder_bucket_or_limit_is_named(capsys, tmp_path):
    free = ["--port", 0]
    assert "config.json" in said(capsys, "--source", tmp_path, *free)
    assert "is not WIDTHxHEIGHT:TOKENS" in said(capsys, *SOURCE, *free, "--bucket", "9")
    assert "choose a width" in said(capsys, *SOURCE, *free, "--bucket", "90x64:256")
    told = said(capsys, *SOURCE, *free, "--max-tokens", 2**18)
    assert "the model's context of 262144 leaves" in told
    assert "lower --max-pixels or --max-tokens" in told
    assert command.answer_room(9, command.MOST, context=2**18, longest=100) == 9


def test_the_extra_that_is_missing_is_named(capsys, monkeypatch):
    find = command.importlib.util.find_spec
    monkeypatch.setattr(
        command.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    assert "uvicorn are not installed; install the extra serve" in said(capsys, *SOURCE)
    monkeypatch.undo()
    assert command.check_extra() is None


def test_who_is_local():
    assert all(map(command.is_loopback, ("127.0.0.1", "127.3.0.1", "::1", "localhost")))
    assert not any(map(command.is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org")))


@pytest.mark.slow
def test_a_server_that_is_told_to_end_answers_whoever_waits(tmp_path):
    words = ["-m", "dig_jax.serve", *SOURCE, "--port", "0", "--bucket", "96x64:192"]
    words += ["--batch", "2", "--max-tokens", "40", "--pictures", "1"]
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=os.environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        lines = iter(process.stdout.readline, "")
        ready = next(line for line in lines if line.startswith("ready in"))
        address = re.search(r"http://[\d.:]+", ready)[0]
        api, found = client(address), []

        def chat():
            how = {"temperature": 1.0, "n": 2, "seed": 1}
            messages = asked(file_of(noise(0)), text="SECRET WORDS")
            found.append(api.chat.completions.create(model=ASSETS.name, messages=messages, **how))

        def is_asked(threads) -> bool:
            """Starts them; whether any was seen at work before all had their answers."""
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                if b"busy 0" not in client_metrics(address):
                    return True
            return False

        chat()
        rounds = ([threading.Thread(target=chat) for _ in range(CHATS)] for _ in range(20))
        threads = next(some for some in rounds if is_asked(some))
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        rest, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert {tuple(c.message.content for c in one.choices) for one in found} == {
        tuple(c.message.content for c in found[0].choices)
    }
    assert len(found) % CHATS == 1  # all of every round, and the first
    assert "SECRET" not in rest + errors


def client_metrics(address) -> bytes:
    import urllib.request

    with urllib.request.urlopen(f"{address}/metrics") as page:
        return page.read().replace(b"dig_jax_rows_busy ", b"busy ")


@pytest.mark.slow
def test_a_server_that_still_compiles_ends_at_once():
    words = ["-m", "dig_jax.serve", *SOURCE, "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=os.environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        next(line for line in iter(process.stdout.readline, "") if "compiled 1/" in line)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
