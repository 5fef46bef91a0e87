"""Sweeps: right numbers in the right place, whatever the strategy, the chunks, the devices or the interruptions."""

import functools
import itertools
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax import chunks, estimate, losses, models, plans, results
from nnjax.monitor import Monitor, ProgressBar
from nnjax.sweep import STRATEGIES, Chunk, OutOfMemory, _layout, cores, not_finite, plan, serial, sweep, use_all_cores
from nnjax.train import Config, make_train

KEY = jax.random.key(7)


def polynomial(key, hparams, data, *, degree=1):
    """Two numbers that say which lane they belong to."""
    drawn = jax.random.normal(key)
    return {"value": hparams["a"] ** degree + 10 * hparams["b"], "drawn": drawn, "curve": data * hparams["a"]}


def padded_sum(key, hparams, data, *, width):
    alive = jnp.arange(width) < hparams["width"]
    return {"sum": jnp.sum(jnp.where(alive, data[:width], 0.0)) * hparams["a"]}


AXES = {"a": [1.0, 2.0, 3.0], "b": [0, 1], "seed": [3, 5]}
DATA = jnp.arange(4.0)


def _run(axes=AXES, run=polynomial, **options):
    return sweep(run, axes, key=KEY, data=DATA, dims={"curve": ("time",)}, coords={"time": [0, 1, 2, 3]}, **options)


def test_every_lane_is_where_its_coordinates_say():
    found = _run()
    assert dict(found.sizes) == {"a": 3, "b": 2, "seed": 2, "time": 4}
    assert found["curve"].dims == ("a", "b", "seed", "time")
    for a, b, seed in itertools.product(*AXES.values()):
        lane = found.sel(a=a, b=b, seed=seed)
        assert float(lane["value"]) == a + 10 * b
        np.testing.assert_array_equal(lane["curve"], np.arange(4.0) * a)
        assert float(lane["drawn"]) == float(jax.random.normal(jax.random.fold_in(KEY, seed)))
    assert not found["diverged"].any()


def test_the_seed_alone_selects_the_key_and_more_values_change_no_lane():
    few = _run({"a": [1.0], "b": [0], "seed": [0, 1]})
    many = _run({"a": [2.0, 1.0], "b": [0, 4], "seed": [4, 1, 0]})
    for seed in (0, 1):
        np.testing.assert_array_equal(few["drawn"].sel(seed=seed).values[0, 0], many["drawn"].sel(seed=seed).values)
    unseeded = _run({"a": [1.0, 2.0], "b": [0]})
    np.testing.assert_array_equal(unseeded["drawn"], float(jax.random.normal(KEY)))


def test_static_axes_are_compiled_one_by_one_and_labelled():
    monitor = Monitor()
    found = _run({"degree": [1, 3], **AXES}, static=("degree",), monitor=monitor)
    assert monitor.counts["programs"] == 2
    assert found["value"].dims == ("degree", "a", "b", "seed")
    assert float(found["value"].sel(degree=3, a=2.0, b=1, seed=5)) == 18.0

    def named(key, hparams, data, *, kind):
        return {"length": jnp.asarray(len(kind) + hparams["a"])}

    words = sweep(named, {"kind": ["relu", "fourier"], "a": [0.5]}, key=KEY, static=("kind",))
    assert words["length"].sel(kind="fourier").item() == 7.5


@pytest.mark.parametrize("width", [1, 2, 5, None])
def test_width_and_chunks_change_no_number(width):
    whole = _run()
    cut = _run(width=width, chunk_seconds=1e-12)
    for name in ("value", "drawn", "curve"):
        np.testing.assert_array_equal(whole[name], cut[name])


def test_float64_is_local_to_the_sweep():
    def third(key, hparams, data):
        return {"third": hparams["a"] / 3}

    double = sweep(third, {"a": [1.0]}, key=KEY, float64=True)
    single = sweep(third, {"a": [1.0]}, key=KEY)
    assert double["third"].dtype == np.float64
    assert double["third"].item() == 1 / 3
    assert single["third"].dtype == np.float32
    assert jnp.ones(1).dtype == jnp.float32


# Strategies


def mlp_lane(key, hparams, data, *, width, steps):
    network = models.padded_mlp(models.MLP((width,), classes=10), [hparams["width"]])
    config = Config(steps=steps, batch_size=50, evaluate_every=steps)
    metrics = {"loss": losses.cross_entropy}
    run = make_train(network, losses.cross_entropy, lambda h: optax.adam(1e-3), config, metrics=metrics)
    return {"loss": run(key, hparams, data).history["train_loss"][-1]}


