"""How fast a weight-agnostic search is, against the way the program of Gaier and Ha (2019) works, written in NumPy.

Run: `python -m tests.benchmarks.wann_search [--rounds N] [--devices D]` (about three minutes on two cores).

Environment steps a second and core, with the population that a search of 192 generations ends with, as populations of
which many nets fail at once say little: (a) here, one core, all episodes of 192 nets x 6 shared weights x 3 starts, an
environment step counted where it is made, not after an episode's end; (b) the peer: one environment after the other,
per step one matrix column for each node, the activation chosen by its code, and the equations of the cart-pole in
NumPy's and Python's floats, as that program has them. Both run the same nets from like starts; each side's time is that
of running, compilation apart. The processor time of the process is what counts, so that other work on the machine
changes it little; then (c) whole generations, ranking and variation among them, by the clock, on all devices, and (d) a
generation of the 16 x 16 digits, if the data are there. Target: a is at least 500 times b.
"""

import argparse
import dataclasses
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

REPETITIONS = 3


def peer_steps_a_second(nets, space, task, starts, seconds):
    """Steps a second of processor time of the peer, over as many episodes as fit in ``seconds``."""
    connections, codes = np.asarray(nets.connections), np.asarray(nets.activations)
    hidden = np.asarray(nets.hidden)
    begin, made, number = time.process_time(), 0, 0
    while time.process_time() - begin < seconds:
        net = number % len(hidden)
        slots = np.r_[: 1 + space.inputs + hidden[net], space.first_output : space.max_nodes]
        table = (connections[net][np.ix_(slots, slots)] == 1) * float((-2, -1, -0.5, 0.5, 1, 2)[number % 6])
        made += _peer_episode(table, codes[net][slots], space.inputs, starts[number % len(starts)], task.steps)
        number += 1
    return made / (time.process_time() - begin)


def _peer_episode(table, codes, inputs, start, steps):
    x, x_dot, theta, theta_dot = (float(number) for number in start)
    values = np.zeros((1, len(codes)))
    values[0, 0] = 1
    for step in range(steps):
        values[0, 1 : 1 + inputs] = [x, x_dot, np.cos(theta), np.sin(theta), theta_dot]
        for node in range(1 + inputs, len(codes)):
            values[0, node] = _peer_activation(codes[node], np.dot(values, table[:, node : node + 1])).item()
        force = 10 * float(np.clip(values[0, -1], -1, 1))
        s, c = np.sin(theta), np.cos(theta)
        push = force - 0.1 * x_dot
        swing = 0.5 * 0.6 * theta_dot**2 * s
        below = 4 - 1.5 * c**2
        x_acceleration = (-2 * swing + 1.5 * 9.82 * s * c + 4 * push) / below
        turn = (-3 * swing * c + 6 * 9.82 * s + 6 * push * c) / (0.6 * below)
        x, theta = x + 0.01 * x_dot, theta + 0.01 * theta_dot
        x_dot, theta_dot = x_dot + 0.01 * x_acceleration, theta_dot + 0.01 * turn
        (np.cos(theta) + 1) / 2 * np.cos(np.pi * x / 4.8)  # the reward
        if abs(x) > 2.4:
            return step + 1
    return steps


def _peer_activation(code, x):
    functions = (
        lambda x: x, lambda x: 1.0 * (x > 0), lambda x: np.sin(np.pi * x), lambda x: np.exp(-x * x / 2), np.tanh,
        lambda x: (np.tanh(x / 2) + 1) / 2, lambda x: -x, np.abs, lambda x: np.maximum(0, x),
        lambda x: np.cos(np.pi * x),
    )  # fmt: skip
    return functions[code](x)


def here_steps_a_second(nets, space, task, rounds):
    """Steps a second of processor time, each round's; and the seconds of compiling."""
    from nnjax.wann.evaluation import episodes, starts

    shared = jnp.asarray((-2, -1, -0.5, 0.5, 1, 2), jnp.float32)
    begin = starts(task, task.params, jax.random.split(jax.random.key(1), 1), REPETITIONS)

    @jax.jit
    def run(nets, begin):
        totals, steps = episodes(nets, space, task, task.params, shared, begin, jnp.zeros(len(nets.hidden), int))
        return totals, steps.sum()

    before = time.perf_counter()
    program = run.lower(nets, begin).compile()
    compiling = time.perf_counter() - before
    jax.block_until_ready(program(nets, begin))
    found = []
    for _ in range(rounds):
        before = time.process_time()
        _, steps = jax.block_until_ready(program(nets, begin))
        found.append(float(steps) / (time.process_time() - before))
    return found, compiling


def seconds_a_generation(task, config, rounds):
    """Of a search, block by block, the first one, which compiles, apart."""
    from nnjax.wann import search

    marks = [time.perf_counter()]
    sizes = []

    def note(done, whole, history):
        marks.append(time.perf_counter())
        sizes.append((float(history.nodes[0, -1]), float(history.connections[0, -1])))

    config = dataclasses.replace(config, generations=config.block * (rounds + 1))
    state, history = search(task, config, jax.random.key(0), progress=note)
    seconds = np.diff(marks)[1:]
    made = history.steps[config.block :].reshape(len(seconds), -1).sum(1) / seconds
    return seconds / config.block, marks[1] - marks[0], sizes[-1], state.population, made


def _told(values, unit=1.0):
    return f"{statistics.median(values) / unit:.3g} ({min(values) / unit:.3g} to {max(values) / unit:.3g})"


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--devices", type=int, default=None)
    options = parser.parse_args()
    from nnjax.sweep import cores

    devices = options.devices or cores()
    jax.config.update("jax_num_cpu_devices", devices)
    from nnjax.data import DataError
    from nnjax.wann import Config, Selection, Space, tasks

    task = tasks.by_name("swing_up")
    space = Space(task.inputs, task.outputs, 128)
    seconds, first, sizes, nets, made = seconds_a_generation(task, Config(block=32), 5)
    here, compiling = here_steps_a_second(nets, space, task, options.rounds)
    starts = np.random.default_rng(0).normal((0, 0, np.pi, 0), 0.2, (3, 4))
    rates = [peer_steps_a_second(nets, space, task, starts, 3.0) for _ in range(options.rounds)]
    print(f"medians of nodes and connections: {sizes}")
    print(f"(a) here, one core: {_told(here, 1e6)} million steps/s; compiling {compiling:.1f} s")
    print(f"(b) peer, one core: {_told(rates, 1e3)} thousand steps/s")
    print(f"ratio of medians: {statistics.median(here) / statistics.median(rates):.0f}")
    print(f"(c) generation of 192 x 6 x 3 x up to 1000 steps, {devices} devices: {_told(seconds, 1e-3)} ms by the "
          f"clock, blocks of 32; first block with compiling {first:.1f} s")  # fmt: skip
    print(f"    {_told(made / devices, 1e6)} million steps made a second and device, everything included")
    try:
        digits = tasks.by_name("mnist16")
    except DataError as error:
        print(f"(d) left out: {error}")
        return
    config = Config(960, repetitions=1, enabled=0.05, max_nodes=512, edges=4096, block=16,
                    selection=Selection(tournament=32))  # fmt: skip
    seconds, first, sizes, *_ = seconds_a_generation(digits, config, options.rounds)
    print(f"(d) generation of 960 x 6 x 1000 digits of 16 x 16, {devices} devices: {_told(seconds, 1e-3)} ms by the "
          f"clock; first block with compiling {first:.1f} s; medians at the end {sizes}")  # fmt: skip


if __name__ == "__main__":
    main()
