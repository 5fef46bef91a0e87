"""Several hosts, one sweep: the same script runs on every host, and each computes its share of every chunk's lanes.

The engine is `jax.distributed`. Start one process a host (or several), each with the same script::

    from nnjax import hosts, results
    from nnjax.sweep import sweep, use_all_cores

    use_all_cores()
    hosts.connect("10.0.0.1:9911", processes=2, process=0)  # process=1 on the second host
    if hosts.index() == 0:
        with results.Folder("found", {"study": "mine"}) as folder:
            found = sweep(run, axes, key=key, store=folder.store("panel"))
    else:
        found = sweep(run, axes, key=key)

`sweep` then lays its lanes over the devices of all processes. Its result is the same everywhere, and bit for bit
that of one process with as many devices of that kind. Process 0 alone reads and writes the store; what it finds there
it tells the others, so that all agree on the chunks that are missing.

Where a process fails with an error, or ends before the others, every process stops at its next exchange with a
`HostError` that says so. Where one is killed, the others mostly stop so as well. Not so where process 0 is killed,
which holds the coordinator, or where the others compute for longer than the heartbeat after a kill: then JAX aborts
them, with a log of its own in C++ (exit code 134) and no `HostError`. In either case start all of them again, and
they go on from the last chunk stored.

Without arguments `connect` takes what the environment says: ``NNJAX_HOSTS`` (``HOST:PORT,PROCESS/PROCESSES``, or
``auto``), else what JAX finds out by itself under Slurm, Open MPI, Kubernetes and on Cloud TPUs. Under Slurm::

    #SBATCH --nodes=4 --ntasks-per-node=1 --cpus-per-task=16
    srun python -m experiments.double_descent --preset standard --out /shared/results --hosts auto

Under Kubernetes, an Indexed Job behind a headless service, each pod with ``NNJAX_HOSTS`` set to
``JOB-0.SERVICE:9911,$(JOB_COMPLETION_INDEX)/4``; or ``auto`` with JAX's extra ``k8s``.

Every process must have the same number of devices: on hosts of different sizes set ``jax_num_cpu_devices`` to that
of the smallest instead of `use_all_cores`. The coordinator and the exchange between processes have no passwords:
keep them inside a private network. A coordinator on a loopback address listens there alone; the exchange (Gloo) does
not follow it: every process opens a port at the address that its machine's host name stands for.
"""

from __future__ import annotations

import atexit
import io
import os
import platform
import re
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from nnjax.types import PyTree

VARIABLE = "NNJAX_HOSTS"
"""Environment variable that `connect` reads where it is given nothing."""

_FORM = re.compile(r"(?P<coordinator>.+),(?P<process>\d+)/(?P<processes>\d+)")
LOOPBACK = re.compile(r"(127(\.\d+){3}|localhost|\[::1\]):\d+")
"""``HOST:PORT`` on this machine's loopback interface, which nobody else reaches."""


_TOLD = "The other processes stop too."
_PIECE = 2**30
"""Bytes that are exchanged at a time."""


class HostError(RuntimeError):
    """Another process of this sweep failed or is gone; the message says what to do."""


# Connecting


def parse(text: str) -> tuple[str | None, int | None, int | None]:
    """``HOST:PORT,PROCESS/PROCESSES`` as coordinator, processes, process; ``auto`` as three times None.

    Raises:
      ValueError: the text has neither form.
    """
    if text == "auto":
        return None, None, None
    found = _FORM.fullmatch(text)
    if not found:
        raise ValueError(f"hosts={text!r} must be auto or HOST:PORT,PROCESS/PROCESSES, such as 10.0.0.1:9911,0/2")
    return found["coordinator"], int(found["processes"]), int(found["process"])