def test_pad_bucket_and_loop_agree_after_300_steps():
    rng = np.random.default_rng(0)
    data = {"train": (rng.normal(size=(200, 64)).astype("float32"), rng.integers(0, 10, 200).astype("int32"))}
    axes = {"width": [3, 8, 17, 32], "seed": [0, 1]}
    run = functools.partial(mlp_lane, steps=300)
    found, programs = {}, {}
    for strategy in ("loop", "pad", "bucket", "auto"):
        monitor = Monitor()
        options = {"key": KEY, "data": data, "padded": "width", "strategy": strategy, "monitor": monitor}
        found[strategy] = sweep(run, axes, **options)["loss"].values
        programs[strategy] = monitor.counts["programs"]
    assert programs["loop"] == 4
    assert programs["pad"] == 1
    assert programs["bucket"] in (2, 3)
    for strategy in ("pad", "bucket", "auto"):
        np.testing.assert_allclose(found[strategy], found["loop"], rtol=1e-5, atol=1e-5)
    assert found["loop"].std() > 1e-3  # the lanes differ, so agreeing says something


def test_auto_takes_the_cheapest_grouping_of_the_model(monkeypatch):
    axes = {"a": [1.0], "width": [2, 4, 8, 16, 32, 64], "seed": list(range(40))}

    def big(key, hparams, data, *, width):
        return {"sum": jnp.sum(jnp.ones((width, 2000)) @ jnp.ones((2000, 50))) * hparams["a"]}

    options = {"key": KEY, "data": DATA, "padded": "width"}
    sizes = {}
    for compile_seconds in (1e-9, 1e-3, 1e9):
        monkeypatch.setitem(
            estimate.MACHINES, "cpu", estimate.MACHINES["cpu"]._replace(compile_seconds=compile_seconds)
        )
        plans = {s: plan(big, axes, strategy=s, **options) for s in ("auto", "loop", "pad", "bucket")}
        totals = {s: p.compile_seconds + p.run_seconds for s, p in plans.items()}
        assert totals["auto"] <= min(totals.values()) * 1.0001
        sizes[compile_seconds] = len(plans["auto"].programs)
    assert sizes[1e-9] == 6  # compiling is free: one program a width
    assert sizes[1e9] == 1
    again = plan(big, axes, strategy="auto", **options)
    assert again == plan(big, axes, strategy="auto", **options)
    assert "240 lanes" in str(again)


def test_padded_lanes_get_their_own_size_and_the_allocation():
    axes = {"width": [1, 2, 4], "a": [1.0, 10.0]}
    for strategy in ("loop", "pad", "bucket", "auto"):
        found = sweep(padded_sum, axes, key=KEY, data=DATA, padded="width", strategy=strategy)
        np.testing.assert_array_equal(found["sum"], np.outer([0, 1, 6], [1, 10]))


@pytest.mark.parametrize(
    ("lanes", "devices", "width"), [(1, 2, 8), (5, 2, 8), (16, 2, 8), (17, 2, 8), (100, 4, 8), (7, 1, 3)]
)
def test_layout_wastes_less_than_a_row_of_lanes(lanes, devices, width):
    side, rounds = _layout(lanes, devices, width, 1.0, 1e9)
    assert side <= width
    assert lanes <= side * rounds * devices < lanes + devices * (rounds + 1)


# Divergence


def _explosive(key, hparams, data):
    network = models.network(models.MLP((8,), classes=2))
    run = make_train(network, losses.cross_entropy, lambda h: optax.sgd(h["lr"]), Config(steps=20))
    return {"loss": run(key, hparams, data).history["train_loss"]}


def test_a_diverging_lane_is_marked_and_touches_no_neighbour():
    rng = np.random.default_rng(0)
    data = {"train": (rng.normal(size=(32, 4)).astype("float32"), rng.integers(0, 2, 32).astype("int32"))}
    monitor = Monitor()
    calm = sweep(_explosive, {"lr": [0.1, 0.2, 0.3, 0.4], "seed": [0, 1]}, key=KEY, data=data)
    wild = sweep(_explosive, {"lr": [0.1, 0.2, float("inf"), 0.4], "seed": [0, 1]}, key=KEY, data=data, monitor=monitor)
    np.testing.assert_array_equal(wild["diverged"], [[False] * 2, [False] * 2, [True] * 2, [False] * 2])
    for rate in (0, 1, 3):
        np.testing.assert_array_equal(calm["loss"][rate], wild["loss"][rate])
    assert monitor.counts["diverged"] == 2
    assert not np.isfinite(wild["loss"].values[2]).all()


