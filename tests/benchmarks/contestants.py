"""Contestants of the training benchmarks: one process each, which prepares itself and then runs a round when asked.

`python -m tests.benchmarks.contestants NAME CORES` prints a line of JSON once it is ready (``{"compile": seconds}``),
and one for every line that it reads (``{"seconds": ..., "accuracy": ...}``), so that contestants can take turns and
none is in another's way: who is not asked waits for its input. It is bound to so many cores before anything is
imported, and has a thread for each.
"""

from __future__ import annotations

import itertools
import json
import math
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

    class Timed(Monitor):
        def __init__(self) -> None:
            super().__init__()
            self.start = time.perf_counter()

        def begin(self, name: str, work: float) -> None:
            self.spend("plan", time.perf_counter() - self.start)  # traces the run to predict what it costs

    def one() -> float:
        monitor = Timed()
        found = sweep.sweep(lane, axes, key=jax.random.key(0), data=data, monitor=monitor)
        one.compile = monitor.seconds["plan"] + monitor.seconds["compile"]  # type: ignore[attr-defined]
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


def _flax_net() -> Any:
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for width in HIDDEN:
                x = nn.relu(nn.Dense(width)(x))
            return nn.Dense(10)(x)

    return Net()


def _flax_state(net: Any, start: Callable[..., Any], adam: Any, x: Any) -> Any:
    import jax
    from flax.training.train_state import TrainState

    return TrainState.create(apply_fn=net.apply, params=start(jax.random.key(0), x[:1])["params"], tx=adam)


