"""Chunks on other machines: an executor for `nnjax.sweep.sweep` on `dask.distributed` (extra ``cluster``).

On this machine, a worker process for every core, over an encrypted connection on the loopback interface alone::

    from nnjax import cluster
    from nnjax.sweep import sweep

    if __name__ == "__main__":  # workers import this file
        with cluster.local(workers=4) as client:
            found = sweep(run, axes, key=key, executor=cluster.dask_executor(client))

The work is sent once to every worker, which compiles it for its own devices; then come the chunks, and their results
in the order in which they are done. The chunk of a worker that dies is computed by another. Chunks are cut by the
process that calls `sweep`, so the numbers are the same bit for bit whoever computes them: a worker must have the same
versions and kind of device, the same files of the study, and at least as many devices (on CPU it makes itself as
many); another one is refused. Hosts with another make of processor may differ in the last bits.

A whole study: its sweeps take the executor as they take a store::

    for name, call in double_descent.sweeps(config).items():
        groups[name] = call(executor=cluster.dask_executor(client), store=folder.store(name))

Slurm: a scheduler and the workers in one job, with certificates (see "TLS" in Dask's documentation: three files that
all hosts read from a folder of your own)::

    #SBATCH --ntasks=9 --cpus-per-task=4
    TLS="--tls-ca-file ca.pem --tls-cert cert.pem --tls-key key.pem"
    srun --ntasks=1 --exact dask scheduler --protocol tls --port 8786 --no-dashboard $TLS &
    srun --ntasks=7 --exact dask worker tls://$(hostname):8786 --nthreads 1 --no-dashboard $TLS &
    srun --ntasks=1 --exact python study.py  # dask_executor("tls://HOST:8786", security=Security(...))

or, with ``dask-jobqueue``, ``SLURMCluster(cores=4, processes=1, memory="16GB", shared_temp_directory=FOLDER,
security=Security.temporary())`` and ``dask_executor(cluster.get_client())``.

Kubernetes: Dask's operator (``dask_kubernetes.operator.KubeCluster(name="sweep", image=IMAGE, n_workers=8)``), an image
that holds nnjax and the study, and ``dask_executor(cluster.get_client())`` from a pod of the same image. Keep the
scheduler's service inside the cluster by a network policy.

Who reaches a scheduler runs code on its workers. An address is therefore refused unless it is encrypted (``tls://``
with ``security``). An unencrypted one on loopback is open to every user of the machine, say of a login node: it is
taken with ``unencrypted=True`` alone, for a machine of your own. Of a client that you made yourself it is you who
knows.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import hashlib
import importlib
import importlib.util
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import jax
import jaxlib
import numpy as np

from nnjax import results
from nnjax.chunks import Chunk, Work
from nnjax.hosts import LOOPBACK
from nnjax.sweep import Executor, cores

Result = tuple[dict[str, np.ndarray], float]

# A chunk has all devices of its process.
_ONE_AT_A_TIME = threading.Lock()


def _distributed() -> ModuleType:
    try:
        return importlib.import_module("distributed")
    except ImportError:
        raise ModuleNotFoundError(
            "nnjax.cluster needs dask.distributed; install it with: pip install 'nnjax[cluster]'"
        ) from None


# The executor


def dask_executor(
    target: Any, *, security: Any = None, attempts: int = 3, timeout: float = 60.0, unencrypted: bool = False
) -> Executor:
    """An executor that sends chunks to the workers of a Dask cluster.

    Args:
      target: a ``distributed.Client``, which stays open, or the address of a scheduler: ``tls://HOST:8786``, or with
        ``unencrypted`` one on loopback, ``tcp://127.0.0.1:8786``.
      security: ``distributed.Security`` with the certificates for an address.
      attempts: how often in a row chunks are sent, the first time included, without one coming back: where the work
        is lost with all workers that held it, what is left is sent again. (Where one of several workers dies Dask
        itself sends its chunk to another, three times at most.)
      timeout: seconds to wait for the scheduler and for a first worker.
      unencrypted: take an address on loopback without encryption. Every user of the machine can then run code in your
        name; pass it where there is no other.

    Returns:
      What `nnjax.sweep.sweep` takes as ``executor``. As it runs, it raises RuntimeError where no scheduler or worker
      answers, the scheduler goes, a worker does not fit, or a chunk ends every worker it is sent to; and what a lane
      itself raises.

    Raises:
      ModuleNotFoundError: dask.distributed is not installed.
      ValueError: an address that is not encrypted, unless it is on loopback and ``unencrypted`` says so.
    """
    distributed = _distributed()
    if attempts < 1 or timeout <= 0:
        raise ValueError(f"attempts={attempts} must be at least 1 and timeout={timeout} positive")
    if isinstance(target, str):
        _check_address(target, security, unencrypted)
    elif not isinstance(target, distributed.Client):
        raise ValueError(f"target {type(target).__name__} must be a distributed.Client or the address of a scheduler")

    def execute(work: Work, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, dict[str, np.ndarray]]]:
        with contextlib.ExitStack() as stack:
            client = target
            if isinstance(target, str):
                client = stack.enter_context(_joined(target, security, timeout))
            for chunk, (arrays, seconds) in _farm(client, work, chunks, attempts, timeout):
                work.seconds = seconds
                if work.monitor:
                    work.monitor.spend("run", seconds)
                yield chunk, arrays

    return execute


def _joined(address: str, security: Any, timeout: float) -> Any:
    try:
        return _distributed().Client(address, security=security, timeout=timeout)
    except OSError:
        raise RuntimeError(
            f"no scheduler answers at {address} within {timeout:g} s; start one with: dask scheduler"
        ) from None


def _check_address(address: str, security: Any, unencrypted: bool) -> None:
    protocol, separator, host = address.rpartition("://")
    if (separator and protocol not in ("tcp", "tls")) or not host.rpartition(":")[2].isdigit():
        raise ValueError(f"address {address!r} must be tcp://HOST:PORT on loopback, or tls://HOST:PORT")
    if protocol == "tls" and security is None:
        raise ValueError(f"address {address!r} needs security=distributed.Security(...) with its certificates")
    if protocol != "tls" and not LOOPBACK.fullmatch(host):
        raise ValueError(
            f"address {address!r} is neither on this machine's loopback nor encrypted: who reaches it runs code on its "
            "workers; use tls://HOST:PORT with security, or pass a distributed.Client of your own"
        )
    if protocol != "tls" and not unencrypted:
        raise ValueError(
            f"address {address!r} is open to every user of this machine; use tls://HOST:PORT with security or "
            "cluster.local, or pass unencrypted=True where there is no other user"
        )


def _farm(
    client: Any, work: Work, chunks: Sequence[Chunk], attempts: int, timeout: float
) -> Iterator[tuple[Chunk, Result]]:
    """Every chunk with its result, as they are done; sent again where the work itself was lost."""
    left, fruitless = list(chunks), 0
    address = client.scheduler.address
    expected = _machine() | {"devices": work.devices, "sources": _sources(work.run)}
    while left:
        if fruitless == attempts:
            raise RuntimeError(
                f"{len(left)} chunks were lost with the workers that held the work, {attempts} times in a row"
            )
        with _gone_in_words(address):
            try:
                client.wait_for_workers(1, timeout=timeout)
                [sent] = client.scatter([work], broadcast=True, hash=False, timeout=timeout)
            except TimeoutError:
                raise RuntimeError(
                    f"no worker joined the scheduler within {timeout:g} s; start one with: dask worker"
                ) from None
            submitted = client.map(functools.partial(_compute, expected=expected), [sent] * len(left), left, pure=False)
        waiting = dict(zip(submitted, left, strict=True))
        del submitted
        left, fruitless = [], fruitless + 1
        try:
            for future in _distributed().as_completed(list(waiting)):
                chunk = waiting.pop(future)
                try:
                    if future.status in ("cancelled", "lost"):
                        left.append(chunk)
                        continue
                    result = _result(future, address)
                except CancelledError:
                    left.append(chunk)
                    continue
                finally:
                    future.release()
                fruitless = 0
                yield chunk, result
        finally:
            with contextlib.suppress(OSError):  # a scheduler that is gone has forgotten them
                client.cancel([sent, *waiting])


@contextlib.contextmanager
def _gone_in_words(address: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise RuntimeError(f"the scheduler at {address} is gone; run again to go on from the last chunk") from None


def _result(future: Any, address: str) -> Result:
    """What a task gave, or its error; the end of its workers in one sentence."""
    # A lane may raise an OSError of its own, which passes as it is.
    with contextlib.nullcontext() if future.status == "error" else _gone_in_words(address):
        try:
            return future.result()
        except _distributed().KilledWorker as error:
            raise RuntimeError(
                f"a chunk ended every worker that it was sent to, the last at {error.last_worker.address}; if their "
                "memory ran out, pass a smaller width or memory_budget to sweep"
            ) from None


# What a study consists of

# Packages of which the code or the version is compared by itself.
_COMPARED = ("nnjax", "jax", "jaxlib", "numpy")
_MAIN = ("__main__", "__mp_main__")


def _sources(run: Any) -> dict[str, str]:
    """Digests of the modules that ``run`` needs and that every worker imports from files of its own, by name.

    These are the modules that it is pickled by, and those that they import, as far as they are neither installed nor
    of this package; of an installed study those of the same package.
    """
    kept = _home(run)
    left, found = sorted(_modules_by_name(run)), dict[str, str]()
    while left:
        name = left.pop()
        module = sys.modules.get(name)
        file = Path(getattr(module, "__file__", None) or "")
        if name in found or name in _MAIN or file.suffix != ".py" or not file.is_file():
            continue
        top = name.partition(".")[0]
        if top in _COMPARED or (_is_installed(file) and top != kept):
            continue
        found[name] = _digest(name) or ""
        left += _imported(name, file, found[name])
    return found


def _home(run: Any) -> str:
    """The top package of a run's own module."""
    while inner := getattr(run, "func", None) or getattr(run, "__func__", None) or getattr(run, "__wrapped__", None):
        run = inner
    return str(getattr(run, "__module__", "")).partition(".")[0]