def test_what_is_not_finite_is_found_in_any_tree():
    sound = {"w": jnp.ones((2, 3)), "n": jnp.array([1, 2]), "key": jax.random.key(0), "none": None}
    found = jax.jit(jax.vmap(lambda x: not_finite((sound, x))))(jnp.array([0.0, jnp.nan, jnp.inf, -jnp.inf, 1e38]))
    assert found.tolist() == [False, True, True, True, False]
    assert not not_finite({})
    assert not_finite([np.array([1.0, np.inf]), 3])


def test_lanes_of_whole_numbers_say_themselves_that_they_are_lost():
    def run(key, hparams, data):
        lost = {"diverged": not_finite(hparams["a"])} if data else {}
        return {"n": jnp.asarray(hparams["a"] > 1, jnp.int32), **lost}

    for data, said in (({}, [False, False]), ({"any": jnp.ones(1)}, [False, True])):
        found = sweep(run, {"a": [1.0, float("nan")]}, key=jax.random.key(0), data=data)
        assert found["diverged"].values.tolist() == said


def test_a_run_may_say_itself_what_diverged():
    def run(key, hparams, data):
        return {"risk": jnp.inf * hparams["a"], "diverged": hparams["a"] > 1}

    found = sweep(run, {"a": [1.0, 2.0]}, key=KEY)
    np.testing.assert_array_equal(found["diverged"], [False, True])


# Chunks, stores, executors


def _folder(path):
    return results.Folder(path, {"test": "sweep"})


def test_finished_chunks_are_found_and_not_computed_again(tmp_path):
    options = {"width": 2, "chunk_seconds": 1e-12}
    first, second, third = Monitor(), Monitor(), Monitor()
    with _folder(tmp_path) as folder:
        whole = _run(store=folder.store("s"), monitor=first, **options)
        again = _run(store=folder.store("s"), monitor=second, **options)
        chunks = sorted((tmp_path / "chunks" / "s").iterdir())
        content = bytearray(chunks[1].read_bytes())
        content[len(content) // 2] ^= 8
        chunks[1].write_bytes(content)
        mended = _run(store=folder.store("s"), monitor=third, **options)
        other = Monitor()
        sweep(polynomial, AXES, key=jax.random.key(8), data=DATA, store=folder.store("s"), monitor=other, **options)
        moved = Monitor()
        sweep(polynomial, AXES, key=KEY, data=DATA + 1, store=folder.store("s"), monitor=moved, **options)
    assert first.counts["chunks"] == 3
    assert (second.counts["chunks"], second.counts["resumed"], second.counts["programs"]) == (0, 3, 0)
    assert (third.counts["chunks"], third.counts["resumed"]) == (1, 2)
    assert other.counts["resumed"] == moved.counts["resumed"] == 0  # another key, other data: other chunks
    for found in (again, mended):
        np.testing.assert_array_equal(whole["curve"], found["curve"])


def test_identity_of_a_partial_run_holds_its_values_and_no_address(tmp_path):
    counts = []
    with _folder(tmp_path) as folder:
        for degree in (2, 2, 3):
            monitor = Monitor()
            run = functools.partial(polynomial, degree=degree)
            sweep(run, AXES, key=KEY, data=DATA, store=folder.store("s"), monitor=monitor)
            counts.append(monitor.counts["resumed"])
    assert counts == [0, 1, 0]


def _scaled_by(factor):
    def run(key, hparams, data):
        return {"x": hparams["a"] * factor}

    return run


class Scaled:
    """A run that is a method."""

    def __init__(self, factor):
        self.factor = factor

    def run(self, key, hparams, data):
        return {"x": hparams["a"] * self.factor}


def _weighted(key, hparams, data, *, w):
    return {"x": hparams["a"] * jnp.sum(w)}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (_scaled_by(2.0), _scaled_by(3.0)),
        (Scaled(2.0).run, Scaled(3.0).run),
        (functools.partial(_weighted, w=np.array([1.0, 1.0])), functools.partial(_weighted, w=np.array([1.0, 2.0]))),
        (lambda key, hparams, data: {"x": 2.0 * hparams["a"]}, lambda key, hparams, data: {"x": 3.0 * hparams["a"]}),
    ],
    ids=["closure", "method", "array", "lambda"],
)
def test_runs_that_differ_in_what_they_hold_share_no_chunk(tmp_path, first, second):
    with _folder(tmp_path) as folder:
        for run, expected in ((first, 2.0), (second, 3.0), (first, 2.0)):
            monitor = Monitor()
            found = sweep(run, {"a": [1.0]}, key=KEY, store=folder.store("s"), monitor=monitor)
            assert found["x"].item() == expected
    assert monitor.counts["resumed"] == 1  # and the same run finds its own again


