"""Compiles one phase of a training step for machines that are not there, in a process of its own.

    python -m tpu.compile_phase < request.json

`tpu.preflight` starts it: a bug in a compiler may abort the process. The last line of the output
is the result as JSON.
"""

import json
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jax
from jax.experimental import topologies

from dig_jax.config import Config, from_json
from dig_jax.hf import weights
from dig_jax.mesh import sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model.config import ModelConfig
from dig_jax.model.sizes import released
from dig_jax.run.session import computed_as, with_adapters
from tpu import gpu_target, hlo_report, slices
from tpu.phases import Phase, PromptShape, bytes_per_device, phases

MARK = "RESULT "


@dataclass(frozen=True)
class Request:
    """config  `config.to_json`;  size  a released size, or "" for the config's own model folder

    keep  a file for the compiled program's text, or ""
    """

    slice: str
    phase: str
    size: str
    config: str
    prompt_tokens: int
    image: tuple[int, int]
    keep: str = ""


@dataclass
class Result:
    """Bytes are those of one device. `peak` counts what the program is given; 0 where it failed.

    beside   resident bytes that the program is not given
    largest  [bytes, shape, source] of its largest values
    problem  the compiler's words where there is no program, and what such a one `needs`
    warnings arrays that XLA could reshard only by copying them whole to every device
    """

    phase: str
    peak: int = 0
    given: int = 0
    beside: int = 0
    seconds: float = 0.0
    cycles: int = 0
    collectives: int = 0
    largest: list = field(default_factory=list)
    problem: str = ""
    needs: int = 0
    warnings: int = 0


def read_model(cfg: Config, size: str, mesh) -> ModelConfig:
    """The released model of a size, or that of cfg.model.source, computed as on that mesh."""
    model = released(size) if size else weights.read_model_config(cfg.model.source)
    return with_adapters(cfg, computed_as(cfg, model, mesh.devices.flat[0].platform))


def devices_of(on: slices.Slice) -> list:
    """Descriptions of the slice's devices, good for meshes and compiling, not for running."""
    if on.platform == "tpu":
        return topologies.get_topology_desc(platform="tpu", topology_name=on.topology).devices
    return topologies.get_topology_desc(
        platform="cuda",
        topology_name="",
        target_config=gpu_target.target_config(on.gpu),
        topology=on.topology,
    ).devices


def compile_phase(request: Request) -> Result:
    cfg, on = from_json(request.config), slices.find(request.slice)
    mesh = sharding.make_mesh(cfg.mesh, devices=devices_of(on))
    layout = Layout(cfg, mesh, read_model(cfg, request.size, mesh))
    shape = PromptShape(request.prompt_tokens, tuple(request.image))
    phase = phases(layout, shape)[request.phase]
    result = Result(request.phase)
    result.given, result.beside = bytes_per_device(phase.given), bytes_per_device(phase.beside)
    start = time.perf_counter()
    try:
        compiled = phase.program.lower(*phase.given).compile()
    except jax.errors.JaxRuntimeError as error:
        result.problem, result.needs = str(error), bytes_wanted(str(error))
        return result
    finally:
        result.seconds = time.perf_counter() - start
    _measure(result, compiled, phase, on, request.keep)
    return result


def bytes_wanted(message: str) -> int:
    """What a program that is too large would take, of the compiler's message; 0 if it says not."""
    found = re.search(r"Used ([\d.]+)([MG]) of|\(([\d.]+)([MG])\) exceeds", message)
    if not found:
        return 0
    number, unit = found[1] or found[3], found[2] or found[4]
    return int(float(number) * {"M": 2**20, "G": 2**30}[unit])


def _measure(result: Result, compiled, phase: Phase, on: slices.Slice, keep: str) -> None:
    memory, text = compiled.memory_analysis(), compiled.as_text()
    result.peak = memory.peak_memory_in_bytes
    if on.platform == "gpu":  # XLA reports no peak there
        result.peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes
        result.peak += memory.output_size_in_bytes - memory.alias_size_in_bytes
    bodies = hlo_report.read(text)
    result.cycles = hlo_report.total_cycles(bodies)
    result.collectives = sum(len(body.collectives) for body in bodies)
    result.largest = [[v.bytes, v.shape, v.source] for v in hlo_report.largest(bodies, 5)]
    if keep:
        Path(keep).write_text(text)


def main() -> None:
    result = compile_phase(Request(**json.load(sys.stdin)))
    print(MARK + json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
