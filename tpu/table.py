"""What a preflight prints: a line per phase, and what to change where one does not fit."""

from dig_jax.config import Config
from dig_jax.learner.trainable import is_below
from tpu.compile_phase import Result
from tpu.slices import Slice

GIB = 2**30
_COLUMNS = ("phase", "peak", "resident", "sum", "HBM", "headroom", "seconds")
HEADING = "{:<8} {:>7} {:>9} {:>7} {:>7} {:>9} {:>8}".format(*_COLUMNS)


def row(result: Result, on: Slice) -> str:
    """A line of the table, GiB of one device.

    peak      of the program, with what it is given
    resident  beside it
    """
    need, beside = (result.peak or result.needs) / GIB, result.beside / GIB
    if not need:
        cells = ["-", f"{beside:.2f}", "-", f"{on.hbm_gib:.2f}", "-", f"{result.seconds:.0f}"]
        verdict = "no program"
    else:
        numbers = (need, beside, need + beside, on.hbm_gib, on.hbm_gib - need - beside)
        cells = [*(f"{n:.2f}" for n in numbers), f"{result.seconds:.0f}"]
        verdict = "fits" if fits(result, on) else "OVER"
    if result.warnings:
        verdict += f", {result.warnings} arrays copied whole to be resharded"
    widths = (7, 9, 7, 7, 9, 8)
    line = " ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return f"{result.phase:<8} {line}  {verdict}"


def fits(result: Result, on: Slice) -> bool:
    """Whether there is a program and room for it and for what stays beside it."""
    return not result.problem and result.peak + result.beside <= on.hbm_gib * GIB


def explain(result: Result, cfg: Config) -> str:
    """What takes the memory of a phase that does not fit, and what to change."""
    told = [f"    {line}" for line in result.problem.splitlines()[:40]]
    if result.problem and not result.needs:  # whatever it was, it was not memory
        return "\n".join([f"{result.phase} did not compile:", *told])
    lines = [f"{result.phase} does not fit; the compiler says:", *told]
    if result.largest:
        lines = [f"{result.phase} does not fit; its largest values on a device:"]
    lines += [f"    {size / GIB:6.2f} GiB  {shape}  {op}" for size, shape, op in result.largest]
    lines += [f"  try --set {change}" for change in changes(result, cfg)]
    lines.append(f"  or rollout.max_tokens below {cfg.rollout.max_tokens}, or a larger slice")
    return "\n".join(lines)


def changes(result: Result, cfg: Config) -> list[str]:
    """Settings that make a phase smaller, those that cost least first."""
    devices, grpo = cfg.mesh.fsdp * cfg.mesh.tensor, cfg.grpo
    most = cfg.pairs_per_step // devices // grpo.minibatches
    options = {
        "model.compute_dtype=bfloat16": cfg.model.compute_dtype == "float32",
        "grpo.reference=bfloat16": grpo.kl_coef > 0 and grpo.reference == "float32",
        "grpo.reference=host": grpo.kl_coef > 0 and grpo.reference == "bfloat16",
        "optim.freeze=vision": not cfg.lora.rank and not _frozen_tower(cfg),
        "lora.rank=64 --set optim.freeze=": not cfg.lora.rank,
    }
    if result.phase == "sample":
        options = {f"pairs_per_step={devices}": cfg.pairs_per_step > devices} | options
        wider = f"mesh.tensor={2 * cfg.mesh.tensor} --set mesh.fsdp={cfg.mesh.fsdp // 2}"
        options |= {wider: cfg.mesh.fsdp % 2 == 0}
    if result.phase == "update":
        options = {
            "model.remat=full": cfg.model.remat != "full",
            f"grpo.accumulate={most}": grpo.accumulate < most,
            f"grpo.answer_slices={cfg.rollout.group}": grpo.answer_slices < cfg.rollout.group,
        } | options
    return [setting for setting, helps in options.items() if helps]


def _frozen_tower(cfg: Config) -> bool:
    return any(is_below("vision", prefix) for prefix in cfg.optim.freeze)