def test_axes_may_be_arrays_and_mix_whole_and_broken_numbers():
    arrays = _run({"a": np.array([1.0, 2.0], "float32"), "b": jnp.array([0, 1]), "seed": np.arange(2)})
    plain = _run({"a": [1.0, 2.0], "b": [0, 1], "seed": range(2)})
    np.testing.assert_array_equal(arrays["value"], plain["value"])
    mixed = _run({"a": [0, 0.5], "b": [0], "seed": range(4)}, width=1, chunk_seconds=1e-12)
    np.testing.assert_array_equal(mixed["value"].values[:, 0, 0], [0.0, 0.5])


def test_grids_without_a_traced_axis_and_with_a_static_seed():
    def run(key, hparams, data, *, n, seed=0):
        return {"size": jnp.asarray(n), "drawn": jax.random.normal(key)}

    found = sweep(run, {"n": [1, 2, 3]}, key=KEY, static=("n",))
    np.testing.assert_array_equal(found["size"], [1, 2, 3])
    seeds = sweep(run, {"n": [1], "seed": [3, 5]}, key=KEY, static=("n", "seed"))
    np.testing.assert_array_equal(seeds["drawn"][0], _run({"a": [1.0], "b": [0], "seed": [3, 5]})["drawn"][0, 0])
    two = sweep(padded_sum, {"width": [1, 4], "a": [1.0]}, key=KEY, data=DATA, padded="width", strategy="bucket")
    np.testing.assert_array_equal(two["sum"].values[:, 0], [0, 6])
    scalar = sweep(lambda key, h, data: {"x": data["s"] * h["a"]}, {"a": [2.0]}, key=KEY, data={"s": 3.0})
    assert scalar["x"].item() == 6.0


def test_results_of_different_types_keep_their_values():
    def run(key, hparams, data, *, kind):
        return {"x": jnp.asarray(1) if kind == "whole" else jnp.asarray(0.5)}

    found = sweep(run, {"kind": ["whole", "broken"], "seed": [0]}, key=KEY, static=("kind",))
    np.testing.assert_array_equal(found["x"].values[:, 0], [1.0, 0.5])


def test_chunks_can_be_farmed_out():
    """A chunk as JSON and the work as a pickle are all that another process needs."""

    def elsewhere(work, chunks):
        for chunk in reversed(chunks):
            copy = pickle.loads(pickle.dumps(work))
            yield chunk, copy(Chunk.from_json(chunk.to_json()))

    far = _run(executor=elsewhere, width=2, chunk_seconds=1e-12)
    near = _run(width=2, chunk_seconds=1e-12)
    for name in near.data_vars:
        np.testing.assert_array_equal(near[name], far[name])
    chunk = Chunk({"kind": "relu", "shape": (3, 4)}, {"a": (1.0, 2.0)}, (0, 1), "name")
    assert Chunk.from_json(chunk.to_json()) == chunk


KILLED = """
    import sys, time
    import jax
    jax.config.update("jax_num_cpu_devices", 2)
    import jax.numpy as jnp
    from nnjax import results
    from nnjax.monitor import Monitor
    from nnjax.sweep import sweep

    def run(key, hparams, data):
        step = lambda x, _: (jnp.tanh(x @ x / 8 + hparams["a"]), None)
        x = jax.lax.scan(step, jax.random.normal(key, (60, 60)), length=300)[0]
        return {"x": x[:3, :3]}

    if __name__ == "__main__":
        monitor = Monitor()
        with results.Folder(sys.argv[1], {"test": "kill"}) as folder:
            print("started", flush=True)
            found = sweep(run, {"a": [0.1, 0.2, 0.3, 0.4], "seed": range(8)}, key=jax.random.key(0), width=1,
                          chunk_seconds=1e-12, store=folder.store("s"), monitor=monitor)
            print(monitor.counts["chunks"], monitor.counts["resumed"], float(abs(found.x).sum()).hex(), flush=True)
"""


