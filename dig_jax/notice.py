"""A run that is asked to end ends between two steps, with a checkpoint.

SIGTERM is how Slurm, Kubernetes, and a cloud that wants its machine back ask. One process that
hears it is enough.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

import jax

from dig_jax.distributed import any_process


class Notice:
    """Whether this run has been asked to end."""

    def __init__(self):
        self._heard = False

    def given(self, step: int) -> bool:
        """Whether any process has been asked; all of them ask after the same step.

        step   steps done; process 0 says it when the answer is yes
        """
        asked = any_process(self._heard)
        if asked and jax.process_index() == 0:
            print(f"asked to end: stopped after step {step}; the same command continues there",
                  flush=True)  # fmt: skip
        return asked

    def hear(self, *_) -> None:
        self._heard = True

    def listen(self, pipe: int) -> None:
        """Answers signals while the main thread waits for a device; ends with the pipe."""
        asked = False
        with open(pipe, "rb", buffering=0) as signals:
            while number := signals.read(1):
                name = signal.Signals(number[0])
                if asked and name in (signal.SIGTERM, signal.SIGINT):
                    os._exit(128 + name)
                if name == signal.SIGTERM:
                    asked = self._heard = True
                    print("SIGTERM: ends after the running step; a second signal ends at once",
                          file=sys.stderr, flush=True)  # fmt: skip


@contextlib.contextmanager
def stop_on_notice() -> Iterator[Notice]:
    """Takes SIGTERM as a notice instead of the end; main thread only.

    A second SIGTERM, or SIGINT after the first, ends the process at once. SIGINT by itself is
    what it always is.
    """
    notice = Notice()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python runs a handler between two of its own instructions, and none passes while a step is
    # computed: the bytes that it writes at once are read by a thread. The handler stays for a
    # library that takes the wakeup descriptor for itself.
    handler = signal.signal(signal.SIGTERM, notice.hear)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=notice.listen, args=(reading,), daemon=True).start()
    try:
        yield notice
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, handler)
        os.close(writing)
