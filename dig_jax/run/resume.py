"""Whether a run may start or go on in its folder, asked before anything is compiled."""

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax

from dig_jax.common import locks, typed
from dig_jax.common.addresses import check_plain, folder_at, is_remote, try_out
from dig_jax.config import Config, Stage, config_hash
from dig_jax.mesh import distributed
from dig_jax.run import checkpoint, depends, manifest

# Fields a resumed run may change: none of them bears on the numbers of a step, except that a
# decaying schedule is stretched to new `steps` and that sums are ordered by the mesh, by how the
# model is computed and by what is computed together.
MAY_CHANGE = (
    "name",
    "run_dir",
    "steps",
    "curriculum.stages",  # its past may not: see _same_history
    "data.root",
    "data.eval_split",
    "data.prefetch",
    "data.workers",
    "data.cache",
    "eval",
    "checkpoint",
    "log",
    "mesh",
    "model.attention",
    "model.remat",
    "model.layers",
    "grpo.packed",
    "grpo.accumulate",
    "grpo.answer_slices",
    "sft.accumulate",
    "sft.questions_root",
)
# And after a loss or a metric that was not finite what the message of that stop advises: the
# steps that are done stay as they are, those to come are another run's, which manifest.json tells.
AFTER_STOP = ("optim.rate", "grpo.kl_max")


@contextlib.contextmanager
def owned(cfg: Config) -> Iterator[None]:
    """Within, no other run writes to the run folder and to checkpoint.root; all processes enter.

    Process 0 holds the locks. Raises OSError naming the folder's owner, or the setting of a folder
    that cannot be written, and ValueError where a bucket cannot be reached.
    """
    with contextlib.ExitStack() as stack:
        refused = None
        if jax.process_index() == 0:
            try:
                for field, folder in written_folders(cfg).items():
                    stack.enter_context(locks.owned(field, lock_of(folder)))
            except (OSError, ValueError) as error:
                refused = error
        if distributed.any_process(refused is not None):
            raise refused or OSError("process 0 says what is wrong with a folder of the run")
        yield


def written_folders(cfg: Config) -> dict[str, str]:
    """Setting -> folder: what a run writes to."""
    root = {"checkpoint.root": cfg.checkpoint.root} if cfg.checkpoint.root else {}
    same = root and folder_at(cfg.run_dir) == folder_at(cfg.checkpoint.root)
    return {"run_dir": cfg.run_dir} | ({} if same else root)


def lock_of(folder: str) -> str:
    return f"{folder.rstrip('/')}/{locks.NAME}"


def check_start(cfg: Config) -> int | None:
    """Steps that the run has done; raises ValueError where it cannot start or go on as `cfg` says.

    Every process calls it: all must have one configuration, see one folder, be able to write
    there, and find there one newest checkpoint, from which the run may go on (`check_resume`).
    """
    distributed.check_same("configuration", config_hash(cfg))
    root, field = checkpoint.root_of(cfg), checkpoint.field_of_root(cfg)
    check_plain(field, root)
    if is_remote(root):
        try_out(field, root)
    distributed.check_shared(field, root)
    done = checkpoint.latest_step(root)
    distributed.check_same(f"newest checkpoint in {root}", done)
    if done is not None:
        check_resume(cfg, done)
    else:
        check_root(cfg)
    return done


def tell_done(cfg: Config) -> None:
    """Says on process 0 that a finished run was started again, and how it goes on."""
    if jax.process_index() == 0:
        if not manifest.read_settings(cfg.run_dir) and (run := checkpoint.run_number(cfg)):
            manifest.write_settings(cfg, run)  # the report needs it
        last = len(cfg.curriculum.stages) - 1
        print(
            f"nothing left to do: {cfg.run_dir} has its {cfg.steps} steps; it goes on by --set "
            f"steps=N --set curriculum.stages.{last}.until=N",
            flush=True,
        )


