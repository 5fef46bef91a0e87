"""Initialisation: why depth kills some starts and not others, with mean-field theory over simulation and training.

Panels
  inputs          250 inputs of 1 into one unit: variance of the sum under N(0, 1), Xavier and He weights.
  zero            Nets that start at zero, at a constant and at random: do the units of a layer ever part?
  signals         Length and correlation of the signal, size of the gradient, saturated and dead units by layer, for
                  every scheme and activation, beside infinitely wide nets.
  histograms      Activations and back-propagated gradients layer by layer, before and after training.
  rates           Learning rates for each arm and depth, chosen by He's validation accuracy.
  training        Learning curves of ReLU nets from every start at several depths, plain SGD with momentum.
  arms            The same at one depth with Adam, batch normalization, residual connections, layer-wise pre-training
                  and a start fitted to the data (LSUV).
  cnn             Plain convolutional tanh nets from Xavier's, He's, orthogonal and delta-orthogonal starts.
  map             Training accuracy over the variance of the weights and depth, with 6 depth scales drawn in.

Depth is counted in hidden layers, the variance of a weight in units of 1/fan_in where the text says sigma_w^2.

Falsifiable checks: at depth 50 and width 128 lengths and gradients of all schemes and activations are those of mean
field within stated tolerances; the net input of 250 inputs has variance 250, 1 and 2; units that start equal stay
equal to the last bit; at 30 ReLU layers plain SGD from Xavier's start is near chance when it has learned from He's,
at 22 it learns from both, from He's earlier; with Adam Xavier's start learns at 30 layers as well; over variances on
both sides of the critical one the depth to which nets train has a rank correlation above 0.9 with 6 depth scales.
Preset quick is too short for Xavier's start at 22 layers and has too few seeds for Adam at 30: there these two are
open, and standard is where they are decided. What was settled after trial runs, and what fails, is said in the
report's rows and in the texts of the panels' own files (`experiments/_initialization_*.py`).

What is random: a seed draws weights, biases, inputs of the signals panel and the order of the examples. All starts of
one seed see the same order. Learning rates are chosen by He's validation accuracy (by that of N(0, 0.01^2) for
residual nets, where He's are lost) on seeds that are not reported. Preset quick has three seeds, a smoke test, on the
data of the pilots; standard has five, and another seed than the pilots that fixed its width and number of steps.

Deviations: He et al. (2015) trained convolutional nets of 22 and 30 layers on ImageNet; here fully connected ones on
digits. Schoenholz et al. (2017) trained nets 300 wide on MNIST at a fixed learning rate; so here, narrower and
shorter, with momentum. Xiao et al. (2018) trained up to 10,000 convolutions, wrapped around the picture's edges; here
there are 10 to 48 with zeros around, on at most 1000 pictures halved to 14 x 14. Glorot and Bengio (2010) had shapes
and photographs.

Sources: Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward neural networks; Saxe et
al. (2014), Exact solutions to the nonlinear dynamics of learning; He et al. (2015), Delving deep into rectifiers;
Mishkin and Matas (2016), All you need is a good init; Poole et al. (2016), Exponential expressivity; Schoenholz et
al. (2017), Deep information propagation; Xiao et al. (2018), Dynamical isometry and a mean field theory of CNNs;
Hanin and Nica (2020), Products of many large random matrices; Bengio et al. (2007), Ioffe and Szegedy (2015) and
Zhang, Dauphin and Ma (2019) for the arms.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax

from experiments import _initialization_map as map_panel
from experiments import _initialization_signal_figures as signal_figures
from experiments import _initialization_signal_report as signal_report
from experiments import _initialization_signals as signals
from experiments import _initialization_training as training
from experiments import _initialization_training_figures as training_figures
from experiments import _initialization_training_report as training_report
from experiments import command
from nnjax import activations, initializers
from nnjax.naming import choose

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from nnjax.monitor import Monitor
    from nnjax.results import Row
    from nnjax.sweep import Store

_DATA = ("digits", "mnist", "fashion_mnist")


@dataclass(frozen=True)
class Config:
    """What is studied."""

    seed: int = 0
    """Seed of everything."""
    input_draws: int = 20_000
    """Sets of 250 weights in the inputs panel."""
    zero_steps: int = 200
    """Updates in the zero panel."""
    signal_depth: int = 50
    """Hidden layers in the signals panel."""
    signal_width: int = 128
    """Units of each layer in the signals panel."""
    signal_inputs: int = 64
    """Inputs of a net in the signals panel."""
    signal_seeds: int = 16
    """Random nets of the signals panel."""
    bias_variance: float = 0.0
    """Variance of the biases in the signals panel."""
    activations: tuple[str, ...] = signals.ACTIVATIONS
    """Activations of the signals panel, any in nnjax.activations that work element by element."""
    schemes: tuple[str, ...] = tuple(signals.SCHEMES)
    """Starts of the signals panel."""
    histogram_depth: int = 5
    """Hidden layers in the histograms panel."""
    histogram_width: int = 100
    """Units of each layer in the histograms panel."""
    histogram_steps: int = 300
    """Updates between before and after in the histograms panel."""
    data: str = "digits"
    """Data set of everything that trains: digits, mnist, fashion_mnist."""
    train_n: int = 1000
    """Training examples."""
    validation_n: int = 400
    """Validation examples, which choose the learning rates."""
    depths: tuple[int, ...] = (5, 10, 22, 30)
    """Hidden layers in the training panel."""
    width: int = 64
    """Units of each hidden layer in the rates, training and arms panels."""
    batch_size: int = 64
    """Examples an update."""
    steps: int = 500
    """Updates in the training panel."""
    seeds: int = 3
    """Random nets of the training and arms panels."""
    selection_seeds: int = 3
    """Random nets that choose a learning rate; others than those reported."""
    rates: tuple[float, ...] = (0.001, 0.003, 0.01)
    """Learning rates to choose from, SGD with momentum."""
    adam_rates: tuple[float, ...] = (0.0003, 0.001, 0.003)
    """Learning rates to choose from, Adam."""
    arm_depth: int = 30
    """Hidden layers in the arms panel."""
    arm_steps: int = 400
    """Updates in the arms panel."""
    cnn_depth: int = 10
    """Convolutions in the cnn panel."""
    cnn_width: int = 8
    """Channels in the cnn panel."""
    cnn_steps: int = 60
    """Updates in the cnn panel."""
    cnn_seeds: int = 3
    """Random nets of the cnn panel."""
    map_activation: str = "tanh"
    """Activation of the map panel."""
    map_bias_variance: float = 0.05
    """Variance of the biases in the map panel."""
    map_variances: tuple[float, ...] = (0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)
    """Variances of the weights in the map panel, times 1/fan_in."""
    map_depths: tuple[int, ...] = (4, 6, 8, 11, 15, 20, 27, 36, 48, 64)
    """Hidden layers in the map panel."""
    map_width: int = 64
    """Units of each hidden layer in the map panel."""
    map_steps: int = 200
    """Updates in the map panel."""
    map_rate: float = 0.003
    """Learning rate in the map panel."""
    map_seeds: int = 1
    """Random nets of the map panel."""

    def __post_init__(self) -> None:
        command.check_numbers(self, _LEAST)
        if self.data not in _DATA:
            raise ValueError(f"data={self.data!r} must be among {', '.join(_DATA)}")
        for name in (self.map_activation, *self.activations):
            choose("activation", name, activations.TABLE, aliases=activations.ALIASES)
        for name in self.schemes:
            choose("scheme", name, signals.SCHEMES, aliases=initializers.ALIASES)
        for field in ("activations", "schemes"):
            names = getattr(self, field)
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{field}={names} must name at least one, each once")
        if self.batch_size >= self.train_n:
            raise ValueError(f"batch_size={self.batch_size} must be below train_n={self.train_n}")
        for name in ("map_variances", "map_depths"):
            if len(getattr(self, name)) < 2:
                raise ValueError(f"{name}={getattr(self, name)} must have at least 2 values: a map has two axes")
        for name in ("rates", "adam_rates", "map_variances"):
            if getattr(self, name)[0] <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")


_LEAST: dict[str, float] = {
    "seed": 0, "input_draws": 2, "zero_steps": 1, "signal_depth": 2, "signal_width": 2, "signal_inputs": 2,
    "signal_seeds": 2, "bias_variance": 0, "histogram_depth": 1, "histogram_width": 1, "histogram_steps": 1,
    "train_n": 2, "validation_n": 1, "depths": 1, "width": 1, "batch_size": 1, "steps": 1, "seeds": 2,
    "selection_seeds": 1, "rates": 0, "adam_rates": 0, "arm_depth": 2, "arm_steps": 1, "cnn_depth": 2, "cnn_width": 1,
    "cnn_steps": 1, "cnn_seeds": 2, "map_bias_variance": 0, "map_variances": 0, "map_depths": 1, "map_width": 1,
    "map_steps": 1, "map_rate": 0, "map_seeds": 1,
}  # fmt: skip

_QUICK = Config()
PRESETS = {
    "quick": _QUICK,
    # Another seed than the pilot's, which fixed width and number of steps on the same data set.
    "standard": replace(
        _QUICK,
        seed=1,
        signal_seeds=64,
        histogram_steps=1000,
        data="mnist",
        train_n=10_000,
        validation_n=2000,
        depths=(5, 10, 22, 30, 50),
        width=128,
        steps=2000,
        seeds=5,
        selection_seeds=2,
        rates=(0.002, 0.004, 0.008),
        adam_rates=(0.0001, 0.0003, 0.001),
        arm_steps=1000,
        cnn_depth=24,
        cnn_width=16,
        cnn_steps=150,
        cnn_seeds=5,
        map_variances=(0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 1.3, 1.5, 1.7, 1.9, 2.2, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0),
        map_depths=(4, 6, 8, 11, 15, 21, 29, 40, 54, 72, 96),
        map_steps=300,
        map_seeds=3,
    ),
    "full": replace(
        _QUICK,
        seed=1,
        signal_width=512,
        signal_seeds=64,
        histogram_steps=5000,
        data="mnist",
        train_n=50_000,
        validation_n=10_000,
        depths=(5, 10, 22, 30, 50),
        width=256,
        steps=5000,
        seeds=20,
        selection_seeds=5,
        rates=(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032),
        adam_rates=(0.00003, 0.0001, 0.0003, 0.001, 0.003),
        arm_steps=5000,
        cnn_depth=48,
        cnn_width=64,
        cnn_steps=1000,
        cnn_seeds=5,
        map_variances=(
            0.3,
            0.4,
            0.5,
            0.6,
            0.7,
            0.8,
            0.9,
            1.0,
            1.15,
            1.3,
            1.45,
            1.6,
            1.76,
            1.9,
            2.1,
            2.3,
            2.5,
            2.75,
            3.0,
            3.5,
            4.0,
            5.0,
            6.0,
            8.0,
        ),
        map_depths=(4, 6, 8, 11, 15, 21, 29, 40, 54, 72, 96, 130, 180, 240),
        map_width=300,
        map_steps=1000,
        map_rate=0.001,
        map_seeds=5,
    ),
}


def _data(config: Config) -> dict[str, Any]:
    """Flat pictures of mean square 1 over the training part, which is what theory takes inputs to have."""
    return training.examples(config, flat=True)


def _keys(config: Config) -> list[Any]:
    """Keys of the signals, training and map panels; each folds in numbers of its own."""
    key = jax.random.key(config.seed)
    return [key, jax.random.fold_in(key, 10), jax.random.fold_in(key, 11)]


def sweeps(config: Config) -> dict[str, partial]:
    """Every panel's sweep, ready to be planned; those that wait for chosen learning rates have the middle ones."""
    data, (signal_key, training_key, map_key) = _data(config), _keys(config)
    made = signals.sweeps(config, data, signal_key) | training.sweeps(config, training_key, data)
    return made | map_panel.sweeps(config, data, map_key)


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Compute every panel; ``store(name)`` keeps a panel's finished chunks. Returns a group a panel."""
    import xarray as xr

    def compute(name: str, call: partial) -> xr.Dataset:
        return call(store=store(name) if store else None, monitor=monitor)

    data, (signal_key, training_key, map_key) = _data(config), _keys(config)
    groups = {name: compute(name, call) for name, call in signals.sweeps(config, data, signal_key).items()}
    groups = signals.with_theory(groups, config)
    groups |= training.panels(config, training_key, data, compute)
    for name, call in map_panel.sweeps(config, data, map_key).items():
        groups[name] = map_panel.with_theory(compute(name, call), config)
    return xr.DataTree.from_dict(groups, name="initialization")


def plot(results: xr.DataTree) -> dict[str, Figure]:
    """Every figure of the study, by name."""
    figures = signal_figures.plot(results) | training_figures.plot(results)
    return figures | map_panel.plot(results)


def report(results: xr.DataTree) -> list[Row]:
    """Every claim of the study, each with what was measured, whether it holds or not."""
    return signal_report.rows(results) + training_report.rows(results) + map_panel.rows(results)


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.initialization", argv)


if __name__ == "__main__":
    sys.exit(main())
