"""Contestants of the training benchmarks: one process each, which prepares itself and then runs a round when asked.

`python -m tests.benchmarks.contestants NAME CORES` prints a line of JSON once it is ready (``{"compile": seconds}``),
and one for every line that it reads (``{"seconds": ..., "accuracy": ...}``), so that contestants can take turns and
none is in another's way: who is not asked waits for its input. It is bound to so many cores before anything is
imported, and has a thread for each.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

BATCH, EPOCHS, RATE, HIDDEN = 64, 50, 1e-3, (128, 128)
"""Benchmark of one training run: digits, an MLP 64-128-128-10, Adam."""

SWEEP_EPOCHS, SWEEP_SEEDS = 2, 4
SWEEP_RATES = tuple(1e-4 * 10 ** (i / 6) for i in range(16))
"""Benchmark of a sweep: 16 learning rates, 1e-4 to 3.2e-2, and four seeds each."""

Round = Callable[[], float]
"""One round; what it returns is an accuracy, so that a contestant that does not learn is seen."""


def digits() -> tuple[Any, Any]:
    """The digits of scikit-learn as (1797, 64) in [0, 1] and their classes; float32 and int32."""
    import numpy as np
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y.astype(np.int32)


# nnjax


def _nnjax_training(epochs: int) -> tuple[Any, dict[str, Any]]:
    import jax.numpy as jnp
    import optax

    from nnjax import losses, models, train

    x, y = digits()
    steps = epochs * -(-len(x) // BATCH)
    config = train.Config(epochs=epochs, batch_size=BATCH, evaluate_at=(steps,))
    made = train.make_train(
        models.network(models.MLP(HIDDEN)), losses.cross_entropy, lambda h: optax.adam(h["learning_rate"]), config,
        metrics={"error": losses.zero_one},
    )  # fmt: skip
    return made, {"train": (jnp.asarray(x), jnp.asarray(y))}


def nnjax_run() -> Round:
    """`nnjax.train`: the whole run is one compiled program."""
    import jax

    made, data = _nnjax_training(EPOCHS)
    program = jax.jit(lambda key, rate, data: made(key, {"learning_rate": rate}, data).history["train_error"][-1])

    def one() -> float:
        return 1 - float(program(jax.random.key(0), RATE, data))

    return one


def nnjax_sweep() -> Round:
    """`nnjax.sweep`: all configurations, on every core."""
    import numpy as np

    from nnjax import sweep

    sweep.use_all_cores()
    import jax

    from nnjax.monitor import Monitor

    made, data = _nnjax_training(SWEEP_EPOCHS)

    def lane(key: Any, hparams: Any, data: Any) -> dict[str, Any]:
        return {"error": made(key, hparams, data).history["train_error"][-1]}

    axes = {"learning_rate": SWEEP_RATES, "seed": range(SWEEP_SEEDS)}

    def one() -> float:
        monitor = Monitor()
        found = sweep.sweep(lane, axes, key=jax.random.key(0), data=data, monitor=monitor)
        one.compile = monitor.seconds["compile"]  # type: ignore[attr-defined]
        return 1 - float(np.min(found["error"].values))

    return one


# Peers


def torch_run() -> Round:
    """PyTorch: a loop over batches, fused Adam."""
    return lambda: _torch_train(EPOCHS, RATE, 0)


def torch_sweep() -> Round:
    """PyTorch: one configuration after the other."""
    return lambda: max(_torch_train(SWEEP_EPOCHS, rate, seed) for rate in SWEEP_RATES for seed in range(SWEEP_SEEDS))


def _torch_train(epochs: int, rate: float, seed: int) -> float:
    import torch
    from torch import nn

    torch.manual_seed(seed)
    x, y = _torch_digits()
    layers: list[Any] = []
    for before, after in zip((64, *HIDDEN), HIDDEN, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 10))
    adam = torch.optim.Adam(net.parameters(), rate, fused=True)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for begin in range(0, len(x), BATCH):
            batch = order[begin : begin + BATCH]
            adam.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            adam.step()
    with torch.no_grad():
        return float((net(x).argmax(1) == y).float().mean())


def _torch_digits() -> tuple[Any, Any]:
    import torch

    x, y = digits()
    return torch.from_numpy(x), torch.from_numpy(y).long()


def torch_vmap_sweep() -> Round:
    """torch.func: all configurations side by side, gradients by `torch.func.vmap`, Adam written out."""
    import torch
    from torch import nn

    x, y = _torch_digits()
    lanes = len(SWEEP_RATES) * SWEEP_SEEDS
    rates = torch.tensor([rate for rate in SWEEP_RATES for _ in range(SWEEP_SEEDS)])
    sizes = (64, *HIDDEN, 10)

    def logits(params: list[Any], x: Any) -> Any:
        for number, (weight, bias) in enumerate(params):
            x = x @ weight + bias
            x = torch.relu(x) if number < len(params) - 1 else x
        return x

    def loss(params: list[Any], x: Any, y: Any) -> Any:
        return nn.functional.cross_entropy(logits(params, x), y)

    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 0, 0))

    def one() -> float:
        torch.manual_seed(0)
        params = []
        for before, after in itertools.pairwise(sizes):
            bound = before**-0.5
            params.append([torch.empty(lanes, before, after).uniform_(-bound, bound),
                           torch.empty(lanes, after).uniform_(-bound, bound)])  # fmt: skip
        moments = [[[torch.zeros_like(p), torch.zeros_like(p)] for p in layer] for layer in params]
        step = 0
        for _ in range(SWEEP_EPOCHS):
            order = torch.stack([torch.randperm(len(x)) for _ in range(lanes)])
            for begin in range(0, len(x), BATCH):
                batch, step = order[:, begin : begin + BATCH], step + 1
                for layer, grads, both in zip(params, gradient(params, x[batch], y[batch]), moments, strict=True):
                    for p, g, (first, second) in zip(layer, grads, both, strict=True):
                        first.mul_(0.9).add_(g, alpha=0.1)
                        second.mul_(0.999).addcmul_(g, g, value=0.001)
                        rate = rates.reshape(-1, *[1] * (p.ndim - 1))
                        scale = (second / (1 - 0.999**step)).sqrt_().add_(1e-8)
                        p.sub_(rate * (first / (1 - 0.9**step)) / scale)
        guess = torch.func.vmap(logits, in_dims=(0, None))(params, x).argmax(-1)
        return float((guess == y).float().mean(1).max())

    return one


def sklearn_run() -> Round:
    """scikit-learn's MLPClassifier, the same net, batch and Adam, without its stopping early."""
    return lambda: _sklearn_train(EPOCHS, RATE, 0)