def flax_usual_run() -> Round:
    """The usual loop, as in Flax's MNIST example.

    Data in JAX arrays, indexed batch by batch; a jitted function for gradients, loss and accuracy, another for the
    update; both numbers of every step are kept and averaged on the host after the epoch. The last, smaller batch is
    dropped.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    images, labels = map(jnp.asarray, digits())
    net, adam = _flax_net(), optax.adam(RATE)
    start, steps = jax.jit(net.init), len(images) // BATCH

    @jax.jit
    def apply_model(state: Any, images: Any, labels: Any) -> Any:
        def loss_of(params: Any) -> Any:
            logits = state.apply_fn({"params": params}, images)
            loss = optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, 10)).mean()
            return loss, logits

        (loss, logits), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        return grads, loss, jnp.mean(jnp.argmax(logits, -1) == labels)

    @jax.jit
    def update_model(state: Any, grads: Any) -> Any:
        return state.apply_gradients(grads=grads)

    def one() -> float:
        state, key = _flax_state(net, start, adam, images), jax.random.key(0)
        for _ in range(EPOCHS):
            key, order_key = jax.random.split(key)
            order = jax.random.permutation(order_key, len(images))[: steps * BATCH].reshape(steps, BATCH)
            losses, hits = [], []
            for places in order:
                grads, loss, accuracy = apply_model(state, images[places, ...], labels[places, ...])
                state = update_model(state, grads)
                losses.append(loss)
                hits.append(accuracy)
            _ = np.mean(losses), np.mean(hits)
        return float(apply_model(state, images, labels)[2])

    return one


def flax_tuned_run() -> Round:
    """A loop tuned by hand: batches cut by NumPy, one jitted step for all; the loss of every step is looked at."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    x, y = digits()
    net, adam = _flax_net(), optax.adam(RATE)
    start, apply = jax.jit(net.init), jax.jit(net.apply)

    @jax.jit
    def step(state: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            logits = state.apply_fn({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), value

    def one() -> float:
        state, shuffle = _flax_state(net, start, adam, x), np.random.default_rng(0)
        for _ in range(EPOCHS):
            order, seen = shuffle.permutation(len(x)), 0.0
            for begin in range(0, len(x), BATCH):
                batch = order[begin : begin + BATCH]
                state, value = step(state, x[batch], y[batch])
                seen += float(value)
        return float((jnp.argmax(apply({"params": state.params}, x), 1) == y).mean())

    return one


# Convolutions: a round is CONV_STEPS steps of the net of tests.benchmarks.conv_in_scan

CONV_STEPS, CONV_PLAIN_STEPS = 10, 2


def _conv_scan(plain: bool) -> Round:
    import jax

    from tests.benchmarks import conv_in_scan as conv

    steps, parts = CONV_STEPS, (conv.fast_conv2d, conv.fast_max_pool)
    if plain:
        steps, parts = CONV_PLAIN_STEPS, (conv.plain_conv2d, conv.plain_max_pool)
    step = conv.make_step(*parts)
    x = jax.random.normal(jax.random.key(1), (steps, conv.BATCH, 28, 28, 1))
    y = jax.random.randint(jax.random.key(2), (steps, conv.BATCH), 0, 10)
    params = conv.init(jax.random.key(0))
    carry = (params, conv.OPTIMIZER.init(params))
    program = jax.jit(lambda carry, data: jax.lax.scan(step, carry, data)[1])

    def one() -> float:
        program(carry, (x, y)).block_until_ready()
        return math.nan

    one.steps = steps  # type: ignore[attr-defined]
    return one


def nnjax_conv() -> Round:
    """Adam steps inside a scan with nnjax's convolution and pooling."""
    return _conv_scan(plain=False)


def plain_conv() -> Round:
    """The same with the automatic gradients of `lax.conv_general_dilated` and `lax.reduce_window`."""
    return _conv_scan(plain=True)


def _torch_conv(channels_last: bool) -> Round:
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    x, y = torch.randn(128, 1, 28, 28), torch.randint(0, 10, (128,))
    if channels_last:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def one() -> float:
        for _ in range(CONV_STEPS):
            adam.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            adam.step()
        return math.nan

    one.steps = CONV_STEPS  # type: ignore[attr-defined]
    return one


def torch_conv() -> Round:
    """PyTorch in its default layout."""
    return _torch_conv(channels_last=False)


def torch_conv_channels_last() -> Round:
    """PyTorch with channels last, in memory alone."""
    return _torch_conv(channels_last=True)


# The machine

PEAK_SIZE = 2048


def matrix_product() -> Round:
    """What the machine can: a product of two float32 matrices by NumPy's BLAS."""
    import numpy as np

    a, b = np.random.default_rng(0).standard_normal((2, PEAK_SIZE, PEAK_SIZE), np.float32)

    def one() -> float:
        np.matmul(a, b)
        return math.nan

    return one


CONTESTANTS: dict[str, Callable[[], Round]] = {
    function.__name__: function
    for function in (
        nnjax_run, torch_run, sklearn_run, flax_usual_run, flax_tuned_run, nnjax_sweep, torch_sweep, sklearn_sweep,
        torch_vmap_sweep, nnjax_conv, plain_conv, torch_conv, torch_conv_channels_last, matrix_product,
    )
}  # fmt: skip


def main(name: str, cores: int) -> None:
    """Prepare, and run a round for every line of input."""
    import numpy  # noqa: F401, whose threads are limited
    import threadpoolctl

    from tests.benchmarks import pictures, recurrence

    threadpoolctl.threadpool_limits(cores)
    if name.startswith("torch"):
        import torch

        torch.set_num_threads(cores)
    begin = time.perf_counter()
    one = (CONTESTANTS | pictures.CONTESTANTS | recurrence.CONTESTANTS)[name]()
    one()
    first = time.perf_counter() - begin
    print(json.dumps({"compile": first}), flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        accuracy = one()
        seconds = time.perf_counter() - begin
        # A sweep plans, traces and compiles its program anew in each call: that is told apart.
        compiling = getattr(one, "compile", 0.0)
        used = (seconds - compiling) / getattr(one, "steps", 1)
        print(json.dumps({"seconds": used, "compile": compiling, "accuracy": accuracy}), flush=True)


if __name__ == "__main__":
    some = sorted(os.sched_getaffinity(0))[: int(sys.argv[2])]
    os.sched_setaffinity(0, some)
    main(sys.argv[1], len(some))
