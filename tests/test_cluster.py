"""Chunks on Dask workers: the numbers of one process bit for bit, also where a worker is killed half-way."""

import os
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import cluster, results
from nnjax.monitor import Monitor
from nnjax.sweep import sweep

AXES = {"kind": ["tanh", "relu"], "a": [0.1, 0.2, 0.3], "seed": range(7)}
OPTIONS = {"static": ("kind",), "width": 2, "chunk_seconds": 1e-12}


def iterate(key, hparams, data, *, kind, steps=20):
    act = {"tanh": jnp.tanh, "relu": jax.nn.relu}[kind]
    x = jax.random.normal(key, (24, 24)) + data
    x, course = jax.lax.scan(lambda x, _: (act(x @ x.T / 24 + hparams["a"]), jnp.mean(x)), x, length=steps)
    return {"x": x[:3], "course": course[-5:], "largest": jnp.linalg.eigvalsh(x + x.T)[-1], "whole": jnp.argmax(x)}


def long_iterate(key, hparams, data, *, kind):
    return iterate(key, hparams, data, kind=kind, steps=3000)


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
    for call in (lambda: cluster.dask_executor("tcp://127.0.0.1:1"), lambda: cluster.local(1).__enter__()):
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
def test_addresses_that_others_reach_are_refused(address, message):
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match=message):
        cluster.dask_executor(address)


def test_bad_arguments_are_named():
    pytest.importorskip("distributed")
    for address in ("127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786"):
        assert callable(cluster.dask_executor(address))
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
def test_two_workers_give_the_numbers_of_one_process_and_so_they_do_when_one_is_killed():
    pytest.importorskip("distributed")
    pytest.importorskip("cryptography")
    serial = Monitor()
    near = _sweep(long_iterate, monitor=serial)
    with cluster.local(2) as client:
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        monitor = Monitor()
        _equal(near, _sweep(long_iterate, executor=cluster.dask_executor(client), monitor=monitor))
        assert monitor.counts["chunks"] == serial.counts["chunks"]
        computed = client.run(_programs)
        assert all(number >= 1 for number in computed.values()), "one of the two did nothing"
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


def _programs():
    import jax

    return jax.device_count()


@pytest.mark.slow
def test_work_lost_with_its_only_worker_is_sent_again():
    pytest.importorskip("distributed")
    pytest.importorskip("cryptography")
    near = _sweep(long_iterate)
    with cluster.local(1) as client:
        _equal(near, _sweep(long_iterate, executor=cluster.dask_executor(client), monitor=_Killer(client)))