def test_a_killed_sweep_resumes_to_the_same_numbers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(KILLED))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}

    def start(folder):
        return subprocess.Popen(
            [sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True, env=environment
        )

    whole = start(tmp_path / "whole").communicate(timeout=120)[0].split()
    assert whole[1:3] == ["16", "0"]
    process = start(tmp_path / "killed")
    stored = tmp_path / "killed" / "chunks" / "s"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not stored.is_dir() or len(list(stored.glob("*.npz"))) < 2):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = len(list(stored.glob("*.npz")))
    assert 2 <= left < 16, "the kill must fall in mid-sweep for this test to say anything"
    resumed = start(tmp_path / "killed").communicate(timeout=120)[0].split()
    assert int(resumed[1]) + int(resumed[2]) == 16
    assert int(resumed[2]) >= left - 1  # a chunk written but not yet entered is computed again
    assert resumed[3] == whole[3]


def test_memory_budget_narrows_the_program_and_one_lane_too_large_is_named():
    def hungry(key, hparams, data):
        x = jax.random.normal(key, (200, 200))  # 160 kB a lane, and more for its product
        return {"trace": jnp.trace(x @ x) * hparams["a"]}

    axes = {"a": [1.0, 2.0], "seed": range(16)}
    wide, narrow = Monitor(), Monitor()
    a = sweep(hungry, axes, key=KEY, monitor=wide)
    b = sweep(hungry, axes, key=KEY, monitor=narrow, memory_budget=1_500_000)
    np.testing.assert_allclose(a["trace"], b["trace"], rtol=1e-4)
    assert plan(hungry, axes, key=KEY, memory_budget=1_500_000).width < plan(hungry, axes, key=KEY).width
    with pytest.raises(MemoryError, match="raise memory_budget"):
        sweep(hungry, axes, key=KEY, memory_budget=1000)


def _exhausted(*_, **__):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 98765432100 bytes.")


def test_a_program_that_cannot_be_compiled_is_narrowed_and_one_lane_that_cannot_is_named(monkeypatch):
    compile_, widths = jax.stages.Lowered.compile, []

    def narrow(lowered, *arguments, **options):
        widths.append(work[-1].side)
        return _exhausted() if widths[-1] > most else compile_(lowered, *arguments, **options)

    work, make = [], chunks.Work.__init__
    monkeypatch.setattr(chunks.Work, "__init__", lambda self, *a, **k: make(self, *a, **k) or work.append(self))
    monkeypatch.setattr(jax.stages.Lowered, "compile", narrow)
    axes, most = {"a": [1.0], "b": [0], "seed": range(12)}, 2
    found = _run(axes, width=6)
    assert widths == [6, 3, 1]
    assert float(found["value"].sum()) == 12
    most = 0
    with pytest.raises(OutOfMemory) as caught:
        _run(axes, width=6, name="told")
    assert str(caught.value) == "memory ran out when one lane of this sweep alone was compiled; make the run smaller"
    assert caught.value.sweep == "told"
    with pytest.raises(OutOfMemory, match=r"one lane of \{'degree': 2\} alone"):
        _run({"degree": [2], **axes}, static=("degree",))


@pytest.mark.parametrize(
    ("width", "advice"), [(6, "with 6 lanes side by side; pass width=1 to sweep"),
                          (1, "with one lane at a time; make the run smaller")],
)  # fmt: skip
def test_memory_that_runs_out_on_the_way_is_told_with_what_helps(monkeypatch, width, advice):
    monkeypatch.setattr("nnjax.hosts.own_rows", _exhausted)
    with pytest.raises(OutOfMemory) as caught:
        _run({"a": [1.0], "b": [0], "seed": range(12)}, width=width, name="told")
    assert str(caught.value) == f"out of memory {advice}"
    assert caught.value.sweep == "told"
    assert isinstance(caught.value, MemoryError)
    again = pickle.loads(pickle.dumps(caught.value))  # from another process
    assert (str(again), again.fact, again.advice) == (str(caught.value), caught.value.fact, caught.value.advice)