def connect(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    heartbeat: int = 15,
    timeout: int = 300,
) -> int:
    """Join the other processes; call it before anything is computed, after `nnjax.sweep.use_all_cores`.

    Args:
      coordinator: ``HOST:PORT`` of process 0, which listens there; with ``processes`` and ``process``, or none of
        the three, for what the environment says (see the module's text).
      processes: number of processes.
      process: number of this one, from 0.
      heartbeat: seconds without a sign of life after which a process counts as gone, and the others stop.
      timeout: seconds to wait for the others to appear and, after an error that ends this process, for them to hear
        of it. Where they do not appear, this process ends with a sentence and exit code 1 (JAX itself would abort it
        with a stack trace).

    Returns:
      The number of this process.

    Raises:
      ValueError: arguments that do not fit together, an environment that says nothing, JAX already started, or
        processes with different numbers of devices.
      HostError: the processes cannot be joined, in JAX's words.
    """
    if (coordinator, processes, process) == (None, None, None):
        coordinator, processes, process = parse(os.environ.get(VARIABLE, "auto"))
    detected = coordinator is None and processes is None and process is None
    if not detected:
        _check(coordinator, processes, process)
        if processes == 1:
            return 0
    if heartbeat < 1 or timeout < 1:
        raise ValueError(f"heartbeat={heartbeat} and timeout={timeout} must be at least 1 s")
    # Else JAX swallows SIGTERM: a polite kill would do nothing.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    local = not detected and bool(LOOPBACK.fullmatch(str(coordinator)))
    late = threading.Timer(timeout, _give_up, (coordinator, timeout))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            coordinator, processes, process,
            cluster_detection_method=None if detected else "deactivate",
            coordinator_bind_address=coordinator if local else None,
            initialization_timeout=timeout + 60, heartbeat_timeout_seconds=heartbeat, shutdown_timeout_seconds=timeout,
        )  # fmt: skip
        jax.devices()  # waits for all
    except (ValueError, RuntimeError) as error:
        raise _explained(error) from None
    finally:
        late.cancel()
    _check_devices()
    exchange(b"")  # now, so that who is lost later is noticed at once
    _part_in_words(timeout)
    return index()


def _check(coordinator: str | None, processes: int | None, process: int | None) -> None:
    if coordinator is None or processes is None or process is None:
        raise ValueError(
            f"coordinator={coordinator!r}, processes={processes} and process={process} must all be given, or none"
        )
    port = coordinator.rpartition(":")[2]
    if not re.fullmatch(r"[^\s/]+:\d{1,5}", coordinator) or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator={coordinator!r} must be HOST:PORT with a port from 1 to 65535")
    if processes < 1 or not 0 <= process < processes:
        raise ValueError(f"process={process} must be from 0 to processes - 1, and processes={processes} at least 1")


def _give_up(coordinator: str | None, timeout: int) -> None:
    where = f" at {coordinator}" if coordinator else ""
    print(f"the processes did not meet{where} within {timeout} s; start all of them again", file=sys.stderr)
    leave()


def _explained(error: Exception) -> Exception:
    text = str(error)
    if "before any JAX calls" in text:
        return ValueError("connect() must be called before anything is computed; restart and call it first")
    if "only be called once" in text:
        return ValueError("connect() was called before in this process; call it once")
    if "should be defined" in text or "must be defined" in text:
        return ValueError(
            "no cluster was found around this process (Slurm, Open MPI, Kubernetes, Cloud TPU); "
            f"give coordinator, processes and process, or set {VARIABLE}"
        )
    return HostError(f"the processes cannot be joined ({text.splitlines()[0]})")


def _check_devices() -> None:
    each = [0] * count()
    for device in jax.devices():
        each[device.process_index] += 1
    if len(set(each)) > 1:
        raise ValueError(
            f"the processes have different numbers of devices ({', '.join(map(str, each))}); "
            f"set jax_num_cpu_devices={min(each)} on every host before connect()"
        )


def index() -> int:
    """Number of this process among those connected; 0 where it is alone."""
    return jax.process_index()


def count() -> int:
    """Number of processes that are connected; 1 where this one is alone."""
    return jax.process_count()


