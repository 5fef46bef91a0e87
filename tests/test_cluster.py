"""Chunks on Dask workers: the numbers of one process bit for bit, also where a worker is killed half-way."""

import functools
import hashlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import cluster, results
from nnjax.monitor import Monitor
from nnjax.sweep import sweep

ROOT = Path(__file__).parent.parent
AXES = {"kind": ["tanh", "relu"], "a": [0.1, 0.2, 0.3], "seed": range(7)}
OPTIONS = {"static": ("kind",), "width": 2, "chunk_seconds": 1e-12}


def iterate(key, hparams, data, *, kind, steps=20):
    act = {"tanh": jnp.tanh, "relu": jax.nn.relu}[kind]
    x = jax.random.normal(key, (24, 24)) + data
    x, course = jax.lax.scan(lambda x, _: (act(x @ x.T / 24 + hparams["a"]), jnp.mean(x)), x, length=steps)
    return {"x": x[:3], "course": course[-5:], "largest": jnp.linalg.eigvalsh(x + x.T)[-1], "whole": jnp.argmax(x)}


def long_iterate(key, hparams, data, *, kind):
    return iterate(key, hparams, data, kind=kind, steps=3000)


def told_iterate(key, hparams, data, *, kind, folder):
    """One that leaves the number of every process that traced it."""
    (Path(folder) / str(os.getpid())).touch()
    return long_iterate(key, hparams, data, kind=kind)


def _in_worker():
    from distributed import get_worker

    try:
        return bool(get_worker())
    except ValueError:
        return False


def here_only(key, hparams, data):
    if "distributed" in sys.modules and _in_worker():
        raise TypeError("a mistake that shows in the worker alone")
    return {"x": hparams["a"]}


def _sweep(run=iterate, **options):
    return sweep(run, AXES, key=jax.random.key(0), data=np.float32(1.0), **OPTIONS, **options)


def _equal(one, other):
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        assert one[name].dtype == other[name].dtype
        assert one[name].values.tobytes() == other[name].values.tobytes(), name


# Without a cluster


def test_a_missing_extra_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    for call in (lambda: cluster.dask_executor("tls://127.0.0.1:1"), lambda: cluster.local(1).__enter__()):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'nnjax\[cluster\]'$"):
            call()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tcp://10.0.0.1:8786", "neither on this machine's loopback nor encrypted"),
        ("tcp://127.evil.example.com:8786", "neither on this machine's loopback nor encrypted"),
        ("10.0.0.1:8786", "neither on this machine's loopback nor encrypted"),
        ("tcp://localhost.example.com:8786", "neither on this machine's loopback nor encrypted"),
        ("tls://10.0.0.1:8786", "needs security="),
        ("ws://127.0.0.1:8786", "must be tcp://HOST:PORT"),
        ("127.0.0.1", "must be tcp://HOST:PORT"),
        ("tcp://127.0.0.1:x", "must be tcp://HOST:PORT"),
    ],
)
@pytest.mark.parametrize("unencrypted", [False, True])
def test_addresses_that_others_reach_are_refused(address, message, unencrypted):
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match=message):
        cluster.dask_executor(address, unencrypted=unencrypted)


@pytest.mark.parametrize("address", ["127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786"])
def test_an_address_that_other_users_of_the_machine_reach_is_taken_when_told_so(address):
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match="is open to every user of this machine; use tls"):
        cluster.dask_executor(address)
    assert callable(cluster.dask_executor(address, unencrypted=True))


def test_bad_arguments_are_named():
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match="target int must be a"):
        cluster.dask_executor(8786)
    with pytest.raises(ValueError, match="attempts=0 must be at least 1"):
        cluster.dask_executor("127.0.0.1:8786", attempts=0)
    for arguments in (
        {"workers": 0},
        {"workers": 1, "cores_each": -1},
        {"workers": 2, "cores_each": 10**6},
        {"cores_each": 0},
    ):
        with pytest.raises(ValueError, match="must be positive and fit on"), cluster.local(**arguments):
            pass


def test_a_worker_that_would_give_other_numbers_is_refused():
    here = cluster._machine()
    expected = here | {"devices": 2}
    cluster._check_worker(expected, here, 2)
    cluster._check_worker(expected, here, 4)  # it uses two of them
    for name in here:
        with pytest.raises(RuntimeError, match=f"a worker's {name} is other and that of the process"):
            cluster._check_worker(expected, here | {name: "other"}, 2)
    with pytest.raises(RuntimeError, match=r"has 1 devices and the sweep is laid out for 2; start .*_DEVICES=2"):
        cluster._check_worker(expected, here, 1)


