"""What the statistics of every layer cost beside the gradient they come with.

Run: `python -m tests.benchmarks.layer_statistics [--rounds N]` (a minute or two on two cores).

For each net, a jitted `jax.value_and_grad` of the mean loss and a jitted `nnjax.models.layer_statistics` on the same
batch are compiled first, then timed in turn, round after round; the table shows medians, smallest to largest, and
what compiling took. Target: statistics in less than twice the gradient's time.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import losses, models

NETS = {
    "MLP 784, 4 x 512, 10, batch 256, ReLU": (models.MLP((512,) * 4, activation="relu"), (256, 28, 28, 1), False),
    "the same, tanh": (models.MLP((512,) * 4, activation="tanh"), (256, 28, 28, 1), False),
    "MLP, batch norm": (models.MLP((512,) * 4, activation="relu", normalize="before"), (256, 28, 28, 1), True),
    "SmallCNN of width 16, 32 x 32 x 3, batch 64": (models.SmallCNN(16), (64, 32, 32, 3), True),
    "SmallCNN of width 64, the same": (models.SmallCNN(64), (64, 32, 32, 3), True),
    "DeepMLP 30 x 64, batch 64": (models.DeepMLP(), (64, 8, 8, 1), False),
    "DeepMLP 30 x 512, batch 256": (models.DeepMLP(width=512), (256, 28, 28, 1), False),
    "DeepCNN 16 x 16, 14 x 14, batch 64": (models.DeepCNN(width=16), (64, 14, 14, 1), False),
}


def compiled(model, shape, train):
    """The two programs as functions without arguments, and the seconds that each took to compile."""
    x = jax.random.normal(jax.random.key(0), shape)
    y = jnp.asarray(np.arange(shape[0]) % 10)
    params, stats = models.init(model, jax.random.key(1), x)

    def loss(params, stats, x, y):
        return losses.cross_entropy(models.apply(model, params, stats, x, train=train)[0], y).mean()

    def measured(params, stats, x, y):
        activation = getattr(model, "activation", "relu")
        return models.layer_statistics(
            model, params, stats, x, y, losses.cross_entropy, activation=activation, train=train
        )

    programs, seconds = [], []
    for function in (jax.value_and_grad(loss), measured):
        before = time.perf_counter()
        program = jax.jit(function).lower(params, stats, x, y).compile()
        seconds.append(time.perf_counter() - before)
        programs.append(lambda program=program: jax.block_until_ready(program(params, stats, x, y)))
    return programs, seconds


def milliseconds(program) -> float:
    """Of one call."""
    before = time.perf_counter()
    program()
    return 1e3 * (time.perf_counter() - before)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    print("| net | gradient, ms | statistics, ms | ratio | compile, s |")
    print("|---|---:|---:|---:|---:|")
    for name, (model, shape, train) in NETS.items():
        programs, seconds = compiled(model, shape, train)
        for program in programs:
            program()
        spent = [[milliseconds(program) for program in programs] for _ in range(options.rounds)]
        cells = [f"{statistics.median(t):.2f} ({min(t):.2f} to {max(t):.2f})" for t in zip(*spent, strict=True)]
        ratio = statistics.median(b / a for a, b in spent)
        print(f"| {name} | {' | '.join(cells)} | {ratio:.2f} | {seconds[0]:.1f}, {seconds[1]:.1f} |")


if __name__ == "__main__":
    main()