def devices() -> list[Any]:
    """Devices of all processes, those of process 0 first; on every process in the same order."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def sharing() -> int:
    """Number of connected processes that run on this machine, this one included."""
    names = together(platform.node().encode)
    return names.count(platform.node().encode())


# Exchanging


def exchange(payload: bytes) -> list[bytes]:
    """What every process gave, by its number; waits until all have called it.

    Raises:
      HostError: a process has ended, or is gone. In the second case this one then ends without waiting for it, with
        exit code 1.
    """
    if count() == 1:
        return [payload]
    if _END.parted:
        raise HostError(_END.parted)
    try:
        ended, rows = _gather(payload, ends=False)
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # the second where it is JAX's first collective
        atexit.register(leave)
        raise HostError(
            f"process {index()} lost the others ({str(error).splitlines()[0][:200]}); "
            "start all of them again to go on from the last chunk stored"
        ) from None
    if any(ended):
        number = ended.index(True)
        why = rows[number].decode(errors="replace")
        _END.parted = f"process {number} {f'stopped with {why}' if why else 'ended before this one'}"
        raise HostError(_END.parted)
    return rows


def _gather(payload: bytes, *, ends: bool) -> tuple[list[bool], list[bytes]]:
    """Which processes are at their end, and what every process gave."""
    from jax.experimental import multihost_utils

    heads = multihost_utils.process_allgather(np.array([*_halves(len(payload)), ends], np.uint32))
    lengths = [_whole(*head) for head in heads[:, :2].tolist()]
    longest, pieces = max(lengths), [[b""] for _ in lengths]
    for start in range(0, longest, _PIECE):
        # Powers of two, so that few programs serve all lengths.
        room = np.zeros(1 << (min(longest - start, _PIECE) - 1).bit_length(), np.uint8)
        part = payload[start : start + _PIECE]
        room[: len(part)] = np.frombuffer(part, np.uint8)
        for row, length, found in zip(multihost_utils.process_allgather(room), lengths, pieces, strict=True):
            found.append(row[: max(0, min(length - start, _PIECE))].tobytes())
    return heads[:, 2].astype(bool).tolist(), [b"".join(found) for found in pieces]


def _halves(number: int) -> tuple[int, int]:
    # JAX has no integers of 64 bits unless they are turned on.
    return number >> 32, number & 0xFFFFFFFF


def _whole(high: int, low: int) -> int:
    return high << 32 | low


def leave(code: int = 1) -> NoReturn:
    """End this process at once; the others then stop at their next exchange.

    JAX's own end of a process waits for the others, also for those that are gone, and then aborts with a stack trace.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# Ending


class _End:
    """What this process knows of its end, and of the others'."""

    own = ""  # the error that ends it
    parted = ""  # why there is nobody left to exchange with


_END = _End()


