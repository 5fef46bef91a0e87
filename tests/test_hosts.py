"""Several hosts: what they tell each other, and real processes that compute one sweep bit for bit as one does."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import hosts
from nnjax.sweep import sweep

ROOT = Path(__file__).parent.parent


# Connecting


def test_a_place_is_parsed_and_other_texts_are_named():
    assert hosts.parse("10.0.0.1:9911,1/4") == ("10.0.0.1:9911", 4, 1)
    assert hosts.parse("[::1]:9911,0/2") == ("[::1]:9911", 2, 0)
    assert hosts.parse("auto") == (None, None, None)
    for text in ("", "host:1", "host:1,1", "host:1,a/2", "host:1,1/2/3", "host:1,-1/2"):
        with pytest.raises(ValueError, match=r"must be auto or HOST:PORT,PROCESS/PROCESSES"):
            hosts.parse(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1",), "must all be given, or none"),
        (("host:1", 2), "process=None must all be given"),
        ((None, 2, 0), "coordinator=None"),
        (("host", 2, 0), "must be HOST:PORT"),
        (("host:0", 2, 0), "port from 1 to 65535"),
        (("host:65536", 2, 0), "port from 1 to 65535"),
        (("http://host:80", 2, 0), "must be HOST:PORT"),
        (("host:1", 2, 2), "process=2 must be from 0"),
        (("host:1", 2, -1), "process=-1 must be from 0"),
        (("host:1", 0, 0), "processes=0 at least 1"),
    ],
)
def test_bad_places_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        hosts.connect(*arguments)


def test_times_are_positive_and_one_process_needs_no_other():
    with pytest.raises(ValueError, match="heartbeat=0 and timeout=300 must be at least 1 s"):
        hosts.connect("host:1", 2, 0, heartbeat=0)
    assert hosts.connect("host:1", 1, 0) == 0  # nothing listens there
    assert (hosts.index(), hosts.count(), hosts.sharing()) == (0, 1, 1)
    assert hosts.devices() == jax.devices()


def test_connect_after_the_start_or_without_a_cluster_is_named(monkeypatch):
    jax.devices()
    with pytest.raises(ValueError, match="before anything is computed"):
        hosts.connect("127.0.0.1:1", 2, 0)
    monkeypatch.setenv(hosts.VARIABLE, "nowhere")
    with pytest.raises(ValueError, match="hosts='nowhere' must be auto"):
        hosts.connect()
    found = _alone("""
        from nnjax import hosts
        try:
            hosts.connect()
        except ValueError as error:
            print(error)
    """)
    assert found.startswith("no cluster was found around this process")


def _alone(code, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "NNJAX", "KUBERNETES"))}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=120,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
    ).stdout  # fmt: skip


# What they tell each other: three threads that stand for processes


class _Threads:
    """`hosts.exchange` among threads; each has its own number."""

    def __init__(self, count, monkeypatch):
        self.number = threading.local()
        self._count, self._said, self._barrier = count, [b""] * count, threading.Barrier(count, timeout=20)
        monkeypatch.setattr(hosts, "count", lambda: count)
        monkeypatch.setattr(hosts, "index", lambda: self.number.value)
        monkeypatch.setattr(hosts, "exchange", self.exchange)

    def exchange(self, payload):
        self._said[hosts.index()] = payload
        self._barrier.wait()
        answers = list(self._said)
        self._barrier.wait()
        return answers

    def run(self, function):
        """What ``function()`` returns or raises on every process."""
        outcomes = [None] * self._count

        def one(number):
            self.number.value = number
            try:
                outcomes[number] = function()
            except Exception as error:
                outcomes[number] = error

        threads = [threading.Thread(target=one, args=(number,)) for number in range(self._count)]
        [thread.start() for thread in threads]
        [thread.join(30) for thread in threads]
        return outcomes


@pytest.fixture
def three(monkeypatch):
    """Three processes that are threads."""
    return _Threads(3, monkeypatch)


def test_all_get_the_least_the_most_and_what_the_first_has(three):
    assert three.run(lambda: hosts.least(lambda: 10 - hosts.index())) == [8] * 3
    assert three.run(lambda: hosts.most(lambda: 10 - hosts.index())) == [10] * 3
    assert three.run(hosts.sharing) == [3] * 3
    asked = []

    def compute():
        asked.append(hosts.index())
        return {"x": np.arange(3.0), "words": np.array(["a", "bc"])}

    for found in three.run(lambda: hosts.first(compute)):
        np.testing.assert_array_equal(found["x"], np.arange(3.0))
        assert found["words"].tolist() == ["a", "bc"]
    assert asked == [0]
    assert three.run(lambda: hosts.first(lambda: None)) == [None] * 3


def test_rows_stand_in_the_order_of_the_processes(three):
    for found in three.run(lambda: hosts.rows(lambda: {"x": np.full((2, 2), hosts.index())})):
        np.testing.assert_array_equal(found["x"][:, 1], [0, 0, 1, 1, 2, 2])


def test_an_error_on_one_stops_all(three):
    def compute():
        if hosts.index() == 1:
            raise MemoryError("too wide")
        return b"fine"

    first, second, third = three.run(lambda: hosts.together(compute))
    assert isinstance(second, MemoryError)
    for other in (first, third):
        assert isinstance(other, hosts.HostError)
        assert str(other) == "process 1 stopped with MemoryError: too wide"


def test_an_error_is_told_once_also_from_within(three):
    def compute(where):
        def inner():
            if hosts.index() == 1 and where == "inner":
                raise MemoryError("too wide")
            return b""

        if hosts.index() == 1 and where == "outer":
            raise KeyError("lost")
        hosts.together(inner)
        return b""

    for where, text in (("inner", "MemoryError: too wide"), ("outer", "KeyError: 'lost'")):
        outcomes = three.run(lambda where=where: hosts.together(lambda: compute(where)))
        assert [type(outcome) is hosts.HostError for outcome in outcomes] == [True, False, True]
        assert {str(outcomes[0]), str(outcomes[2])} == {f"process 1 stopped with {text}"}
        assert outcomes[1].__notes__ == ["The other processes stop too."]
    assert three.run(lambda: hosts.together(lambda: b"then")) == [[b"then"] * 3] * 3  # nobody lags behind


def test_processes_with_different_sweeps_stop(three):
    for outcome in three.run(lambda: hosts.same("a" if hosts.index() < 2 else "b", "sweep 'x'")):
        assert isinstance(outcome, hosts.HostError)
        assert "sweep 'x' differs between process 0 and process 2; start the same script" in str(outcome)
    assert three.run(lambda: hosts.same("a", "sweep 'x'")) == [None] * 3


def test_an_executor_beside_hosts_is_refused(monkeypatch):
    monkeypatch.setattr(hosts, "count", lambda: 2)
    with pytest.raises(ValueError, match="executor must be left out where several hosts are connected"):
        sweep(lambda k, h, d: {"x": h["a"]}, {"a": [1.0]}, key=jax.random.key(0), executor=lambda work, chunks: [])


def test_processes_with_different_devices_are_told_what_to_set(monkeypatch):
    monkeypatch.setattr(hosts, "count", lambda: 2)
    fake = [type("Device", (), {"process_index": p, "id": i}) for i, p in enumerate((0, 0, 0, 1, 1))]
    monkeypatch.setattr(jax, "devices", lambda: fake)
    with pytest.raises(ValueError, match=r"different numbers of devices \(3, 2\); set jax_num_cpu_devices=2"):
        hosts._check_devices()


@pytest.fixture
def three_gathering(monkeypatch):
    """Three processes that are threads, down to what JAX gathers."""
    exchange = hosts.exchange
    threads = _Threads(3, monkeypatch)
    monkeypatch.setattr(hosts, "exchange", exchange)

    def gather(array):
        return np.stack(threads.exchange(array))

    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", gather)
    monkeypatch.setattr(hosts, "_END", hosts._End())
    return threads


@pytest.mark.parametrize("piece", [2**30, 8, 3])
def test_payloads_of_any_length_are_exchanged_in_pieces(three_gathering, monkeypatch, piece):
    monkeypatch.setattr(hosts, "_PIECE", piece)
    said = [b"", b"twelve bytes", b"five."]
    assert three_gathering.run(lambda: hosts.exchange(said[hosts.index()])) == [said] * 3
    assert three_gathering.run(lambda: hosts.exchange(b"")) == [[b""] * 3] * 3


@pytest.mark.parametrize("length", [0, 1, 2**32 - 1, 2**32, 5 * 2**32 + 7])
def test_lengths_beyond_32_bits_are_told(length):
    halves = np.array(hosts._halves(length), np.uint32)
    assert hosts._whole(*halves.tolist()) == length


@pytest.mark.parametrize(
    ("own", "heard"), [("KeyError: 'x'", "process 1 stopped with KeyError: 'x'"), ("", "process 1 ended before")]
)
def test_an_end_is_heard_by_all_in_their_next_exchange(three_gathering, monkeypatch, own, heard):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    local = threading.local()

    class End:
        """What each of the threads knows."""

        def __getattr__(self, name):
            return local.__dict__.get(name, own if name == "own" else "")

        def __setattr__(self, name, value):
            local.__dict__[name] = value

    monkeypatch.setattr(hosts, "_END", End())

    def work():
        if hosts.index() == 1:
            return hosts._part()
        for _ in range(2):  # the second without waiting for anybody
            with pytest.raises(hosts.HostError, match=heard):
                hosts.together(lambda: b"")
        hosts._part()  # and without waiting here
        return "heard"

    assert three_gathering.run(work) == ["heard", None, "heard"]


def test_an_error_is_kept_for_the_others_and_an_interruption_ends_at_once(monkeypatch):
    left, shown = [], []
    monkeypatch.setattr(hosts, "_END", hosts._End())
    monkeypatch.setattr(hosts, "leave", lambda code=1: left.append(code))
    monkeypatch.setattr("atexit.register", lambda function: None)
    monkeypatch.setattr(sys, "excepthook", lambda *found: shown.append(found[0]))
    hosts._part_in_words(1)
    sys.excepthook(KeyError, KeyError("x"), None)
    assert hosts._END.own == "KeyError: 'x'"
    time.sleep(2)
    assert left == [1]  # the others did not hear of it in time
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert left[1] == 130
    assert shown == [KeyError, KeyboardInterrupt]


def test_alone_nothing_is_exchanged():
    assert hosts.exchange(b"x") == [b"x"]
    assert hosts.together(lambda: b"y") == [b"y"]
    assert hosts.first(lambda: {"x": np.ones(2)})["x"].tolist() == [1, 1]
    with pytest.raises(MemoryError):
        hosts.together(lambda: (_ for _ in ()).throw(MemoryError()))


def test_arrays_keep_their_types():
    arrays = {
        "double": np.array([1.0, np.nan]),
        "flag": np.array(True),
        "brain": np.asarray(jnp.array([1.5, -2.0], jnp.bfloat16)),
        "none": np.zeros((0, 3), np.int8),
        "word": np.array(["é"]),
    }
    found = hosts.unpack(hosts.pack(arrays))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
    assert hosts.unpack(hosts.pack({})) == {}
    with pytest.raises(ValueError, match="allow_pickle"):
        hosts.pack({"object": np.array([{}])})


# Real processes

SCRIPT = """
    import faulthandler, hashlib, json, os, pathlib, sys, time
    faulthandler.dump_traceback_later(150, exit=True)  # who hangs before it has met the others says where
    import jax
    import jax.numpy as jnp
    from nnjax import hosts, results
    from nnjax.monitor import Monitor
    from nnjax.sweep import plan, sweep

    def run(key, hparams, data, *, kind):
        act = {"tanh": jnp.tanh, "relu": jax.nn.relu}[kind]
        x = jax.random.normal(key, (24, 24)) + data
        step = lambda x, _: (act(x @ x.T / 24 + hparams["a"]), jnp.mean(x))
        x, course = jax.lax.scan(step, x, length=STEPS)
        return {"x": x[:3], "course": course[-5:], "largest": jnp.linalg.eigvalsh(x + x.T)[-1], "whole": jnp.argmax(x)}

    if __name__ == "__main__":
        out, devices, place, mode = sys.argv[1:]
        jax.config.update("jax_num_cpu_devices", int(devices))
        if place != "alone":
            hosts.connect(*hosts.parse(place), heartbeat=20, timeout=300)
            pathlib.Path(f"met{place.partition(':')[2].replace('/', '-')}").touch()
        faulthandler.cancel_dump_traceback_later()
        monitor = Monitor()
        axes = {"kind": ["tanh", "relu"], "a": [0.1, 0.2, 0.3], "seed": range(7)}
        data = jnp.ones(24) * (1 + (mode == "other" and hosts.index() == 1))
        class Full:
            def load(self, identity): return None
            def save(self, identity, arrays, facts): raise OSError(28, "No space left on device")
        def compute(store):
            options = dict(key=jax.random.key(0), data=data, static=("kind",), width=2, float64=mode == "double",
                           chunk_seconds=1e-12, store=store, monitor=monitor)
            found = sweep(run, axes, **options)
            sha = hashlib.sha256(b"".join(found[name].values.tobytes() for name in sorted(found.data_vars)))
            print("RESULT", json.dumps([hosts.index(), hosts.count(), len(hosts.devices()), sha.hexdigest(),
                  monitor.counts["chunks"], monitor.counts["resumed"], str(found.x.dtype)]), flush=True)
        if hosts.index() > 0:
            compute(None)
        elif mode == "exit":
            sys.exit(3)
        elif mode == "full":
            compute(Full())
        else:
            with results.Folder(out, {"test": "hosts"}) as folder:
                compute(folder.store("s"))
