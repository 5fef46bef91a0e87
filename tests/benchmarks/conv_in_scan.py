"""What a training step of a small convolutional network costs inside `jax.lax.scan` on a CPU.

Run: `python -m tests.benchmarks.conv_in_scan` (two minutes on two cores; against PyTorch: `tests.benchmarks.training`).

The network: 28 x 28 x 1, convolution 5 x 5 x 16, pool, convolution 5 x 5 x 32, pool (all SAME), dense 128,
dense 10; batch 128, Adam. All contestants are compiled first, then timed in turn, round after round.
The table shows medians, and smallest to largest, in milliseconds a step and configuration.
Targets: inside scan at most 1.15 times the step outside; 14 times faster than the automatic gradients of
`lax.conv_general_dilated` inside scan.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from nnjax.conv import avg_pool, conv2d, max_pool

BATCH, STEPS, ROUNDS, LANES = 128, 10, 15, 4
OPTIMIZER = optax.adam(1e-3)


def plain_conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def plain_max_pool(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def fast_conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv2d(x, kernel, padding="SAME")


def fast_max_pool(x: jax.Array) -> jax.Array:
    return max_pool(x, 2)


def fast_avg_pool(x: jax.Array) -> jax.Array:
    return avg_pool(x, 2)


def init(key: jax.Array) -> dict[str, Any]:
    shapes = {"c1": (5, 5, 1, 16), "c2": (5, 5, 16, 32), "d1": (1568, 128), "d2": (128, 10)}
    keys = dict(zip(shapes, jax.random.split(key, 4), strict=True))
    he = jax.nn.initializers.he_normal()
    return {name: (he(keys[name], shape), jnp.zeros(shape[-1])) for name, shape in shapes.items()}


def make_step(conv: Callable, pool: Callable) -> Callable:
    """One Adam step: ((params, optimizer state), (x, y)) -> (the same, loss)."""

    def bias(b: jax.Array, x: jax.Array) -> jax.Array:
        return x + b.reshape((1,) * (x.ndim - 1) + b.shape)

    def loss(params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
        for name in ("c1", "c2"):
            x = pool(jax.nn.relu(bias(params[name][1], conv(x, params[name][0]))))
        x = jax.nn.relu(bias(params["d1"][1], x.reshape(x.shape[0], -1) @ params["d1"][0]))
        logits = bias(params["d2"][1], x @ params["d2"][0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def step(carry: tuple, batch: tuple) -> tuple[tuple, jax.Array]:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, *batch)
        updates, state = OPTIMIZER.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    return step


def contestants(data: tuple) -> dict[str, tuple[Callable, tuple, int]]:
    """Name -> (compiled call, its arguments, steps times configurations in it)."""
    params = init(jax.random.key(0))
    carry = (params, OPTIMIZER.init(params))
    many = jax.vmap(lambda key: (p := init(key), OPTIMIZER.init(p)))(jax.random.split(jax.random.key(0), LANES))
    fast, plain = make_step(fast_conv2d, fast_max_pool), make_step(plain_conv2d, plain_max_pool)
    average = make_step(fast_conv2d, fast_avg_pool)
    once = jax.jit(fast)

    def scan(step: Callable, carry: tuple, data: tuple) -> jax.Array:
        return lax.scan(step, carry, data)[1]

    def loop(carry: tuple, batches: list) -> jax.Array:
        for batch in batches:
            carry, value = once(carry, batch)
        return value

    batches = [jax.tree.map(lambda a, i=i: a[i], data) for i in range(STEPS)]
    whole, few = jax.jit(scan, static_argnums=0), 2
    mapped = jax.jit(lambda many, data: lax.map(lambda carry: scan(fast, carry, data), many))
    vmapped = jax.jit(lambda many, data: jax.vmap(lambda carry: scan(fast, carry, data))(many))
    grouped = jax.jit(lambda many, data: jax.vmap(lambda carry: scan(plain, carry, data))(many))
    start = jax.tree.map(lambda a: a[:few], data)
    return {
        "nnjax, Python loop of jitted steps": (loop, (carry, batches), STEPS),
        "nnjax, scan": (whole, (fast, carry, data), STEPS),
        "nnjax with average pooling, scan": (whole, (average, carry, data), STEPS),
        "plain lax, scan": (whole, (plain, carry, start), few),
        f"nnjax, vmap over {LANES}": (vmapped, (many, data), STEPS * LANES),
        f"nnjax, lax.map over {LANES}": (mapped, (many, data), STEPS * LANES),
        f"plain lax, vmap over {LANES}": (grouped, (many, start), few * LANES),
    }


def seconds(call: Callable, args: tuple) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call(*args))
    return time.perf_counter() - start


def main() -> None:
    x = jax.random.normal(jax.random.key(1), (STEPS, BATCH, 28, 28, 1))
    y = jax.random.randint(jax.random.key(2), (STEPS, BATCH), 0, 10)
    calls = contestants((x, y))
    compiled = {name: seconds(call, args) for name, (call, args, _) in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS):
        for name, (call, args, steps) in calls.items():
            if turn < 2 or not name.startswith("plain"):
                times[name].append(1e3 * seconds(call, args) / steps)
    base = times["nnjax, scan"]
    print(f"jax {jax.__version__}, {jax.default_backend()}\n")
    print("| contestant | ms a step (range) | over nnjax in scan: medians (minima) | first call, s |")
    print("|---|---|---|---|")
    for name, row in times.items():
        middle = statistics.median(row)
        ratio = f"{middle / statistics.median(base):.2f} ({min(row) / min(base):.2f})"
        first = f"{compiled[name]:.1f}" if name in compiled else ""
        print(f"| {name} | {middle:.1f} ({min(row):.1f}-{max(row):.1f}) | {ratio} | {first} |")


if __name__ == "__main__":
    main()