def test_other_errors_of_the_device_pass_as_they_are(monkeypatch):
    def broken(*_, **__):
        raise jax.errors.JaxRuntimeError("INTERNAL: of another kind")

    for place in ("nnjax.hosts.own_rows", "jax.stages.Lowered.compile"):
        with monkeypatch.context() as patched:
            patched.setattr(place, broken)
            with pytest.raises(jax.errors.JaxRuntimeError, match="of another kind"):
                _run({"a": [1.0], "b": [0]})


SCRIPT = """
    import sys
    import jax
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
    import jax.numpy as jnp
    from nnjax.sweep import sweep
    def run(key, hparams, data):
        x = jax.random.normal(key, (40, 40))
        return {"x": jnp.linalg.eigvalsh(x + x.T)[:3] * hparams["a"]}
    found = sweep(run, {"a": [1.0, 2.0], "seed": range(5)}, key=jax.random.key(0))
    print(jax.local_device_count(), *[f"{v:.9g}" for v in found.x.values.ravel()])
"""


def test_one_two_and_four_devices_agree():
    outputs = []
    for devices in (1, 2, 4):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT), str(devices)], capture_output=True,
                              text=True, check=True, timeout=120)  # fmt: skip
        count, *numbers = done.stdout.split()
        assert int(count) == devices
        outputs.append(np.array(numbers, float))
    for other in outputs[1:]:
        np.testing.assert_allclose(other, outputs[0], rtol=1e-5, atol=1e-5)


def test_gpus_are_taken_wide_and_filled_to_four_fifths(monkeypatch):
    def gpus(memory):
        kind = {"platform": "gpu", "device_kind": "card", "process_index": 0}
        kind["memory_stats"] = lambda self: {"bytes_limit": memory}
        made = [type("Gpu", (), {**kind, "id": number})() for number in (0, 1)]
        monkeypatch.setattr(jax, "devices", lambda: made)
        monkeypatch.setattr(jax, "local_devices", lambda: made)

    def run(key, hparams, data):
        return {"sum": jax.random.normal(key, (1000,)).sum()}

    axes = {"seed": range(5000)}
    gpus(2**40)
    wide = plan(run, axes, key=KEY)
    assert (wide.devices, wide.width) == (2, 1024)
    assert wide.run_seconds < plan(run, axes, key=KEY, width=1).run_seconds / 2
    gpus(10**6)
    assert plan(run, axes, key=KEY).width == 800_000 // wide.programs[0].lane_bytes < 1024
    assert plan(run, axes, key=KEY, memory_budget=2 * wide.programs[0].lane_bytes).width == 2


@pytest.mark.slow
def test_a_real_gpu_is_taken_and_agrees():
    def start(**environment):
        kept = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
        # Asked last: the backend starts with it, and how many devices a CPU has is set before.
        code = textwrap.dedent(SCRIPT) + "\nprint(jax.default_backend())\n"
        return subprocess.run(
            [sys.executable, "-c", code, "1"], text=True, capture_output=True, check=True, timeout=300,
            env={**kept, **environment},
        ).stdout.split()  # fmt: skip

    _, *found, backend = start()
    if backend != "gpu":
        pytest.skip("needs a GPU")
    _, *expected, cpu = start(JAX_PLATFORMS="cpu")
    assert cpu == "cpu"
    np.testing.assert_allclose(np.array(found, float), np.array(expected, float), rtol=1e-4, atol=1e-4)


