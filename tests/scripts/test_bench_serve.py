"""Both sides of the server's benchmark are asked the same; theirs answers one at a time."""

import os
import threading
import time

import pytest

from scripts.bench import hf_server, serve

PICTURES = [serve.picture(n, 64, 96) for n in range(4)]


def work(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        continue


@pytest.fixture
def side():
    """(process, address) of a server whose answer is how many pictures it was shown."""
    busy = threading.Semaphore(1)

    def answer(body):
        assert busy.acquire(blocking=False)  # nobody else is being answered
        work(0.03)
        busy.release()
        shown = sum(part["type"] == "image_url" for part in body["messages"][0]["content"])
        message = {"role": "assistant", "content": str(shown)}
        return {"choices": [{"message": message}], "usage": {"completion_tokens": shown}}

    server = hf_server.make_server(answer, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield os.getpid(), server.server_address
    server.shutdown()
    server.server_close()


def test_a_crowd_is_answered_one_after_the_other_in_order(side):
    rate, told = serve.put("theirs", side, PICTURES, 6, 12)
    assert told == [(str(n % 3), n % 3) for n in range(12)]
    assert rate > 0


def test_two_sides_are_compared(side, capsys):
    serve.throughput({"ours": side, "generate": side}, PICTURES, 2, 2)
    said = capsys.readouterr().out
    assert "100.0% of 4 answers equal" in said
    rows = [line.split()[0] for line in said.splitlines()[1:9]]
    assert rows == ["ours", "ours", "generate", "generate"] * 2
    assert "times as many at 2 clients" in said


def test_processor_seconds_grow_with_work():
    before = serve.cpu_seconds(os.getpid())
    work(0.1)
    assert 0.05 < serve.cpu_seconds(os.getpid()) - before < 30