def sklearn_sweep() -> Round:
    """scikit-learn, one configuration after the other."""
    return lambda: max(_sklearn_train(SWEEP_EPOCHS, rate, s) for rate in SWEEP_RATES for s in range(SWEEP_SEEDS))


def _sklearn_train(epochs: int, rate: float, seed: int) -> float:
    import warnings

    from sklearn.neural_network import MLPClassifier

    x, y = digits()
    net = MLPClassifier(
        HIDDEN, batch_size=BATCH, learning_rate_init=rate, alpha=0, max_iter=epochs, tol=0, n_iter_no_change=10**9,
        random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it has not converged
        return float(net.fit(x, y).score(x, y))


def flax_run() -> Round:
    """The usual loop of a tutorial: a jitted step of a TrainState for every batch, the loss of every step looked at."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flax.training.train_state import TrainState

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for width in HIDDEN:
                x = nn.relu(nn.Dense(width)(x))
            return nn.Dense(10)(x)

    x, y = digits()
    net = Net()

    @jax.jit
    def step(state: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            logits = state.apply_fn({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), value

    start = jax.jit(net.init)
    apply = jax.jit(net.apply)
    adam = optax.adam(RATE)

    def one() -> float:
        params = start(jax.random.key(0), x[:1])["params"]
        state = TrainState.create(apply_fn=net.apply, params=params, tx=adam)
        shuffle = np.random.default_rng(0)
        for _ in range(EPOCHS):
            order, seen = shuffle.permutation(len(x)), 0.0
            for begin in range(0, len(x), BATCH):
                batch = order[begin : begin + BATCH]
                state, value = step(state, x[batch], y[batch])
                seen += float(value)
        return float((jnp.argmax(apply({"params": state.params}, x), 1) == y).mean())

    return one


CONTESTANTS: dict[str, Callable[[], Round]] = {
    "nnjax_run": nnjax_run, "torch_run": torch_run, "sklearn_run": sklearn_run, "flax_run": flax_run,
    "nnjax_sweep": nnjax_sweep, "torch_sweep": torch_sweep, "sklearn_sweep": sklearn_sweep,
    "torch_vmap_sweep": torch_vmap_sweep,
}  # fmt: skip


def main(name: str, cores: int) -> None:
    """Prepare, and run a round for every line of input."""
    import numpy  # noqa: F401, whose threads are limited
    import threadpoolctl

    threadpoolctl.threadpool_limits(cores)
    if name.startswith("torch"):
        import torch

        torch.set_num_threads(cores)
    begin = time.perf_counter()
    one = CONTESTANTS[name]()
    one()
    first = time.perf_counter() - begin
    print(json.dumps({"compile": first}), flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        accuracy = one()
        seconds = time.perf_counter() - begin
        # A sweep traces and compiles its program anew in each call: that is told apart.
        compiling = getattr(one, "compile", 0.0)
        print(json.dumps({"seconds": seconds - compiling, "compile": compiling, "accuracy": accuracy}), flush=True)


if __name__ == "__main__":
    some = sorted(os.sched_getaffinity(0))[: int(sys.argv[2])]
    os.sched_setaffinity(0, some)
    main(sys.argv[1], len(some))
