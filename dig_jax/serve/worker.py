"""The thread that answers: it reads the weights, compiles every shape, and then never again."""

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dig_jax.engine.jobs import Asked, Batch, Group, describe, make_batch
from dig_jax.engine.loop import Answered, answer_all
from dig_jax.engine.slots import Engine, make_engine
from dig_jax.inputs.decoding import Decoding
from dig_jax.inputs.shapes import Shape
from dig_jax.run.policy import Policy
from dig_jax.serve.asking import Question
from dig_jax.serve.metrics import Metrics

CHUNK = 8  # tokens after which the host looks
_TRIES = 2  # failures of the device in a row that end the server


@dataclass
class Order:
    """Answers that a client waits for.

    tell  called by the worker's thread with (sample, answer so far, whether it is whole), and with
          (0, None, True) where there will be none
    """

    number: int
    question: Question
    tell: Callable[[int, Answered | None, bool], None]
    since: float = field(default_factory=time.monotonic)
    drawn: dict[int, int] = field(default_factory=dict)  # tokens, of samples that are not whole
    left: int = 0


class Full(Exception):
    """As many requests wait as may."""


class Worker:
    """One engine, its queue, and the thread that runs it.

    state   "starting", "ready", "draining" or "failed"
    """

    def __init__(
        self,
        policy: Policy,
        shapes: Sequence[Shape],
        metrics: Metrics,
        *,
        slots: int,
        answer: int,
        queue: int,
    ):
        self.policy, self.shapes, self.metrics = policy, shapes, metrics
        self.queue, self.state = queue, "starting"
        self.rows = policy.layout.mesh.shape["fsdp"]
        self.engine: Engine = make_engine(policy.layout, slots=slots, answer=answer)
        longest = max(shape.prefix + shape.suffix for shape in shapes)
        self.room = longest + answer + CHUNK
        self.changed = threading.Condition()
        self.waiting: deque[Order] = deque()
        self.going: dict[int, Order] = {}
        self.dropped: set[tuple[int, int]] = set()
        self.numbers = itertools.count()

    def submit(self, question: Question, tell) -> Order:
        """Puts a question into the queue; raises Full."""
        with self.changed:
            if len(self.waiting) >= self.queue:
                raise Full
            asked = len(question.group.asked)
            order = Order(next(self.numbers), question, tell, left=asked)
            self.waiting.append(order)
            self.metrics.queue = len(self.waiting)
            self.changed.notify()
        return order

    def drop(self, order: Order, samples: Collection[int] | None = None) -> None:
        """Nobody waits any more for an order's samples, or for all: their rows become free."""
        with self.changed:
            if samples is None and order in self.waiting:
                self.waiting.remove(order)
                self.metrics.queue = len(self.waiting)
                return
            if order.number in self.going:
                some = range(len(order.question.group.asked)) if samples is None else samples
                self.dropped |= {(order.number, n) for n in some}

    def drain(self) -> None:
        """Ends the thread once nobody waits."""
        with self.changed:
            self.state = "draining" if self.state in ("starting", "ready") else self.state
            self.changed.notify()

    def run(self, say: Callable[[str], None], ready: Callable[[], None]) -> None:
        """The thread: until `drain`, or until the device fails; raises what ended it."""
        try:
            say("reading weights")
            params = self.policy.load()
            self._compile(params, say)
            if self.state == "starting":
                self.state = "ready"
                ready()
            failures = 0
            while self.state == "ready":
                try:
                    for one in self._answers(params, self._more, self._watch):
                        self._whole(one)
                        failures = 0
                except Exception as error:
                    failures += 1
                    say(f"the device failed: {type(error).__name__}: {str(error)[:200]}")
                    self._fail()
                    if failures == _TRIES:
                        raise
        except BaseException:
            self.state = "failed"
            raise
        finally:
            self._fail()

    def _answers(self, params, more, watch):
        layout = self.policy.layout
        how = {"rows": self.rows, "chunk": CHUNK, "room": self.room, "watch": watch}
        return answer_all(self.engine, layout, params, more, **how)

    def _more(self, idle: bool) -> Batch | None:
        with self.changed:
            self._count_busy()
            while idle and not self.waiting and self.state == "ready":
                self.changed.wait()
            if not self.waiting:
                return None
            order = self.waiting.popleft()
            self.going[order.number] = order
            order.drawn = dict.fromkeys(range(order.left), 0)
            self.metrics.queue = len(self.waiting)
            self._count_busy()  # now: answers of one chunk are over when `_watch` looks
        question = order.question
        self.metrics.read(question.tokens)
        tagged = [replace(one, tag=(order.number, one.tag)) for one in question.group.asked]
        group = replace(question.group, asked=tagged)
        return make_batch(self.policy.layout.model, question.shape, [group], self.rows)

    def _count_busy(self) -> None:
        asked = sum(order.left for order in self.going.values())
        self.metrics.busy = min(asked, self.metrics.rows)

    def _watch(self, going: list[Answered]) -> Collection[tuple[int, int]]:
        self._count_busy()
        for one in going:
            self._told(one, whole=False)
        with self.changed:
            dropped, self.dropped = self.dropped, set()
        for number, sample in dropped:
            self._forget(number, sample)
        return dropped

    def _whole(self, one: Answered) -> None:
        self._told(one, whole=True)
        self._forget(*one.tag)

    def _told(self, one: Answered, *, whole: bool) -> None:
        number, sample = one.tag
        order = self.going.get(number)
        if order is None or sample not in order.drawn:
            return
        new = len(one.tokens) - order.drawn[sample]
        if new and not any(order.drawn.values()):
            self.metrics.took("first_token_seconds", time.monotonic() - order.since)
        order.drawn[sample] += new
        self.metrics.drawn(new)
        if new or whole:
            order.tell(sample, one, whole)

    def _forget(self, number: int, sample: int) -> None:
        with self.changed:
            order = self.going.get(number)
            if order is not None and order.drawn.pop(sample, None) is not None:
                order.left -= 1
                if not order.left:
                    del self.going[number]

    def _fail(self) -> None:
        """Tells everybody who has a row, and when it is over those who wait too."""
        with self.changed:
            lost = list(self.going.values())
            self.going.clear()
            if self.state != "ready":
                lost += self.waiting
                self.waiting.clear()
            self.metrics.queue, self.metrics.busy = len(self.waiting), 0
        for order in lost:
            order.tell(0, None, True)

    def _compile(self, params, say: Callable[[str], None]) -> None:
        """Answers made-up questions of every shape, in every order that a program can meet."""
        for number, shape in enumerate(self.shapes, start=1):
            if self.state != "starting":
                return
            began = time.monotonic()
            coming = iter([self._made_up(shape)])
            watch = lambda going: [one.tag for one in going][-1:]  # noqa: E731
            for _ in self._answers(params, lambda idle, coming=coming: next(coming, None), watch):
                continue
            took = time.monotonic() - began
            say(f"compiled {number}/{len(self.shapes)}: {describe(shape)} ({took:.1f} s)")

    def _made_up(self, shape: Shape) -> Batch:
        config = self.policy.layout.model
        cell = config.vision.cell
        picture = np.zeros((cell, cell, 3), np.uint8)
        prefix = (config.vision_start, *[config.image_token] * shape.images)
        most = min(2 * CHUNK + 1, self.engine.answer)
        asked = [
            Asked(n, (config.vision_end,), Decoding(float(n % 2)), (0, n), most)
            for n in range(self.engine.slots + 2 * self.rows)
        ]
        group = Group(
            "start", prefix, [(cell, cell)] * shape.images, lambda: [picture] * shape.images, asked
        )
        return make_batch(config, shape, [group], self.rows)


def start(
    worker: Worker,
    say: Callable[[str], None],
    ready: Callable[[], None],
    over: Callable[[BaseException | None], None],
) -> threading.Thread:
    """Runs a worker in a thread of its own; `over` is called with what ended it."""

    def run():
        failure = None
        try:
            worker.run(say, ready)
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the server may be gone
            over(failure)

    thread = threading.Thread(target=run, name="engine", daemon=True)
    thread.start()
    return thread