def test_versions_of_what_computes_are_compared():
    assert cluster._machine()["version of NumPy"] == np.__version__
    assert cluster._machine()["version of jaxlib"]


STUDY = {
    "own_study.py": "import numpy as np\nfrom own_parts import inner\n\n\ndef run(key, hparams, data):\n"
    "    from own_late import FACTOR\n    return {'x': inner.scaled(hparams['a']) * FACTOR * np.float32(1)}\n",
    "own_late.py": "FACTOR = 1\n",
    "own_parts/__init__.py": "",
    "own_parts/inner.py": "from .deep import FACTOR\n\n\ndef scaled(x):\n    return x * FACTOR\n",
    "own_parts/deep.py": "FACTOR = 1\n",
    "own_unneeded.py": "raise SystemExit('nobody needs this')\n",
}
NEEDED = {"own_study", "own_late", "own_parts", "own_parts.inner", "own_parts.deep"}


def _study(folder, **changed):
    for name, text in STUDY.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(changed.get(Path(name).stem, text))
    return folder


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study with modules beside it, imported and traced."""
    monkeypatch.syspath_prepend(_study(tmp_path / "here"))
    module = __import__("own_study")
    module.run(None, {"a": 1.0}, None)
    yield module
    for name in NEEDED:
        sys.modules.pop(name, None)


def test_the_files_that_a_run_needs_are_found_whatever_is_wrapped_round_it(study):
    def by_value(key, hparams, data):
        return study.run(key, hparams, data)

    for run in (study.run, functools.partial(study.run, data=None), jax.jit(study.run)):
        assert set(cluster._sources(run)) == NEEDED
    # A function within another travels as it is, and what it closes over or names by name.
    assert set(cluster._sources(by_value)) == set(cluster._sources(lambda: lambda: by_value)) == NEEDED
    assert __name__ in cluster._sources(iterate)
    assert __name__ in cluster._sources(lambda: iterate)
    assert set(cluster._sources(jnp.sum)) == set()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "fine"),
        ({"own_unneeded": "x = 1"}, "fine"),
        ({"own_late": "FACTOR = 2\n"}, "a worker has another version of module 'own_late', which the run needs; use"),
        ({"deep": "FACTOR = 2\n"}, "a worker has another version of module 'own_parts.deep'"),
        (None, "a worker has no module 'own_"),
    ],
)
def test_a_worker_with_another_version_of_the_study_is_refused(study, tmp_path, changed, message):
    there = tmp_path if changed is None else _study(tmp_path / "there", **changed)
    code = f"""
        from nnjax import cluster
        try:
            cluster._check_sources({cluster._sources(study.run)})
            print("fine")
        except RuntimeError as error:
            print(error)
    """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=120,
        cwd=there, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout  # fmt: skip
    assert said.startswith(message)
    assert len(said.splitlines()) == 1


def test_a_worker_that_imported_a_file_before_it_was_changed_has_the_old_version(study, tmp_path):
    old = cluster._sources(study.run)
    _study(tmp_path / "here", own_late="FACTOR = 2\n")
    cluster._check_sources(old)
    new = old | {"own_late": hashlib.sha256(b"FACTOR = 2\n").hexdigest()}  # of a process that starts now
    with pytest.raises(RuntimeError, match=r"another version of module 'own_late'.* start the workers anew"):
        cluster._check_sources(new)


class _Future:
    def __init__(self, result=None):
        self.status, self.result = ("finished", lambda: result) if result else ("lost", None)

    def release(self):
        pass


class _Client:
    """One that loses, at every round, all chunks but the first so many."""

    scheduler = types.SimpleNamespace(address="tls://there:1")

    def __init__(self, arrive, gone_at=99):
        self.arrive, self.rounds, self.gone_at = arrive, 0, gone_at

    def wait_for_workers(self, number, timeout):
        self.rounds += 1
        if self.rounds == self.gone_at:
            raise OSError("Timed out trying to connect to tls://there:1 after 15 s")

    def scatter(self, values, **_):
        return values

    def map(self, function, works, chunks, pure):
        return [_Future(({}, 1.0) if i < self.arrive else None) for i, _ in enumerate(chunks)]

    def cancel(self, futures):
        if self.rounds + 1 == self.gone_at:
            raise OSError("closed")


@pytest.fixture
def fake(monkeypatch):
    """What stands for Dask beside a `_Client`."""
    monkeypatch.setattr(cluster, "_sources", lambda run: {})
    killed = type("KilledWorker", (Exception,), {})
    monkeypatch.setattr(cluster, "_distributed", lambda: types.SimpleNamespace(as_completed=iter, KilledWorker=killed))
    return types.SimpleNamespace(run=None, devices=1)


def test_attempts_count_rounds_in_which_nothing_arrived(fake):
    slow = _Client(arrive=1)
    assert len(list(cluster._farm(slow, fake, range(5), attempts=2, timeout=1.0))) == 5
    assert slow.rounds == 5
    stuck = _Client(arrive=0)
    with pytest.raises(RuntimeError, match="5 chunks were lost with the workers that held the work, 2 times in a row"):
        list(cluster._farm(stuck, fake, range(5), attempts=2, timeout=1.0))
    assert stuck.rounds == 2


def test_a_scheduler_that_goes_is_one_sentence(fake):
    with pytest.raises(
        RuntimeError, match=r"^the scheduler at tls://there:1 is gone; run again to go on from the last"
    ):
        list(cluster._farm(_Client(arrive=1, gone_at=3), fake, range(5), attempts=2, timeout=1.0))


def test_an_error_of_a_lane_is_none_of_the_scheduler(fake):
    future = _Future()
    future.result = lambda: (_ for _ in ()).throw(FileNotFoundError("the lane's own"))
    future.status = "error"
    with pytest.raises(FileNotFoundError, match="the lane's own"):
        cluster._result(future, "tls://there:1")
    future.status = "finished"  # its result cannot be fetched
    with pytest.raises(RuntimeError, match="is gone"):
        cluster._result(future, "tls://there:1")


def test_no_scheduler_is_one_sentence():
    pytest.importorskip("distributed")
    address = f"tcp://127.0.0.1:{_free_port()}"
    execute = cluster.dask_executor(address, timeout=0.5, unencrypted=True)
    with pytest.raises(RuntimeError, match=rf"no scheduler answers at {address} within 0\.5 s; start one with: dask s"):
        _sweep(executor=execute)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Workers in this process


@pytest.fixture(scope="module")
def inside():
    """A client of a Dask cluster whose two workers are threads of this process."""
    distributed = pytest.importorskip("distributed")
    with _threads(distributed, 2) as made, distributed.Client(made) as client:
        yield client


def _threads(distributed, workers):
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=2, processes=False, host="127.0.0.1", protocol="tcp://",
        dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
    )  # fmt: skip


def test_chunks_come_back_labelled_stored_and_timed(inside, tmp_path):
    serial, far, again = Monitor(), Monitor(), Monitor()
    near = _sweep(monitor=serial)
    with results.Folder(tmp_path, {"test": "cluster"}) as folder:
        found = _sweep(executor=cluster.dask_executor(inside), store=folder.store("s"), monitor=far)
        _sweep(executor=cluster.dask_executor(inside), store=folder.store("s"), monitor=again)
    _equal(near, found)
    assert far.counts["chunks"] == serial.counts["chunks"] > 8
    assert far.seconds["run"] > 0
    assert (again.counts["chunks"], again.counts["resumed"]) == (0, far.counts["chunks"])
    assert not inside.futures  # nothing is left on the cluster


def test_what_a_lane_raises_in_a_worker_is_raised_here(inside):
    with pytest.raises(TypeError, match="a mistake that shows in the worker alone"):
        sweep(here_only, {"a": [1.0]}, key=jax.random.key(0), executor=cluster.dask_executor(inside))
    assert not inside.futures


def test_no_worker_is_one_sentence():
    distributed = pytest.importorskip("distributed")
    with (
        _threads(distributed, 0) as made,
        distributed.Client(made) as client,
        pytest.raises(RuntimeError, match=r"no worker joined the scheduler within 0\.2 s"),
    ):
        _sweep(executor=cluster.dask_executor(client, timeout=0.2))


# Workers in processes of their own


class _Killer(Monitor):
    """Kills a worker once some chunks are done."""

    def __init__(self, client, chunks=3):
        super().__init__()
        self._client, self._chunks = client, chunks
        self.workers = client.run(os.getpid)
        self.victim = next(iter(self.workers.values()))

    def count(self, kind, number=1):
        super().count(kind, number)
        if kind == "chunks" and self.counts[kind] == self._chunks:
            os.kill(self.victim, signal.SIGKILL)


@pytest.mark.slow
def test_two_workers_give_the_numbers_of_one_process_and_so_they_do_when_one_is_killed(tmp_path):
    pytest.importorskip("distributed")
    pytest.importorskip("cryptography")
    serial = Monitor()
    near = _sweep(long_iterate, monitor=serial)
    with cluster.local(2) as client:
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        monitor = Monitor()
        told = functools.partial(told_iterate, folder=str(tmp_path))
        _equal(near, _sweep(told, executor=cluster.dask_executor(client), monitor=monitor))
        assert monitor.counts["chunks"] == serial.counts["chunks"]
        computed = {int(path.name) for path in tmp_path.iterdir()} - {os.getpid()}
        assert computed == set(client.run(os.getpid).values()), "one of the two did nothing"
        killer = _Killer(client)
        _equal(near, _sweep(long_iterate, executor=cluster.dask_executor(client), monitor=killer))
        assert killer.counts["chunks"] == serial.counts["chunks"]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and killer.victim in (after := client.run(os.getpid)).values():
            time.sleep(0.1)
        assert killer.victim not in after.values()
        double = _sweep(float64=True)
        far = _sweep(float64=True, executor=cluster.dask_executor(client))
        assert double["x"].dtype == np.float64
        _equal(double, far)


@pytest.mark.slow
def test_work_lost_with_its_only_worker_is_sent_again():
    pytest.importorskip("distributed")
    pytest.importorskip("cryptography")
    near = _sweep(long_iterate)
    with cluster.local(1) as client:
        _equal(near, _sweep(long_iterate, executor=cluster.dask_executor(client), monitor=_Killer(client)))


REAL = """
    import subprocess, sys, threading
    import jax
    from nnjax import cluster
    from nnjax.monitor import Monitor
    from nnjax.sweep import sweep
    import own_study

    class Killer(Monitor):
        def count(self, kind, number=1):
            super().count(kind, number)
            if kind == "chunks" and self.counts[kind] == 3:
                scheduler.kill()
                scheduler.wait()

    if __name__ == "__main__":
        port, there, kill = sys.argv[1:]
        start = lambda *words, **kw: subprocess.Popen([sys.executable, "-m", *words, "--no-dashboard"], **kw)
        scheduler = start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port)
        address = f"tcp://127.0.0.1:{port}"
        worker = start("distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", address, cwd=there)
        try:
            executor = cluster.dask_executor(address, unencrypted=True, timeout=30)
            found = sweep(own_study.run, {"a": [1.0, 2.0], "seed": range(20)}, key=jax.random.key(0), width=1,
                          chunk_seconds=1e-12, executor=executor, monitor=Killer() if kill == "yes" else None)
            print("SAID", found.x.values[:, 0].tolist())
        except RuntimeError as error:
            print("SAID", error)
        finally:
            worker.kill()
            scheduler.kill()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "kill", "expected"),
    [
        ({}, "no", "[1.0, 2.0]"),
        (
            {"deep": "FACTOR = 2\n"},
            "no",
            "a worker has another version of module 'own_parts.deep', which the run needs",
        ),
        ({}, "yes", "the scheduler at tcp://127.0.0.1:"),
    ],
)
def test_real_workers_with_files_of_their_own(tmp_path, changed, kill, expected):
    pytest.importorskip("distributed")
    here, there = _study(tmp_path / "here"), _study(tmp_path / "there", **changed)
    (here / "script.py").write_text(textwrap.dedent(REAL))
    done = subprocess.run(
        [sys.executable, str(here / "script.py"), str(_free_port()), str(there), kill], capture_output=True, text=True,
        timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"},
    )  # fmt: skip
    said = [line.removeprefix("SAID ") for line in done.stdout.splitlines() if line.startswith("SAID ")]
    assert len(said) == 1, done.stderr
    assert said[0].startswith(expected)
    if kill == "yes":
        assert said[0].endswith("is gone; run again to go on from the last chunk")
