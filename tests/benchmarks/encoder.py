"""What an epoch of the 10-5-10 encoder costs in one compiled sweep, and in a serial loop of the same step.

Run: `python -m tests.benchmarks.encoder [--seeds N] [--epochs N] [--rounds N]` (some minutes on two cores).

The sweep is the study's own: all rules from the same starts, one program, on every core a device and on one core
alone. The loop does what a script would, on one core: one start after the other, the same update jitted once, its
result left on the device and looked at at the end. What has one core is a second process bound to it, where the system
can. All are compiled first, then timed in turn, round after round; the table shows medians, smallest to largest.
Targets: at most 20 microseconds a seed and epoch of one rule, and at least ten times as fast as the loop, both on one
core.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _optimizers_lanes as lanes
from nnjax.monitor import Monitor
from nnjax.sweep import sweep, use_all_cores

BITS, HIDDEN = 10, 5


def sweep_seconds(seeds: int, epochs: int) -> tuple[float, float]:
    """Seconds of compiling and of running the study's sweep."""
    monitor = Monitor()
    lane = partial(lanes.encoder_lane, bits=BITS, hidden=HIDDEN, epochs=epochs)
    sweep(lane, {"seed": range(seeds)}, key=jax.random.key(0), width=100, monitor=monitor)
    return monitor.seconds["compile"], monitor.seconds["run"]


def use_one_core() -> None:
    """Bind this process to one of its cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def loop_seconds(epochs: int) -> float:
    """Seconds of the loop over all rules, one start; compiled before it is timed."""
    return make_loop()(epochs)


@cache
def make_loop():
    """A function ``epochs -> seconds`` that runs every rule on one start, an update at a time."""
    fan_in = np.repeat([BITS + 1.0, HIDDEN + 1.0], [(BITS + 1) * HIDDEN, (HIDDEN + 1) * BITS])
    start = jax.random.uniform(jax.random.key(0), (len(fan_in),), minval=-1.0, maxval=1.0)
    steps = []
    for name in lanes.ENCODER_RULES:
        rule, extra = lanes.encoder_rule(name, fan_in)
        rule = optax.with_extra_args_support(rule)
        loss = partial(lanes.encoder_loss, bits=BITS, hidden=HIDDEN, extra=extra)

        @jax.jit
        def step(w, state, first, number, rule=rule, loss=loss):
            (value, right), gradient = jax.value_and_grad(loss, has_aux=True)(w)
            move, state = rule.update(gradient, state, w, value=value)
            return w + move, state, jnp.where(right, jnp.minimum(first, number), first), number + 1

        steps.append((step, rule.init(start)))

    def run(epochs: int) -> float:
        before = time.perf_counter()
        for step, state in steps:
            carry = (start, state, jnp.asarray(epochs + 1), jnp.asarray(1))
            for _ in range(epochs):
                carry = step(*carry)
            jax.block_until_ready(carry)
        return time.perf_counter() - before

    run(10)
    return run


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    use_all_cores()
    rules, devices = len(lanes.ENCODER_RULES), jax.local_device_count()
    several, alone, loop = f"one compiled sweep, {devices} devices", "the same, one core", "serial loop, one core"
    compiled: dict[str, list[float]] = {several: [], alone: []}
    spent: dict[str, list[float]] = {several: [], alone: [], loop: []}
    one = options.seeds * options.epochs * rules
    # Not forked: the second process must start JAX anew, with the one core it is bound to.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=use_one_core) as process:
        for _ in range(options.rounds):
            for name, (compiling, running) in (
                (several, sweep_seconds(options.seeds, options.epochs)),
                (alone, process.submit(sweep_seconds, options.seeds, options.epochs).result()),
            ):
                compiled[name].append(compiling)
                spent[name].append(1e6 * running / one)
            looped = process.submit(loop_seconds, options.epochs).result()
            spent[loop].append(1e6 * looped / (options.epochs * rules))
    print(f"{rules} rules, {options.seeds} seeds, {options.epochs} epochs; microseconds, median (range)\n")
    print(f"| contestant | a seed and epoch of one rule | a seed and epoch, all {rules} rules | loop's time over its |")
    print("|---|---:|---:|---:|")
    for name, values in spent.items():
        at = statistics.median(values)
        spread = f"{at:.2f} ({min(values):.2f} to {max(values):.2f})"
        print(f"| {name} | {spread} | {rules * at:.1f} | {statistics.median(spent[loop]) / at:.1f} |")
    seconds = ", ".join(f"{statistics.median(values):.1f} s ({name})" for name, values in compiled.items())
    print(f"\nCompiling, not counted above: {seconds}.")


if __name__ == "__main__":
    main()