def check_resume(cfg: Config, step: int) -> None:
    """Raises ValueError unless a checkpoint is of this run, and `cfg` and what else the numbers
    depend on differ from it in nothing that matters."""
    check_on_first(lambda: _another_run(cfg, step), "which run a checkpoint is of")
    check_config(cfg, step)
    check_depends(cfg, step)


def check_on_first(find: Callable[[], str], what: str) -> None:
    """Raises what process 0, whose run folder counts, finds wrong; on every process."""
    wrong = ""
    if jax.process_index() == 0:
        try:
            wrong = find()
        except ValueError as error:  # the others must hear of it
            wrong = str(error)
    if distributed.any_process(bool(wrong)):
        raise ValueError(wrong or f"process 0 says what is wrong with {what}")


def _another_run(cfg: Config, step: int) -> str:
    """What to say where a checkpoint is another run's; or "".

    Both have a number (`manifest`). Without them a run folder knows the root by its config.json,
    and a folder that is new, as on a machine that takes another's place, by its name.
    """
    root, field = checkpoint.root_of(cfg), checkpoint.field_of_root(cfg)
    theirs = checkpoint.saved_record(root, step).get("run")
    ours = manifest.number_of(cfg.run_dir, theirs)
    saved, told = checkpoint.saved_settings(root, step), manifest.read_settings(cfg.run_dir)
    begun = told or manifest.read_manifest(cfg.run_dir).get("starts")
    if theirs and ours and begun:  # else its number is an evaluation's, made before its start
        same = theirs == ours
    else:
        known = told and told.get("checkpoint", {}).get("root", "") == cfg.checkpoint.root
        same = known or os.path.normpath(saved["run_dir"]) == os.path.normpath(cfg.run_dir)
    if same:
        return ""
    return (
        f"{field}={root!r} holds step {step} of another run, {saved['name']!r} of "
        f"{saved['run_dir']}, not of {cfg.run_dir}; name another {field}, or go on with that run "
        f"by --run-dir {saved['run_dir']}"
    )


def check_depends(cfg: Config, step: int) -> None:
    """Raises ValueError naming what a run depends on (`depends`) and is not what it was.

    What checkpoint.accept names may differ; `tell_start` records it.
    """
    now = depends.depends_on(cfg)
    distributed.check_same("pairs, source, reward module, flags or versions", now)
    where = checkpoint.folder_of(checkpoint.root_of(cfg)) / str(step)
    recorded = checkpoint.saved_record(checkpoint.root_of(cfg), step).get("depends")
    if recorded is None:
        if jax.process_index() == 0:
            print(f"{where} does not tell what it depends on: nothing is compared", flush=True)
        return
    found = depends.differing(recorded, now)
    wrong = {n: p for n, p in found.items() if not depends.is_accepted(n, cfg.checkpoint.accept)}
    if wrong:
        raise ValueError(
            f"what the run depends on differs from {where}:\n{_lines(wrong)}\n"
            f"put it back, start a new run with another --run-dir, or go on all the same, which is "
            f"recorded, by --set checkpoint.accept={','.join((*cfg.checkpoint.accept, *wrong))}"
        )


def tell_start(cfg: Config, first_step: int) -> str:
    """Appends this start to manifest.json; returns the run's number. Process 0 calls it.

    A resume tells in what settings and dependencies it differs from its checkpoint.
    """
    now = depends.depends_on(cfg)
    start = {"first_step": first_step, **manifest.facts(cfg), "depends": now}
    root, run = checkpoint.root_of(cfg), None
    if first_step and not manifest.read_manifest(cfg.run_dir):
        print(f"{cfg.run_dir} lacks {manifest.NAME}: earlier starts are not told", flush=True)
    if first_step and first_step in checkpoint.saved_steps(root):
        record = checkpoint.saved_record(root, first_step)
        run = record.get("run")
        saved = checkpoint.saved_settings(root, first_step)
        changed = typed.differences(saved, cfg, lacking=Config())
        accepted = depends.differing(record.get("depends", {}), now) if record else {}
        start |= {"changed": changed} if changed else {}
        start |= {"accepted": accepted} if accepted else {}
    return manifest.add_start(cfg, run, start)


