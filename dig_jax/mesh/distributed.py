"""Several processes as one run: how they find one another, agree, and end together.

On a TPU pod, under Slurm, as an indexed Kubernetes job or in a few shells the same command is
started once per process; `joined` makes one run of them. Where the launcher is one that JAX
detects there is nothing to set. Elsewhere three variables say it:

    DIG_COORDINATOR   host:port at which process 0 listens
    DIG_PROCESSES     their number; 1: by itself, whatever cluster it finds itself in
    DIG_PROCESS       which one this is, from 0

and two more how long, in seconds, is waited for the others to come (DIG_JOIN_TIMEOUT, 300) and
to be heard of again (DIG_HEARTBEAT_TIMEOUT, 100). A lone process joins nothing.
"""

import contextlib
import multiprocessing
import os
import secrets
import signal
import socket
import sys
import traceback
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from dig_jax.common.addresses import folder_at
from dig_jax.common.commandline import clear_errors
from dig_jax.common.typed import require

COORDINATOR, PROCESSES, PROCESS = "DIG_COORDINATOR", "DIG_PROCESSES", "DIG_PROCESS"
TIMEOUTS = {  # variable -> argument of jax.distributed.initialize
    "DIG_JOIN_TIMEOUT": "initialization_timeout",
    "DIG_HEARTBEAT_TIMEOUT": "heartbeat_timeout_seconds",
}


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """The part of a program that uses devices; whatever processes it has are one run within.

    Enter it before JAX is asked for a device. What is wrong with the variables or the cluster
    ends the program with its message. With several processes an exception inside ends this one
    at once: leaving as usual would wait for processes that wait for this one.
    """
    with clear_errors():
        arguments = join_arguments(os.environ)
    if arguments is None:
        yield
        return
    _join(arguments)
    try:
        yield
    except BaseException as error:
        _leave(error)