"""


def _start(tmp_path, out, devices, place, mode="plain", steps=20):
    script = tmp_path / f"script{steps}.py"
    script.write_text(textwrap.dedent(SCRIPT).replace("STEPS", str(steps)))
    return subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / out), str(devices), place, mode], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
    )  # fmt: skip


SMALL = [
    "--iris-seeds=2", "--iris-epochs=5", "--arrays-seeds=2", "--arrays-steps=5", "--negation-seeds=2",
    "--negation-epochs=2", "--xor-seeds=2", "--xor-epochs=10", "--walk-seeds=2", "--walk-days=40", "--prices-steps=5",
    "--sentiment-seeds=2",
]  # fmt: skip


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _together(tmp_path, out, processes, devices, mode="plain", steps=20):
    """Processes that have met.

    A port that was free may be taken a moment later, by anyone on this machine. Whoever does not meet is started
    again, as a user would do; the third time all that they said is the failure.
    """
    said = []
    for _ in range(3):
        port = _free_port()
        places = [f"127.0.0.1:{port},{number}/{processes}" for number in range(processes)]
        started = [_start(tmp_path, out, devices, place, mode, steps) for place in places]
        marks = [tmp_path / f"met{port},{number}-{processes}" for number in range(processes)]
        ended = False
        while not ended and not all(mark.exists() for mark in marks):
            time.sleep(0.01)
            ended = any(
                process.poll() is not None and not mark.exists()  # by itself, or by its own time limit
                for process, mark in zip(started, marks, strict=True)
            )
        if not ended:
            return started
        for process in started:
            process.kill()
            said += [*process.communicate(), f"exit code {process.returncode}"]
    raise AssertionError("the processes did not meet in three attempts:\n" + "\n".join(said))


def _finish(process, code=0):
    said, complained = process.communicate(timeout=400)
    assert process.returncode == code, complained
    found = [json.loads(line.removeprefix("RESULT ")) for line in said.splitlines() if line.startswith("RESULT")]
    return (found[0] if found else None), complained


def _chunks(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "chunks/s").glob("*.npz")}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["plain", "double"])
def test_two_processes_of_two_devices_equal_one_of_four_bit_for_bit(tmp_path, mode):
    one, _ = _finish(_start(tmp_path, "one", 4, "alone", mode))
    pair = [_finish(process)[0] for process in _together(tmp_path, "two", 2, 2, mode)]
    assert one[:3] == [0, 1, 4]
    assert [found[:3] for found in pair] == [[0, 2, 4], [1, 2, 4]]
    assert pair[0][3:] == pair[1][3:] == one[3:]
    assert one[6] == ("float64" if mode == "double" else "float32")
    assert _chunks(tmp_path / "one") == _chunks(tmp_path / "two")  # the same names, the same content
    assert len(_chunks(tmp_path / "one")) == one[4] > 4
    # And so either goes on from the other's chunks.
    again = [_finish(process)[0] for process in _together(tmp_path, "one", 2, 2, mode)]
    assert [found[3:6] for found in again] == [[one[3], 0, one[4]]] * 2


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_both_go_on_from_the_last_chunk(tmp_path):
    whole = [_finish(process)[0] for process in _together(tmp_path, "whole", 2, 1, steps=20_000)]
    first, second = _together(tmp_path, "killed", 2, 1, steps=20_000)
    stored = tmp_path / "killed/chunks/s"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and len(list(stored.glob("*.npz"))) < 2:
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    said, complained = first.communicate(timeout=120)
    assert time.monotonic() - killed < 60  # the heartbeat, and what a busy machine needs beside
    assert "RESULT" not in said
    assert first.returncode == 1, complained
    assert "HostError: process 0 lost the others" in complained
    second.communicate()
    left = len(_chunks(tmp_path / "killed"))
    assert 2 <= left < whole[0][4], "the kill must fall in mid-sweep for this test to say anything"
    again = [_finish(process)[0] for process in _together(tmp_path, "killed", 2, 1, steps=20_000)]
    assert again[0][3] == again[1][3] == whole[0][3]
    assert again[0][5] >= left - 1  # a chunk written but not yet entered is computed again
    assert sum(again[0][4:6]) == whole[0][4]


@pytest.mark.slow
def test_a_full_disk_and_other_data_stop_both(tmp_path):
    first, second = _together(tmp_path, "full", 2, 1, "full")
    assert "No space left on device" in _finish(first, 1)[1]
    assert "HostError: process 0 stopped with OSError: [Errno 28] No space left on device" in _finish(second, 1)[1]
    for process in _together(tmp_path, "other", 2, 1, "other"):
        assert "sweep 'sweep' differs between process 0 and process 1" in _finish(process, 1)[1]


@pytest.mark.slow
def test_a_killed_first_process_ends_the_other_and_both_go_on_from_the_last_chunk(tmp_path):
    whole = [_finish(process)[0] for process in _together(tmp_path, "whole", 2, 1, steps=20_000)]
    first, second = _together(tmp_path, "killed", 2, 1, steps=20_000)
    stored = tmp_path / "killed/chunks/s"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and len(list(stored.glob("*.npz"))) < 2:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    said, complained = second.communicate(timeout=120)
    assert time.monotonic() - killed < 60
    assert _said(said) == []
    assert second.returncode != 0, complained  # JAX aborts it, or its exchange was first to notice
    first.communicate()
    left = len(_chunks(tmp_path / "killed"))
    assert 2 <= left < whole[0][4], "the kill must fall in mid-sweep for this test to say anything"
    again = [_finish(process)[0] for process in _together(tmp_path, "killed", 2, 1, steps=20_000)]
    assert again[0][3] == again[1][3] == whole[0][3]
    assert again[0][5] >= left - 1
    assert sum(again[0][4:6]) == whole[0][4]


@pytest.mark.slow
def test_who_ends_before_the_others_tells_them(tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/file").touch()
    start = time.monotonic()
    for out, mode, code, fault, heard in (
        ("foreign", "plain", 1, "ResultsError", "HostError: process 0 stopped with ResultsError: "),
        ("left", "exit", 3, "", "HostError: process 0 ended before this one"),
    ):
        first, second = _together(tmp_path, out, 2, 1, mode)
        complaints = [_finish(first, code)[1], _finish(second, 1)[1]]
        assert fault in complaints[0]
        assert heard in complaints[1].splitlines()[-1]
        assert not any(mark in said for said in complaints for mark in ("Check failure", "stack trace", "*** "))
    assert time.monotonic() - start < 200  # far below the time that JAX waits at an end


# A study


def _study(out, cpus, *options):
    """A tiny study, bound to some cores: each is a device."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.first_programs", "--out", str(out), *SMALL, *options], text=True, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        env={**os.environ, "XDG_CACHE_HOME": str(out.parent / "cache")},
    )  # fmt: skip


