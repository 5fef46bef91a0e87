"""Contestants of training nets for pictures: steps of LeNet and of the residual net of depth 20, PyTorch's beside ours.

Both nets are written out in PyTorch as they are here: the same layers, sizes, padding, loss and optimizer (SGD with
momentum), no augmentation. Ours run inside one compiled scan, as `nnjax.train` does. See `tests.benchmarks.training`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Round = Callable[[], float]

BATCH = 128
STEPS = {"lenet": 5, "resnet20": 2}
"""Steps a round."""
SHAPES = {"lenet": (28, 28, 1), "resnet20": (32, 32, 3)}


def _resnet_products() -> int:
    """FLOP of a forward pass of one picture: two a multiplication in convolutions and logits."""
    products, side, before = 32 * 32 * 9 * 3 * 16, 32, 16
    for stage, width in enumerate((16, 32, 64)):
        side = 32 // 2**stage
        for _ in range(3):
            products += side * side * 9 * (before * width + width * width)
            before = width
    return 2 * (products + 640)


_LENET_FIRST = 2 * 24 * 24 * 25 * 20
_RESNET_FIRST = 2 * 32 * 32 * 27 * 16
_LENET = _LENET_FIRST + 2 * (8 * 8 * 25 * 20 * 50 + 800 * 500 + 5000)
FLOP = {"lenet": BATCH * (3 * _LENET - _LENET_FIRST), "resnet20": BATCH * (3 * _resnet_products() - _RESNET_FIRST)}
"""Of a step: forward and both gradients; the first layer's input has none."""


def _ours(name: str) -> Round:
    import jax
    import optax

    from nnjax import losses, models, train

    model = models.LeNet(dropout=0.0) if name == "lenet" else models.CifarResNet()
    steps = STEPS[name]
    x = jax.random.normal(jax.random.key(1), (steps * BATCH, *SHAPES[name]))
    y = jax.random.randint(jax.random.key(2), (steps * BATCH,), 0, 10)
    config = train.Config(steps=steps, batch_size=BATCH, shuffle=False, evaluation_batch=BATCH)
    # What is evaluated is one batch: the steps are what counts.
    made = train.make_train(models.network(model), losses.cross_entropy, lambda _: optax.sgd(0.01, 0.9), config)
    data = {"train": (x, y)}
    start = jax.jit(made.start)(jax.random.key(0), None, data)

    def steps_alone(state: Any, data: Any) -> Any:
        schedule = made._schedule(data)
        return jax.lax.scan(
            lambda s, _: (made._update(s, None, data, schedule), None), state, length=steps
        )[0].params  # fmt: skip

    program = jax.jit(steps_alone)

    def one() -> float:
        jax.block_until_ready(program(start, data))
        return math.nan

    one.steps = steps  # type: ignore[attr-defined]
    return one


def _torch_net(name: str) -> Any:
    import torch
    from torch import nn

    if name == "lenet":
        return nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
        )  # fmt: skip

    class Block(nn.Module):
        """Two convolutions around a shortcut that drops pixels and adds channels of zeros."""

        def __init__(self, before: int, width: int):
            super().__init__()
            self.step, self.more = (1 if before == width else 2), width - before
            self.first = nn.Conv2d(before, width, 3, self.step, 1, bias=False)
            self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])

        def forward(self, x: Any) -> Any:
            y = self.norms[1](self.second(torch.relu(self.norms[0](self.first(x)))))
            x = nn.functional.pad(x[:, :, :: self.step, :: self.step], (0, 0, 0, 0, 0, self.more))
            return torch.relu(x + y)

    blocks = [Block(a, b) for a, b in zip((16, 16, 16, 16, 32, 32, 32, 64, 64), (16,) * 3 + (32,) * 3 + (64,) * 3,
                                          strict=True)]  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def _torch(name: str, channels_last: bool) -> Round:
    import torch

    torch.manual_seed(0)
    net, steps = _torch_net(name), STEPS[name]
    height, width, channels = SHAPES[name]
    x, y = torch.randn(BATCH, channels, height, width), torch.randint(0, 10, (BATCH,))
    if channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(net.parameters(), 0.01, 0.9)

    def one() -> float:
        for _ in range(steps):
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            sgd.step()
        return math.nan

    one.steps = steps  # type: ignore[attr-defined]
    return one


CONTESTANTS: dict[str, Callable[[], Round]] = {
    made: function
    for name in STEPS
    for made, function in (
        (f"nnjax_{name}", lambda name=name: _ours(name)),
        (f"torch_{name}", lambda name=name: _torch(name, False)),
        (f"torch_{name}_channels_last", lambda name=name: _torch(name, True)),
    )
}
