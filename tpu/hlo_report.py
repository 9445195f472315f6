"""What a compiled program does: loops, collectives, XLA's estimated cycles, its largest values.

    python -m tpu.hlo_report program.txt       a file of `Compiled.as_text()`

Cycles are printed by XLA for TPUs alone, and cover neither collectives nor Pallas kernels: they
compare variants of a program and are no time.
"""

import argparse
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from dig_jax.common.commandline import path_of

_COLLECTIVES = (
    "all-gather|all-reduce|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute"
)
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4}
_BYTES |= {"f32": 4, "s64": 8, "u64": 8, "f64": 8, "s4": 0.5, "u4": 0.5}
_SHAPE = re.compile(r"\b([a-z]+[0-9]*)\[([0-9,]*)\]")
_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*->.*\{$")
_LINE = re.compile(r"^ +(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\(")
_LOOP = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_VIEWS = ("parameter", "get-tuple-element", "tuple", "bitcast", "while", "constant", "conditional")
_VIEWS += ("fusion-start", "async-start")  # their -done has the value, they its operands too


@dataclass(frozen=True)
class Value:
    """One instruction: what it makes, on one device."""

    name: str
    op: str
    shape: str  # largest array of it
    bytes: int
    source: str  # the model's operation that it came from, as XLA names it


@dataclass
class Body:
    """One computation that is run as a whole: the program, or the body of a loop.

    trips   its loop's number of turns, or bound of it; 1 for the program, 0 where unknown
    cycles  of one turn, loops inside left out
    """

    name: str
    parent: str = ""
    trips: int = 1
    cycles: int = 0
    collectives: list[Value] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)


def read(text: str) -> list[Body]:
    """The program and every loop in it, outermost first."""
    computations = _split(text)
    entry = next((name for name, (_, is_entry) in computations.items() if is_entry), None)
    if entry is None:
        raise ValueError("no ENTRY computation; give the text of a compiled program")
    found, waiting = [], [Body(entry)]
    while waiting:
        body = waiting.pop(0)
        found.append(body)
        for line in _lines(body.name, computations):
            loop = _LOOP.search(line)
            if loop:
                trips = _trips(loop[1], computations)
                waiting.append(Body(loop[2], body.name, trips))
                continue
            _add(body, line)
    return found


def total_cycles(bodies: list[Body]) -> int:
    """Of the whole program: every loop as often as it turns at most."""
    by_name = {body.name: body for body in bodies}

    def turns(body: Body) -> int:
        outer = by_name.get(body.parent)
        return max(body.trips, 1) * (turns(outer) if outer else 1)

    return sum(body.cycles * turns(body) for body in bodies)


def largest(bodies: list[Body], count: int) -> list[Value]:
    """The largest values that are computed, by size; the same shape and source once."""
    seen = {}
    for value in sorted((v for b in bodies for v in b.values), key=lambda v: -v.bytes):
        seen.setdefault((value.shape, value.source), value)
    return list(seen.values())[:count]


def report(bodies: list[Body]) -> str:
    """Collectives and cycles per loop body, for a reader."""
    lines = []
    for body in bodies:
        if not body.collectives and body.cycles < 10_000:
            continue
        trips = body.trips or "?"
        lines.append(f"{body.name}  x{trips}  {body.cycles / 1e6:.2f} M cycles a turn")
        kinds = Counter((v.op, v.shape, v.bytes, v.source) for v in body.collectives)
        for (op, shape, size, source), times in sorted(kinds.items(), key=lambda k: -k[0][2]):
            lines.append(f"    {times} x {op:<18} {shape:<28} {_size(size):>10}  {source}")
    lines.append(f"all loops: {total_cycles(bodies) / 1e9:.2f} G cycles")
    lines += [
        f"largest: {_size(v.bytes):>10}  {v.shape:<28} {v.op:<14} {v.source}"
        for v in largest(bodies, 8)
    ]
    return "\n".join(lines)


def _split(text: str) -> dict[str, tuple[list[str], bool]]:
    """Name -> lines of every computation, and whether it is the program."""
    found, lines = {}, None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            lines = []
            found[head[1]] = (lines, line.startswith("ENTRY"))
        elif line.startswith("}"):
            lines = None
        elif lines is not None:
            lines.append(line)
    return found


def _lines(name: str, computations: dict) -> Iterable[str]:
    """A computation's own lines, and those of what it calls that holds a collective."""
    for line in computations.get(name, ((), False))[0]:
        yield line
        for called in _CALLED.findall(line):
            inside = computations.get(called, ((), False))[0]
            yield from (a for a in inside if re.search(rf" (?:{_COLLECTIVES})(?:-start)?\(", a))


def _trips(condition: str, computations: dict) -> int:
    """The bound that a loop's condition compares with; 0 where there is none."""
    lines = computations.get(condition, ((), False))[0]
    bounds = [
        int(n) for line in lines for n in re.findall(r"[su]32\[\]\S* constant\((\d+)\)", line)
    ]
    return max(bounds, default=0)


def _add(body: Body, line: str) -> None:
    body.cycles += sum(int(n) for n in re.findall(r'"estimated_cycles":"(\d+)"', line))
    parts = _LINE.match(line)
    if not parts or parts[3] in _VIEWS:
        return
    shape, size = _biggest(parts[2])
    source = re.search(r'op_name="([^"]*)"', line)
    value = Value(parts[1], parts[3], shape, size, _short(source[1] if source else ""))
    if re.fullmatch(rf"(?:{_COLLECTIVES})(?:-start)?", parts[3]):
        body.collectives.append(value)
    body.values.append(value)


def _biggest(kind: str) -> tuple[str, int]:
    """("bf16[8,4096]", its bytes) of the largest array of a type, which may be a tuple."""
    sizes = [("", 0)]
    for dtype, dims in _SHAPE.findall(kind):
        count = math.prod(int(n) for n in dims.split(",") if n)
        sizes.append((f"{dtype}[{dims}]", int(count * _BYTES.get(dtype, 1))))
    return max(sizes, key=lambda s: s[1])


def _short(source: str) -> str:
    """The end of XLA's path to an operation."""
    parts = [p for p in source.split("/") if p not in ("body", "eval_jaxpr", "closed_call")]
    return "/".join(parts[-4:])


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=path_of, help="text of a compiled program")
    print(report(read(parser.parse_args().file.read_text())))


if __name__ == "__main__":
    main()