def join_arguments(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """What to call `jax.distributed.initialize` with; None where there is one process.

    Without the three variables JAX's own detection decides (Slurm, Open MPI, TPU pods, indexed
    Kubernetes jobs). Raises ValueError naming the variable, its value, the rule and the remedy.
    """
    waits = {
        argument: _whole(environ, variable, 1, "seconds")
        for variable, argument in TIMEOUTS.items()
        if variable in environ
    }
    asked = [name for name in (COORDINATOR, PROCESSES, PROCESS) if name in environ]
    if not asked:
        return waits if _detected_processes() > 1 else None
    require(PROCESSES in asked, asked[0], environ[asked[0]], f"needs {PROCESSES}", "set it too")
    count = _whole(environ, PROCESSES, 1, "processes, this one included")
    if count == 1:
        return None
    for name in (COORDINATOR, PROCESS):
        require(name in asked, PROCESSES, count, f"needs {name}", "set all three, or none")
    index, address = _whole(environ, PROCESS, 0, "number of this process"), environ[COORDINATOR]
    low = f"is not below {PROCESSES}={count}"
    require(index < count, PROCESS, index, low, f"processes are numbered 0 to {count - 1}")
    host, _, port = address.rpartition(":")
    right = bool(host) and port.isdecimal() and 0 < int(port) < 2**16
    form = f"write the host of process 0 and a free port there, as {COORDINATOR}=10.0.0.1:8476"
    require(right, COORDINATOR, address, "is not host:port", form)
    place = {"coordinator_address": address, "num_processes": count, "process_id": index}
    return {**place, "cluster_detection_method": "deactivate", **waits}


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process; all of them ask at the same point of a run."""
    return bool(_gathered(np.bool_(flag)).any())


def first_says(flag: bool) -> bool:
    """The flag of process 0, on every process: its files and clock are the ones that count."""
    return bool(_gathered(np.bool_(flag))[0])


def check_same(what: str, value: object) -> None:
    """Raises ValueError on every process unless all of them hold the same value (as text)."""
    codes = _gathered(np.uint32(zlib.crc32(str(value).encode())))
    others = np.flatnonzero(codes != codes[0]).tolist()
    if others:
        raise ValueError(
            f"processes {others} have another {what} than process 0; process "
            f"{jax.process_index()} has {value}; start the same command with the same files "
            f"everywhere"
        )


def check_shared(field: str, folder: str | Path) -> None:
    """Raises ValueError on every process unless all of them see one and the same folder.

    field   the setting that names it; a path, or an address in a bucket

    Each writes its part of a checkpoint there. The folder is made if it is missing.
    """
    if jax.process_count() == 1:
        return
    mark, token = folder_at(folder) / ".shared", str(secrets.randbits(64))
    if jax.process_index() == 0:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(token)
    wanted = int(_gathered(np.uint32(zlib.crc32(token.encode())))[0])
    seen = mark.is_file() and zlib.crc32(mark.read_bytes()) == wanted
    blind = np.flatnonzero(~_gathered(np.bool_(seen))).tolist()
    if jax.process_index() == 0:
        mark.unlink()
    if blind:
        raise ValueError(
            f"{field}={str(folder)!r} of process 0 is not what processes {blind} see there; use a "
            f"folder on a file system that all machines share, or one in a bucket"
        )


def check_rewards(reward: np.ndarray, pair_id: np.ndarray) -> None:
    """Raises RuntimeError on every process unless all of them gave the same rewards, bit for bit.

    reward    f32[B, G]   of all answers, as this process has computed it
    pair_id   i32[B]

    Different ones would send the processes separate ways: other advantages on replicas of one
    shard, another number of draws.
    """
    values = _gathered(np.float32(reward))  # [processes, B, G]
    bits = values.view(np.uint32)
    wrong = np.argwhere((bits != bits[0]).any(0))
    if len(wrong):
        pair, answer = wrong[0]
        told = ", ".join(f"{x} on process {i}" for i, x in enumerate(values[:, pair, answer]))
        raise RuntimeError(
            f"the processes of this run score alike answers differently ({len(wrong)} of "
            f"{values[0].size}); answer {answer} to pair {pair_id[pair]}: {told}. A reward must "
            f"follow from the sample alone: look in reward.function for a clock, the order of a "
            f"set, a random generator without a seed, or files that differ between machines"
        )


def _gathered(value: np.ndarray | np.generic) -> np.ndarray:
    """The value of every process, in their order, along a new first axis."""
    if jax.process_count() == 1:
        return np.asarray(value)[None]
    return multihost_utils.process_allgather(value)


def _detected_processes() -> int:
    """How many processes JAX's cluster detection counts; 1 where it finds no cluster."""
    # Private, and there is no public way to ask: `initialize` would start a service for a lone
    # process, whose port two such processes on one machine then dispute.
    from jax._src.clusters import ClusterEnv

    known = [env for env in ClusterEnv._cluster_types if not env.opt_in_only_method]
    name = "cluster"
    try:
        for env in known:
            name = env.__name__
            if env.is_env_present():
                return env.get_process_count()
    except Exception as error:  # whatever a cluster's interface answers
        raise ValueError(
            f"JAX's detection of a {name} fails ({type(error).__name__}: {error}); set "
            f"{PROCESSES}=1 for a process by itself, or {COORDINATOR}, {PROCESSES}, {PROCESS}"
        ) from error
    return 1


def _whole(environ: Mapping[str, str], name: str, least: int, unit: str) -> int:
    text = environ[name].strip()
    right = text.isdecimal() and int(text) >= least
    require(right, name, text, f"is not a whole number from {least}", f"it counts {unit}")
    return int(text)


def _join(arguments: dict[str, Any]) -> None:
    here = "this process"
    if "process_id" in arguments:
        address, index = arguments["coordinator_address"], arguments["process_id"]
        here = f"process {index} of {arguments['num_processes']}"
        if index == 0:
            _check_port(address)
    wait = arguments.get("initialization_timeout", 300)  # JAX's default
    # Said before: where one is missing JAX aborts without a word on what was waited for.
    print(f"{here} waits for the others, {wait} s at most (DIG_JOIN_TIMEOUT)", file=sys.stderr)
    try:
        jax.distributed.initialize(**arguments)
    except RuntimeError as error:
        raise SystemExit(f"error: {here} cannot join the others: {error}") from error
    # JAX has taken SIGTERM for its preemption service, which outlives every later signal: give
    # it back to Python (`notice.stop_on_notice` listens where a run can be continued).
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _check_port(address: str) -> None:
    """Ends the program where process 0 could not listen, of which JAX's service would crash."""
    try:
        socket.create_server(("", int(address.rpartition(":")[2]))).close()
    except OSError as error:
        raise SystemExit(
            f"error: {COORDINATOR}={address!r}: process 0 cannot listen at that port of this "
            f"machine ({error}); choose another, or end the program that has it"
        ) from error


def _leave(error: BaseException) -> NoReturn:
    """Ends this process as an uncaught exception would, but without JAX's farewell."""
    if isinstance(error, SystemExit) and not error.code:
        raise error
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    elif isinstance(error.code, str):
        print(error.code, file=sys.stderr)
    print(
        f"process {jax.process_index()} of {jax.process_count()} ends by the error above. Where "
        f"that is a broken connection, another process has ended first and says why. Start the "
        f"same command on all of them again",
        file=sys.stderr,
    )
    for child in multiprocessing.active_children():  # data.workers
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    code = getattr(error, "code", 1)
    os._exit(code if isinstance(code, int) else 1)