def check_root(cfg: Config) -> None:
    """Raises ValueError where a run would begin anew for want of the checkpoints it has elsewhere.

    Every process calls it; the run folder that counts is that of process 0.
    """
    check_on_first(lambda: _left_behind(cfg), "checkpoint.root")


def _left_behind(cfg: Config) -> str:
    """What to say where an earlier start of this run folder saved under another root; or ""."""
    old = checkpoint.told_root(cfg.run_dir) or cfg.run_dir
    steps = checkpoint.saved_steps(old) if old != checkpoint.root_of(cfg) else []
    if not steps:
        return ""
    root, held = checkpoint.root_of(cfg), checkpoint.CHECKPOINTS
    source, target = (shlex.quote(f"{one}".rstrip("/")) for one in (old, root))
    copy = f"mkdir -p {target} && cp -r {source}/{held} {target}"
    if "://" in f"{old}{root}":
        copy = f"gcloud storage rsync --recursive {source}/{held} {target}/{held}"
    return (
        f"checkpoint.root={cfg.checkpoint.root!r} holds no checkpoint, but the run of "
        f"{cfg.run_dir} has saved steps {steps} in {old}; set it back to go on there, copy them by "
        f"`{copy}`, or start a new run with another --run-dir"
    )


def check_config(cfg: Config, step: int) -> None:
    """Raises ValueError naming the fields in which `cfg` may not differ from a checkpoint.

    Every process calls it.
    """
    root = checkpoint.root_of(cfg)
    saved, folder = checkpoint.saved_settings(root, step), checkpoint.folder_of(root) / str(step)
    if cfg.steps < step:
        raise ValueError(
            f"steps={cfg.steps}, but {folder} has done {step} already; use steps={step} or more to "
            f"go on, or start a new run with another --run-dir"
        )
    stopped = distributed.first_says(jax.process_index() == 0 and _has_stopped(cfg, step))
    free = MAY_CHANGE + (AFTER_STOP if stopped else ())
    wrong = {
        path: pair
        for path, pair in typed.differences(saved, cfg, lacking=Config()).items()
        if not any(path == name or path.startswith(name + ".") for name in free)
    }
    old_stages = [Stage(**stage) for stage in saved["curriculum"]["stages"]]
    if not _same_history(old_stages, cfg.curriculum.stages, step):
        wrong["curriculum.stages"] = (f"another mixture before step {step}", "this one")
    if wrong:
        raise ValueError(
            f"the configuration differs from {folder}:\n{_lines(wrong)}\n"
            f"set them back to continue that run, or start a new one with another --run-dir"
        )


def _has_stopped(cfg: Config, step: int) -> bool:
    """Whether the run's newest start ended because of a number, and no checkpoint came after."""
    starts = manifest.read_manifest(cfg.run_dir).get("starts", [])
    stops = [start["stopped"]["step"] for start in starts if "stopped" in start]
    return bool(stops) and max(stops) >= step


def _lines(pairs: Mapping[str, tuple]) -> str:
    return "\n".join(f"  {name}: saved {old!r}, now {new!r}" for name, (old, new) in pairs.items())


def _same_history(old: Sequence[Stage], new: Sequence[Stage], step: int) -> bool:
    """Whether two curricula drew the same mixture in every step before `step`."""

    def past(stages):
        begun, first = [], 0
        for stage in stages:
            if first < step:
                begun.append((first, min(stage.until, step), _shares(stage)))
            first = stage.until
        return begun

    return past(old) == past(new)


def _shares(stage: Stage) -> dict[str, float]:
    return {name: weight for name, weight in stage.weights.items() if weight > 0}