def test_decompositions_on_several_devices_run_one_after_another_and_end():
    # Side by side these wait for each other for ever.
    code = """
        import jax
        jax.config.update("jax_num_cpu_devices", 2)
        import jax.numpy as jnp
        from nnjax.sweep import plan, sweep
        def run(key, hparams, data):
            x = jax.random.normal(key, (6400, 64))
            return {"x": jnp.linalg.eigvalsh(x.T @ x).sum()}
        def plain(key, hparams, data):
            return {"x": jax.random.normal(key, (64,)).sum()}
        axes, key = {"seed": range(32)}, jax.random.key(0)
        print(plan(run, axes, key=key).width, plan(plain, axes, key=key).width, plan(run, axes, key=key, width=8).width)
        print(bool(jnp.isfinite(sweep(run, axes, key=key).x.values).all()))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True,
                          timeout=240)  # fmt: skip
    assert done.stdout.split() == ["1", "8", "1", "True"]


def test_use_all_cores_before_and_after_the_backend_starts():
    code = """
        import os, jax
        from nnjax.sweep import use_all_cores
        assert use_all_cores() == os.cpu_count()
        assert jax.local_device_count() == os.cpu_count()
        use_all_cores()  # again is harmless
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)
    late = """
        import jax
        from nnjax.sweep import use_all_cores
        jax.config.update("jax_num_cpu_devices", 1)
        jax.devices()
        try:
            use_all_cores()
        except ValueError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(late)], check=True, timeout=120,
                          capture_output=True, text=True)  # fmt: skip
    assert "before anything is computed" in done.stdout or os.cpu_count() == 1


def test_cores_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 1000)
    assert cores() == 1000
    jax.devices()
    with pytest.raises(ValueError, match=r"^use_all_cores\(\) must be called before anything is computed; restart"):
        use_all_cores()


def test_memory_of_machines_that_do_not_tell(monkeypatch):
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    cpu, gpu = (types.SimpleNamespace(platform=name, memory_stats=lambda: None) for name in ("cpu", "gpu"))
    assert plans.default_budget([cpu] * 2) == half // 2
    monkeypatch.delattr(os, "sysconf")
    assert plans.default_budget([cpu]) == 2**32
    assert plans.default_budget([gpu]) == int(0.8 * 2**33)


def test_the_default_executor_does_one_chunk_after_the_other_in_their_order():
    made = [Chunk({}, {"a": (float(i),)}, (i,), str(i)) for i in range(3)]
    done = []
    for chunk, arrays in serial(lambda chunk: done.append(chunk) or {"n": len(done)}, made):
        assert (done[-1], arrays) == (chunk, {"n": len(done)}), "a chunk is computed when it is asked for"
    assert done == made


def test_a_plan_takes_every_argument_of_a_sweep_and_says_what_it_does():
    axes = {"degree": [1, 2, 3], **AXES}
    made = plan(polynomial, axes, key=KEY, data=DATA, name="told", static=("degree",), width=3, dims={}, monitor=None)
    assert [program.static for program in made.programs] == [{"degree": 1}, {"degree": 2}, {"degree": 3}]
    assert [len(program.positions) for program in made.programs] == [12] * 3
    assert sorted(place for program in made.programs for place in program.positions) == [*range(36)]
    assert made.programs[0].shapes == {"value": (), "drawn": (), "curve": (4,)}
    assert made.result_bytes == 36 * 4 * (1 + 1 + 4)
    assert (made.sizes, made.width) == ({"degree": 3, "a": 3, "b": 2, "seed": 2}, 3)
    assert str(made).startswith("told: 36 lanes (degree 3 x a 3 x b 2 x seed 2), 3 programs (loop), 3 side by side on")
    assert STRATEGIES == ("auto", "loop", "pad", "bucket")


class _Wrapped:
    def __init__(self, function):
        self.__wrapped__ = function


def test_content_is_that_of_values_not_of_addresses():
    key = jax.random.key(3)
    same = [
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
        ((1, 2), [1, 2]),
        (range(3), [0, 1, 2]),
        (np.arange(3), np.arange(6)[::2] // 2),
        (key, jax.random.key(3)),
        (_Wrapped(polynomial), polynomial),
        (np.float32(2), np.asarray(2, "float32")),
    ]
    for one, other in same:
        assert chunks.content(one) == chunks.content(other)
        json.dumps(chunks.content(one))
    different = [
        (1, 1.0), ("1", 1), (True, 1), (None, "None"), (np.arange(3), np.arange(3.0)), (np.zeros(4), np.zeros((2, 2))),
        (key, jax.random.key(4)), (np.sin, np.cos), (math, json), (int, float), (len, max), (Chunk, OutOfMemory),
        (Chunk({}, {}, (0,), "a"), Chunk({}, {}, (1,), "a")),
        (functools.partial(polynomial, degree=1), functools.partial(polynomial, degree=2)),
        (lambda x, k=1: x * k, lambda x, k=2: x * k),
        ((lambda x, *, k=1: x * k), (lambda x, *, k=2: x * k)),
    ]  # fmt: skip
    for one, other in different:
        assert chunks.content(one) != chunks.content(other)


def test_plain_values_have_no_array_in_them():
    made = chunks.plain([np.int64(3), jnp.asarray(0.5), (np.bool_(True), "a"), [np.float32(2)]])
    assert made == (3, 0.5, (True, "a"), (2.0,))
    assert [type(value) for value in made] == [int, float, tuple, tuple]
    assert type(made[2][0]) is bool


def test_progress_is_told(capsys):
    with ProgressBar() as bar:
        _run(monitor=bar, name="told")
    assert "told: compile" in capsys.readouterr().err
    assert bar.seconds["compile"] > 0
    assert bar.seconds["run"] > 0


# Bad input


@pytest.mark.parametrize(
    ("axes", "options", "message"),
    [
        ({}, {}, "axes is empty"),
        ({"a": []}, {}, "'a' has no values"),
        ({"a": [1, 1]}, {}, "names a value twice"),
        ({"a": ["x"]}, {}, "not numbers"),
        ({"a": [1]}, {"static": ("b",)}, "'b' is named static"),
        ({"a": [1]}, {"padded": "width"}, "'width' is named static or padded"),
        ({"width": [0, 1]}, {"padded": "width"}, "positive integers"),
        ({"width": [1.5]}, {"padded": "width"}, "positive integers"),
        ({"a": [1]}, {"strategy": "best"}, "strategy='best'"),
        ({"seed": [2**33]}, {}, "beyond 32 bits"),
    ],
)
def test_bad_axes_are_named(axes, options, message):
    with pytest.raises(ValueError, match=message):
        sweep(polynomial, axes, key=KEY, **options)


def test_bad_runs_are_named():
    def nested(key, hparams, data):
        return {"a": {"b": hparams["a"]}}

    with pytest.raises(ValueError, match="flat dict"):
        sweep(nested, {"a": [1.0]}, key=KEY)

    def ragged(key, hparams, data, *, n):
        return {"x": jnp.zeros(n)}

    with pytest.raises(ValueError, match="one shape"):
        sweep(ragged, {"n": [2, 3], "a": [1.0]}, key=KEY, static=("n",))
    with pytest.raises(ValueError, match="own shape"):
        sweep(polynomial, AXES, key=KEY, data=DATA, dims={"curve": ("time", "more")})
    with pytest.raises(ValueError, match="coords has 2 values for 'time'"):
        sweep(polynomial, AXES, key=KEY, data=DATA, dims={"curve": ("time",)}, coords={"time": [0, 1]})
    with pytest.raises(ValueError, match="name of an axis"):
        sweep(lambda key, h, data: {"a": h["a"]}, {"a": [1.0]}, key=KEY)


def test_result_survives_a_file(tmp_path):
    import xarray as xr

    found = _run()
    results.write_tree(tmp_path / "r.nc", xr.DataTree.from_dict({"panel": found}))
    back = results.read_tree(tmp_path / "r.nc")["panel"].to_dataset()
    xr.testing.assert_identical(back, found)
    assert json.loads(back.attrs["programs"]) == [{}]


def _mixed(key, hparams, data):
    x = jax.random.normal(key, (16, 16))
    return {"x": jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x @ x.T * hparams["a"]), x)[0]}


def test_chunks_of_one_width_are_not_taken_for_those_of_another(tmp_path):
    axes = {"a": [0.1, 0.2], "seed": range(8)}
    found, names = {}, {}
    with _folder(tmp_path) as folder:
        for width in (8, 4, 2, 1, 8):  # each time one chunk with the same lanes
            monitor = Monitor()
            store = folder.store("s")
            here = sweep(_mixed, axes, key=KEY, width=width, chunk_seconds=1e12, store=store, monitor=monitor)
            assert monitor.counts["chunks" if width not in found else "resumed"] == 1, width
            kept = {path.name for path in (tmp_path / "chunks/s").glob("*.npz")}
            names[width] = kept - set().union(*names.values()) if width not in found else names[width]
            alone = sweep(_mixed, axes, key=KEY, width=width, chunk_seconds=1e12)
            assert here["x"].values.tobytes() == found.setdefault(width, alone)["x"].values.tobytes(), width
    assert [len(each) for each in names.values()] == [1] * 4


def test_a_run_that_cannot_be_told_from_another_is_refused():
    lock = threading.Lock()

    def run(key, hparams, data):
        with lock:
            return {"x": hparams["a"]}

    with pytest.raises(ValueError, match="a lock shows no content, so it cannot be told from another; give what"):
        sweep(run, {"a": [1.0]}, key=KEY)