def _part_in_words(timeout: int) -> None:
    """From now on this process does not end before the others know, who else would wait for it until they are killed.

    An exchange at the end of each, in which it says that it is at its end, and the error where there is one: those who
    are there as well go, and those who are in the midst of their work hear of it.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        before(kind, error, trace)
        if issubclass(kind, KeyboardInterrupt):
            leave(130)
        _END.own = f"{kind.__name__}: {error}"[:500]
        # Not when the end has begun, for then no thread can be started.
        late = threading.Timer(timeout, leave)
        late.daemon = True
        late.start()

    sys.excepthook = hook
    atexit.register(_part)


def _part() -> None:
    if _END.parted or not jax.distributed.is_initialized():
        return
    _END.parted = "this process is at its end"
    try:
        _gather(_END.own.encode(), ends=True)
    except (jax.errors.JaxRuntimeError, ValueError):  # JAX would wait for those who are gone
        print(f"process {index()} lost the others at its end", file=sys.stderr)
        leave()


def together(compute: Callable[[], bytes]) -> list[bytes]:
    """What ``compute()`` gives on every process, by number. Where it fails on one, all stop: it with its error.

    Without this the others would wait for the one that failed until they are killed. It may be called within
    ``compute``: an error is told once.

    Raises:
      HostError: it failed on another process, there perhaps after this one was done.
    """
    if count() == 1:
        return [compute()]
    own: Exception | None = None
    try:
        payload = b"+" + compute()
    except Exception as error:
        if isinstance(error, HostError) or _TOLD in getattr(error, "__notes__", ()):
            raise
        own, payload = error, f"-{type(error).__name__}: {error}".encode()
    answers = exchange(payload)
    if own is not None:
        own.add_note(_TOLD)
        raise own
    for number, answer in enumerate(answers):
        if answer.startswith(b"-"):
            raise HostError(f"process {number} stopped with {answer[1:].decode(errors='replace')}")
    return [answer[1:] for answer in answers]


def least(compute: Callable[[], int]) -> int:
    """The least of what ``compute()`` gives on each process."""
    return min(int(answer) for answer in together(lambda: str(compute()).encode()))


def most(compute: Callable[[], int]) -> int:
    """The greatest of what ``compute()`` gives on each process."""
    return max(int(answer) for answer in together(lambda: str(compute()).encode()))


def first(compute: Callable[[], Mapping[str, np.ndarray] | None]) -> dict[str, np.ndarray] | None:
    """What ``compute()`` gives on process 0, where alone it is called, on every process."""
    if count() == 1:
        found = compute()
        return None if found is None else dict(found)

    def packed() -> bytes:
        found = compute() if index() == 0 else None
        return b"" if found is None else pack(found)

    answer = together(packed)[0]
    return unpack(answer) if answer else None


def rows(compute: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows of all processes one below the other, in their order; each computes its own with ``compute()``."""
    if count() == 1:
        return dict(compute())
    parts = [unpack(answer) for answer in together(lambda: pack(compute()))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def same(text: str, what: str) -> None:
    """Check that every process gives the same text. Raises HostError, on all of them, where one does not."""
    answers = together(text.encode)
    odd = [str(number) for number, answer in enumerate(answers) if answer != answers[0]]
    if odd:
        raise HostError(
            f"{what} differs between process 0 and process {', '.join(odd)}; start the same script with the same "
            "arguments, data and versions everywhere"
        )


# Arrays


def put(tree: PyTree, place: Sharding) -> PyTree:
    """Host arrays on the devices of all processes; every process holds the same whole arrays.

    Returns:
      The tree with `jax.Array` leaves laid out as ``place`` says, in JAX's precision.
    """
    if place.is_fully_addressable:
        return jax.device_put(tree, place)

    def spread(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        array = array.astype(jnp.result_type(array), copy=False)
        return jax.make_array_from_callback(array.shape, place, lambda index: array[index])

    return jax.tree.map(spread, tree)


def own_rows(array: jax.Array) -> np.ndarray:
    """The rows of an array, laid out by rows, that are on this process's devices, in order."""
    if array.is_fully_addressable:
        return np.asarray(array)
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Named arrays of numbers, booleans and strings as bytes; see `unpack`."""
    buffer = io.BytesIO()
    named = {name: np.asarray(array) for name, array in arrays.items()}
    # The file format forgets types that are not NumPy's own, such as bfloat16.
    header = np.array([[name, array.dtype.name] for name, array in named.items()], str).reshape(-1, 2)
    for array in (header, *named.values()):
        np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpack(content: bytes) -> dict[str, np.ndarray]:
    """Named arrays from what `pack` made."""
    buffer = io.BytesIO(content)
    header = np.lib.format.read_array(buffer, allow_pickle=False).tolist()
    arrays = {name: np.lib.format.read_array(buffer, allow_pickle=False) for name, _ in header}
    return {name: array.view(kind) if array.dtype.kind == "V" else array
            for (name, kind), array in zip(header, arrays.values(), strict=True)}  # fmt: skip
