"""A run that is asked to end ends between two steps, with a checkpoint.

SIGTERM is how Slurm, Kubernetes, and a cloud that wants its machine back ask. One process that
hears it is enough.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import jax

from dig_jax.mesh.distributed import any_process

# A scheduler that signals every process of a job, and a wrapper that passes its own signal on,
# give one notice twice.
SAME_NOTICE_S = 5.0


class Notice:
    """Whether this run has been asked to end."""

    def __init__(self):
        self._heard = False

    def given(self, step: int) -> bool:
        """Whether any process has been asked; all of them ask after the same step.

        step   steps done; process 0 says it when the answer is yes
        """
        asked = self.heard()
        if asked and jax.process_index() == 0:
            print(f"asked to end: stopped after step {step}; the same command continues there",
                  flush=True)  # fmt: skip
        return asked

    def heard(self) -> bool:
        """`given` without a word: what is long and can be done again ends early."""
        return any_process(self._heard)

    def hear(self, *_) -> None:
        self._heard = True

    def listen(self, pipe: int) -> None:
        """Answers signals while the main thread waits for a device; ends with the pipe."""
        first = None
        with open(pipe, "rb", buffering=0) as signals:
            while number := signals.read(1):
                name, now = signal.Signals(number[0]), time.monotonic()
                if first is not None and _insists(name, now - first):
                    os._exit(128 + name)
                if first is None and name == signal.SIGTERM:
                    self._heard, first = True, now
                    print("SIGTERM: ends after the running step; another one, or SIGINT, at once",
                          file=sys.stderr, flush=True)  # fmt: skip


def _insists(name: signal.Signals, since_s: float) -> bool:
    """Whether a signal that long after a notice means: now."""
    return name == signal.SIGINT or (name == signal.SIGTERM and since_s > SAME_NOTICE_S)


@contextlib.contextmanager
def stop_on_notice() -> Iterator[Notice]:
    """Takes SIGTERM as a notice instead of the end; main thread only.

    SIGINT after it, or another SIGTERM after SAME_NOTICE_S, ends the process at once. SIGINT by
    itself is what it always is.
    """
    notice = Notice()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python runs a handler between two of its own instructions, and none passes while a step is
    # computed: the bytes that it writes at once are read by a thread. The handler stays for a
    # library that takes the wakeup descriptor for itself.
    handler = signal.signal(signal.SIGTERM, notice.hear)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    listener = threading.Thread(target=notice.listen, args=(reading,), daemon=True)
    listener.start()
    try:
        yield notice
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, handler)
        os.close(writing)
        listener.join()
