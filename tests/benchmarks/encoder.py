"""What one seed and epoch of the 10-5-10 encoder costs in one compiled sweep, and in a serial loop of the same step.

Run: `python -m tests.benchmarks.encoder [--seeds N] [--epochs N] [--rounds N]` (a minute on two cores).

The sweep is the study's own: all rules from the same starts, one program, every core a device. The loop does what a
script would: one start after the other, the same update jitted once, its result left on the device and looked at at
the end. Both are compiled first, then timed in turn, round after round; the table shows medians, smallest to largest.
Targets: at most 20 microseconds a seed and epoch, and at least ten times as fast as the loop.
"""

import argparse
import statistics
import time
from functools import partial

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

    return run


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    use_all_cores()
    rules = len(lanes.ENCODER_RULES)
    loop, compiled, swept, looped = make_loop(), [], [], []
    loop(10)
    for _ in range(options.rounds):
        compiling, running = sweep_seconds(options.seeds, options.epochs)
        compiled.append(compiling)
        swept.append(1e6 * running / (options.seeds * options.epochs * rules))
        looped.append(1e6 * loop(options.epochs) / (options.epochs * rules))
    print(f"{rules} rules, {options.seeds} seeds, {options.epochs} epochs, {jax.local_device_count()} devices\n")
    print("| contestant | microseconds a seed and epoch, median (range) | against the sweep |\n|---|---:|---:|")
    middle = statistics.median(swept)
    for name, values in (("one compiled sweep", swept), ("serial loop of the jitted step", looped)):
        at = statistics.median(values)
        print(f"| {name} | {at:.2f} ({min(values):.2f} to {max(values):.2f}) | {at / middle:.1f} |")
    print(f"\nThe sweep compiles in {statistics.median(compiled):.1f} s, not counted above.")


if __name__ == "__main__":
    main()