def _ends(process, code):
    said, complained = process.communicate(timeout=400)
    assert process.returncode == code, complained
    return said, complained


def _said(output):
    """Lines that a process printed, but for the library's that tells of its connections."""
    return [line for line in output.splitlines() if not line.startswith("[Gloo] Rank")]


@pytest.mark.slow
def test_a_study_on_two_hosts_makes_the_folder_of_one(tmp_path):
    cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        pytest.skip("needs two cores that processes can be bound to")
    port = _free_port()

    def pair(out, *options):
        return [_study(out, {core}, "--hosts", f"127.0.0.1:{port},{number}/2", *options)
                for number, core in enumerate(cores)]  # fmt: skip

    _ends(_study(tmp_path / "one", set(cores)), 0)
    first, second = pair(tmp_path / "two")
    assert "chunks computed" in _ends(first, 0)[0]
    assert _said(_ends(second, 0)[0]) == []  # it reports nothing
    one, two = (json.loads((tmp_path / name / "provenance.json").read_text()) for name in ("one", "two"))
    assert one["devices"] == two["devices"] == 2
    assert one["results"] == two["results"]
    # Either goes on from the other's folder: the same identity, chunks of the same names.
    assert "nothing was left to do" in _ends(_study(tmp_path / "two", set(cores)), 0)[0]
    first, second = pair(tmp_path / "one")
    assert "nothing was left to do" in _ends(first, 0)[0]
    _ends(second, 0)
    # What stops the first stops both, each with a sentence.
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/file").touch()
    first, second = pair(tmp_path / "foreign")
    assert "holds files of something else" in _ends(first, 2)[1]
    assert "process 0 stopped with ResultsError" in _ends(second, 2)[1]
    first, second = (
        _study(tmp_path / "odd", {core}, "--hosts", f"127.0.0.1:{port},{number}/2", "--seed", str(number))
        for number, core in enumerate(cores)
    )
    for process in (first, second):
        assert "the run differs between process 0 and process 1" in _ends(process, 2)[1]


def test_a_place_that_is_none_is_one_sentence(capsys):
    from experiments import first_programs, wann_search

    assert first_programs.main(["--hosts", "nowhere"]) == 2
    assert "hosts='nowhere' must be auto or HOST:PORT,PROCESS/PROCESSES" in capsys.readouterr().err
    assert wann_search.main(["--hosts", "127.0.0.1:1,0/2"]) == 2
    assert "this study runs on one host" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_process_alone_says_that_the_others_did_not_come(tmp_path, number):
    place = f"127.0.0.1:{_free_port()}"
    code = f"from nnjax import hosts; hosts.connect({place!r}, 2, {number}, timeout=2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"the processes did not meet at {place} within 2 s; start all of them again"