def _modules_by_name(run: Any) -> set[str]:
    """Modules that a worker imports to have ``run``: those of all that it holds and that is sent by its name alone."""
    left, seen, names = [run], dict[int, Any](), set[str]()
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value  # kept, so that its number is given to no other
        if isinstance(value, ModuleType):
            names.add(value.__name__)
        elif not isinstance(value, type | FunctionType):
            left += [type(value), getattr(value, "__wrapped__", None), *gc.get_referents(value)]
        elif "<" not in value.__qualname__ and value.__module__ not in _MAIN:
            names.add(value.__module__)
        elif isinstance(value, FunctionType):  # Dask sends it as it is, with the globals that it uses
            used = {name for code in _codes(value.__code__) for name in code.co_names}
            left += [value.__globals__.get(name) for name in used]
            left += [value.__defaults__, value.__kwdefaults__, *(value.__closure__ or ())]
        else:
            left += [*value.__bases__, *vars(value).values()]
    return names


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_installed(file: Path) -> bool:
    places = {Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")}
    return bool({"site-packages", "dist-packages"} & {*file.parts}) or not places.isdisjoint(file.parents)


@functools.cache
def _imported(name: str, file: Path, digest: str) -> list[str]:
    """Names of what a module imports, anywhere in its text, and of the packages around; some may be no modules."""
    del digest  # other text, other names
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    names = {package}
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    split = [each.split(".") for each in sorted(names)]
    return [".".join(parts[:end]) for parts in split for end in range(1, len(parts) + 1)]


def _digest(name: str) -> str | None:
    """Digest of a module's file as it was when it was first asked for, None where there is no such module."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if module is None:
        with contextlib.suppress(ImportError, ValueError, AttributeError):
            spec = importlib.util.find_spec(name)
    file = getattr(module, "__file__", None) or getattr(spec, "origin", None)
    # A process goes on with what it has imported, whatever becomes of the file, unless it is imported anew.
    return _first_digest(file, id(spec) if module else 0) if file and Path(file).is_file() else None


@functools.cache
def _first_digest(file: str, loaded: int) -> str:
    del loaded
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


# In a worker


def _compute(work: Work, chunk: Chunk, *, expected: dict[str, Any]) -> Result:
    """One chunk, in a worker that fits."""
    with _ONE_AT_A_TIME:
        with contextlib.suppress(RuntimeError):  # JAX has started already, with what it has
            jax.config.update("jax_num_cpu_devices", expected["devices"])
        _check_worker(expected, _machine(), jax.device_count())
        _check_sources(expected["sources"])
        return work(chunk), work.seconds


@functools.cache
def _machine() -> dict[str, Any]:
    """What must be equal for numbers to be equal."""
    return {
        "code of nnjax": results.code_digest(),
        "version of jax": jax.__version__,
        "version of jaxlib": jaxlib.__version__,
        "version of NumPy": np.__version__,
        "device": jax.devices()[0].device_kind,
    }


def _check_worker(expected: dict[str, Any], found: dict[str, Any], devices: int) -> None:
    for name, value in found.items():
        if value != expected[name]:
            raise RuntimeError(
                f"a worker's {name} is {value} and that of the process that sweeps is {expected[name]}; use the same "
                "software and the same kind of machine for both"
            )
    if devices < expected["devices"]:
        raise RuntimeError(
            f"a worker has {devices} devices and the sweep is laid out for {expected['devices']}; start workers with "
            f"JAX_NUM_CPU_DEVICES={expected['devices']}, or sweep with fewer"
        )


def _check_sources(expected: dict[str, str]) -> None:
    for name, digest in expected.items():
        found = _digest(name)
        if found != digest:
            raise RuntimeError(
                f"a worker has {'another version of' if found else 'no'} module {name!r}, which the run needs; use the "
                "same files of the study everywhere and start the workers anew"
            )


# On one machine


@contextlib.contextmanager
def local(workers: int | None = None, *, cores_each: int | None = None) -> Iterator[Any]:
    """A Dask cluster on this machine's CPU cores; a context manager that gives its client.

    It listens on loopback alone, lets nobody in without a certificate that is made for it and kept in memory, and
    shows nothing by HTTP. Call it under ``if __name__ == "__main__"``, after `nnjax.sweep.use_all_cores` where that is
    used.

    Args:
      workers: number of processes; default one a core.
      cores_each: bind each of them to so many cores of its own, where the system can; for measuring. By default the
        system moves them about, which is better on a machine that does other work too.

    Raises:
      ModuleNotFoundError: dask.distributed or cryptography is not installed.
      ValueError: not positive, or bound to more cores than there are.
    """
    distributed = _distributed()
    number = cores() if workers is None else workers
    if number < 1 or (cores_each is not None and not 1 <= cores_each <= cores() // number):
        raise ValueError(f"workers={workers} with cores_each={cores_each} must be positive and fit on {cores()} cores")
    try:
        security = distributed.Security.temporary()
    except ImportError:
        raise ModuleNotFoundError(
            "cluster.local needs cryptography; install it with: pip install 'nnjax[cluster]'"
        ) from None
    environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(jax.local_device_count())}
    if cache := getattr(jax.config, "jax_compilation_cache_dir", None):
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    import dask

    routes: dict[str, list[str]] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
    with (
        dask.config.set(routes),
        distributed.LocalCluster(
            n_workers=number, threads_per_worker=1, processes=True, host="127.0.0.1", protocol="tls://",
            security=security, dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
            memory_limit=0, env=environment,
        ) as made,
        distributed.Client(made) as client,
    ):  # fmt: skip
        if cores_each:
            client.register_plugin(_bound_to_cores(cores_each))
        yield client


def _bound_to_cores(share: int) -> Any:
    """A plugin that binds worker i to the i-th ``share`` cores, before JAX counts them."""

    plugin: Any = _distributed().WorkerPlugin

    class Bound(plugin):
        name = "nnjax-cores"

        def setup(self, worker: Any) -> None:
            if not hasattr(os, "sched_setaffinity"):
                return
            every = sorted(os.sched_getaffinity(0))
            mine = [every[(int(worker.name) * share + i) % len(every)] for i in range(share)]
            os.sched_setaffinity(0, mine)

    return Bound()
