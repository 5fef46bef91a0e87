"""What can one threshold unit learn, what takes a second layer: from logic gates to the Mark I and the echo canceller.

Panels
  gates        Every gate by fixed weights and by learning; decision lines; delta-rule traces. Exact, no seeds.
  functions_n  A perceptron on all Boolean functions of n inputs: how many converge, after how many updates.
  hidden       XOR by nets with a hidden layer and gradient descent: the share of random starts that solve it.
  mark1        Random association units on 20 x 20 pictures, trained response units; against the pixels themselves.
  pixels       Linear classifiers on the same pictures, and their templates.
  echo         ADALINE as an echo canceller, LMS and normalized LMS, against the theory of the settled error.
  oja, sanger  Hebbian units on digits against principal components and Oja's differential equation.

Falsifiable checks, fixed before the runs. The perceptron converges on exactly as many functions as are known to be
linearly separable (4, 14, 104, 1882), within the bound (R / gamma)^2, and its weights run in circles on all others,
which proves that it never will. XOR is reported as not converged; a net with a hidden layer solves it from more than
half of its starts. 512 association units are better than 64. The settled echo is within 0.5 dB of theory at each
learning rate; Oja's unit follows its flow within 0.005 of the total variance and ends within 2 % of the first
component's. Set after first runs: the tolerances of Hebb's growth (5 %), of the variance that Sanger's units explain
(1 %), and of the echo enhancement reached at the smallest rate (1 dB).

What is random: a seed draws the start of a hidden layer, the Mark I's wiring and order of pictures, the echo path and
both speakers, the Hebbian start and order. Units are nested: a machine of 64 association units is part of that of 512.
XOR counts as solved where each output is within 0.4 of its target, in units of the targets' range.

Deviations from the Mark I: ten response units in place of eight, digits in place of letters and shapes, gray
photocells, and the connections of an association unit are drawn without regard to neighborhoods.

Sources: McCulloch and Pitts (1943); Rosenblatt (1958); Novikoff (1962); Minsky and Papert (1969); Muroga (1971) for the
counts; Widrow and Hoff (1960); Feuer and Weinstein (1985); Hebb (1949); Oja (1982); Sanger (1989).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np

from experiments import command
from experiments._logic_gates_figures import plot
from experiments._logic_gates_lanes import (
    ACTIVATIONS,
    echo_lane,
    echo_theory,
    functions_lane,
    gate_tables,
    hidden_lane,
    mark1_lane,
    oja_lane,
    pixels_lane,
    sanger_lane,
    spanned,
    synthesized,
    truth_tables,
    update_bounds,
)
from experiments._logic_gates_report import report
from nnjax.classical.mcculloch_pitts import GATES
from nnjax.data import load, stratified_split
from nnjax.sweep import sweep
from nnjax.train import log_spaced_steps
from nnjax.types import Key

if TYPE_CHECKING:
    import xarray as xr

    from nnjax.monitor import Monitor
    from nnjax.sweep import Store

__all__ = ["PRESETS", "Config", "main", "plot", "report", "run", "sweeps"]

_PICTURES = ("digits", "mnist", "fashion_mnist")
_SIDE = 20
_BLOCK = 256
"""Functions learned side by side in one lane."""


@dataclass(frozen=True)
class Config:
    """What is studied."""

    seed: int = 0
    """Seed of everything."""
    functions_inputs: tuple[int, ...] = (1, 2, 3, 4)
    """Numbers of inputs n whose 2^(2^n) Boolean functions are all learned, at most 4."""
    functions_epochs: int = 60
    """Epochs that the perceptron gets for a function; of four inputs the longest takes 38."""
    hidden_activations: tuple[str, ...] = ("logistic", "tanh")
    """Activations of the nets with a hidden layer: logistic, tanh."""
    hidden_units: tuple[int, ...] = (2, 4)
    """Hidden units."""
    hidden_rates: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)
    """Learning rates of the hidden panel; its report looks at `hidden_rate`."""
    hidden_rate: float = 0.5
    """Learning rate at which the nets are compared."""
    hidden_seeds: int = 200
    """Random starts of each net."""
    hidden_steps: int = 10_000
    """Steps of gradient descent."""
    mark1_data: str = "digits"
    """Pictures for the Mark I, scaled to 20 x 20: digits, mnist, fashion_mnist."""
    mark1_n: int = 1400
    """Training pictures."""
    mark1_units: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Association units."""
    mark1_connections: int = 30
    """Photocells that an association unit is wired to, half of them inhibitory."""
    mark1_threshold: float = 1.0
    """Threshold of the association units, in units of a white photocell."""
    mark1_seeds: int = 20
    """Machines of each size."""
    mark1_epochs: int = 15
    """Times that all pictures are shown."""
    echo_seeds: int = 20
    """Telephone lines."""
    echo_taps: int = 64
    """Samples that the echo lasts."""
    echo_samples: int = 24_000
    """Length of the call; at 8 kHz, 3 s."""
    echo_noise: float = 1e-3
    """Power of the near-end noise; the far end's is 1."""
    echo_rates: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)
    """Learning rates in units of the power over all taps, below 2."""
    oja_seeds: int = 20
    """Starts of the Hebbian units."""
    oja_rate: float = 0.003
    """Learning rate of the Hebbian units."""
    oja_patterns: int = 43_200
    """Pictures shown to the Hebbian unit."""
    sanger_units: int = 8
    """Units of the panel on Sanger's rule."""
    sanger_epochs: int = 100
    """Times that all pictures are shown to them."""

    def __post_init__(self) -> None:
        """Refuse what cannot be studied, in one sentence that names the field."""
        command.check_numbers(self, _LEAST)
        if self.functions_inputs[-1] > 4:
            raise ValueError(
                f"functions_inputs={self.functions_inputs} must be at most 4: 5 inputs have 2^32 functions"
            )
        if not self.hidden_activations or len(set(self.hidden_activations)) < len(self.hidden_activations):
            raise ValueError(f"hidden_activations={self.hidden_activations} must name at least one, each once")
        for name in self.hidden_activations:
            if name not in ACTIVATIONS:
                raise ValueError(f"hidden_activations={name!r} must be among {', '.join(ACTIVATIONS)}")
        if self.hidden_rate not in self.hidden_rates:
            raise ValueError(f"hidden_rate={self.hidden_rate} must be among hidden_rates={self.hidden_rates}")
        if self.mark1_data not in _PICTURES:
            raise ValueError(f"mark1_data={self.mark1_data!r} must be among {', '.join(_PICTURES)}")
        if len(self.mark1_units) < 2:
            raise ValueError(f"mark1_units={self.mark1_units} needs at least two sizes to compare")
        if self.mark1_connections > _SIDE**2:
            raise ValueError(f"mark1_connections={self.mark1_connections} must be at most {_SIDE**2}, the photocells")
        if self.echo_rates[-1] >= 2:
            raise ValueError(f"echo_rates={self.echo_rates} must be below 2, where the filter bursts")
        if self.echo_samples < 100 * self.echo_taps:
            raise ValueError(
                f"echo_samples={self.echo_samples} must be at least 100 echo_taps={self.echo_taps}, or nothing settles"
            )


_LEAST: dict[str, float] = {
    "seed": 0, "functions_inputs": 1, "functions_epochs": 1, "hidden_units": 1, "hidden_rates": 1e-6,
    "hidden_seeds": 2, "hidden_steps": 10, "mark1_n": 100, "mark1_units": 1, "mark1_connections": 2,
    "mark1_threshold": 0, "mark1_seeds": 2, "mark1_epochs": 1, "echo_seeds": 2, "echo_taps": 1, "echo_samples": 300,
    "echo_noise": 1e-9, "echo_rates": 1e-3, "oja_seeds": 2, "oja_rate": 1e-6, "oja_patterns": 300,
    "sanger_units": 1, "sanger_epochs": 1,
}  # fmt: skip

_QUICK = Config()
PRESETS = {
    "quick": _QUICK,
    "standard": replace(
        _QUICK,
        hidden_seeds=1000,
        hidden_steps=100_000,
        mark1_data="mnist",
        mark1_n=10_000,
        mark1_units=(32, 64, 128, 256, 512, 1024, 2048),
        echo_seeds=100,
        oja_seeds=100,
    ),
    "full": replace(
        _QUICK,
        hidden_seeds=10_000,
        hidden_steps=100_000,
        mark1_data="mnist",
        mark1_n=60_000,
        mark1_units=(32, 64, 128, 256, 512, 1024, 2048, 4096),
        mark1_epochs=30,
        echo_seeds=400,
        oja_seeds=400,
    ),
}


# Data and sweeps


def _retina(config: Config) -> dict[str, np.ndarray]:
    """Pictures scaled to 20 x 20 and flattened, float32 in [0, 1]."""
    dataset = load(config.mark1_data)
    if config.mark1_n > len(dataset.train.x):
        raise command.BadInput(
            f"mark1_n={config.mark1_n} is more than the {len(dataset.train.x)} training pictures of {config.mark1_data}"
        )
    (chosen,) = stratified_split(dataset.train.y, [config.mark1_n], seed=config.seed)

    def scaled(x: np.ndarray) -> np.ndarray:
        return np.asarray(jax.image.resize(x, (len(x), _SIDE, _SIDE, 1), "linear")).reshape(len(x), -1)

    return {
        "x_train": scaled(np.asarray(dataset.train.x)[chosen]), "y_train": np.asarray(dataset.train.y)[chosen],
        "x_test": scaled(np.asarray(dataset.test.x)), "y_test": np.asarray(dataset.test.y),
        "classes": np.arange(len(dataset.class_names), dtype=np.int32),
    }  # fmt: skip


def _centered_digits() -> dict[str, np.ndarray]:
    x = np.asarray(load("digits").train.x, np.float64).reshape(-1, 64)
    x -= x.mean(axis=0)
    return {"x": x, "covariance": x.T @ x / len(x)}


def _wide(lanes: int) -> int | None:
    """Lanes side by side for tiny nets, whose steps cost the same for one as for a hundred."""
    return lanes if jax.default_backend() == "cpu" else None


def _function_sweeps(config: Config, key: Key) -> dict[str, partial]:
    found = {}
    for n in config.functions_inputs:
        size = min(2 ** (2**n), _BLOCK)
        found[f"functions_{n}"] = partial(
            sweep,
            partial(functions_lane, inputs=n, size=size, epochs=config.functions_epochs),
            {"block": range(2 ** (2**n) // size)},
            key=key,
            name=f"functions_{n}",
            width=_wide(8),
            dims=dict.fromkeys(("converged", "repeats", "epochs", "updates"), ("function",)),
        )
    return found


def _hidden_sweep(config: Config, key: Key) -> partial:
    marks = log_spaced_steps(config.hidden_steps, 30, first=10)
    return partial(
        sweep,
        partial(hidden_lane, most=config.hidden_units[-1], steps=config.hidden_steps, marks=marks),
        {
            "activation": config.hidden_activations,
            "units": config.hidden_units,
            "rate": config.hidden_rates,
            "seed": range(config.hidden_seeds),
        },
        key=key,
        name="hidden",
        static=("activation",),
        padded="units",
        width=_wide(100),
        dims={"worst": ("step",), "hidden": ("input", "unit"), "output": ("weight",)},
        coords={"step": list(marks)},
    )


def _picture_sweeps(config: Config, key: Key) -> dict[str, partial]:
    data = _retina(config)
    mark1 = partial(
        sweep,
        partial(
            mark1_lane, connections=config.mark1_connections, threshold=config.mark1_threshold,
            epochs=config.mark1_epochs,
        ),
        {"units": config.mark1_units, "seed": range(config.mark1_seeds)},
        key=key,
        data=data,
        name="mark1",
        padded="units",
        dims=dict.fromkeys(("train_error", "test_error"), ("epoch",)),
        coords={"epoch": list(range(1, config.mark1_epochs + 1))},
    )  # fmt: skip
    pixels = partial(
        sweep,
        partial(pixels_lane, epochs=config.mark1_epochs),
        {"rule": ("perceptron", "softmax"), "seed": range(config.mark1_seeds)},
        key=key,
        data=data,
        name="pixels",
        static=("rule",),
        dims={"templates": ("class", "pixel")},
    )
    return {"mark1": mark1, "pixels": pixels}


def _echo_sweep(config: Config, key: Key) -> partial:
    window = config.echo_samples // 60
    return partial(
        sweep,
        partial(echo_lane, taps=config.echo_taps, samples=config.echo_samples, noise=config.echo_noise, window=window),
        {"rule": ("lms", "nlms"), "rate": config.echo_rates, "seed": range(config.echo_seeds)},
        key=key,
        name="echo",
        static=("rule",),
        dims={"erle": ("sample",)},
        coords={"sample": [window * (i + 1) for i in range(config.echo_samples // window)]},
    )


def _hebbian_sweeps(config: Config, key: Key) -> dict[str, partial]:
    data = _centered_digits()
    block = config.oja_patterns // 300
    curves = dict.fromkeys(("hebb_length", "oja_length", "explained", "theory"), ("pattern",))
    oja = partial(
        sweep,
        partial(oja_lane, rate=config.oja_rate, block=block, blocks=300),
        {"seed": range(config.oja_seeds)},
        key=key,
        data=data,
        name="oja",
        float64=True,
        dims=curves,
        coords={"pattern": [block * (i + 1) for i in range(300)]},
    )
    sanger = partial(
        sweep,
        partial(sanger_lane, units=config.sanger_units, rate=config.oja_rate, epochs=config.sanger_epochs),
        {"seed": range(config.oja_seeds)},
        key=key,
        data={name: value.astype(np.float32) for name, value in data.items()},
        name="sanger",
        dims={"components": ("unit", "pixel")},
        coords={"unit": list(range(1, config.sanger_units + 1))},
    )
    return {"oja": oja, "sanger": sanger}


def sweeps(config: Config) -> dict[str, partial]:
    """Every swept panel, ready to be called (or planned)."""
    keys = jax.random.split(jax.random.key(config.seed), 5)
    return {
        **_function_sweeps(config, keys[0]),
        "hidden": _hidden_sweep(config, keys[1]),
        **_picture_sweeps(config, keys[2]),
        "echo": _echo_sweep(config, keys[3]),
        **_hebbian_sweeps(config, keys[4]),
    }


def run(config: Config, *, store: Callable[[str], Store] | None = None, monitor: Monitor | None = None) -> xr.DataTree:
    """Compute every panel; ``store(name)`` keeps a panel's finished chunks. Returns a group a panel."""
    import xarray as xr

    groups = {"gates": xr.Dataset(gate_tables(), {"gate": list(GATES)})}
    groups["gates"].attrs |= {"synthesized": synthesized(3), "functions": 2 ** (2**3)}
    for name, call in sweeps(config).items():
        groups[name] = call(store=store(name) if store else None, monitor=monitor)
    for n in config.functions_inputs:
        groups[f"functions_{n}"] = _with_bounds(groups[f"functions_{n}"], n)
    groups["hidden"].attrs["rate"] = config.hidden_rate
    for name in ("mark1", "pixels"):
        groups[name].attrs |= {"data": config.mark1_data, "n": config.mark1_n}
    groups["echo"] = groups["echo"].assign(
        theory=(("rule", "rate"), echo_theory(np.array(config.echo_rates), config.echo_taps))
    )
    groups["echo"].attrs |= {"noise": config.echo_noise, "taps": config.echo_taps}
    covariance = _centered_digits()["covariance"]
    values = np.linalg.eigvalsh(covariance)[::-1]
    shares = np.cumsum(values) / values.sum()
    groups["oja"].attrs |= {"rate": config.oja_rate, "largest": values[0], "first": shares[0]}
    share = spanned(groups["sanger"]["components"].values, covariance)
    groups["sanger"] = groups["sanger"].assign(
        explained=(("seed", "unit"), share), pca=("unit", shares[: config.sanger_units])
    )
    return xr.DataTree.from_dict(groups, name="logic_gates")


def _with_bounds(found: xr.Dataset, inputs: int) -> xr.Dataset:
    """One axis of functions, and Novikoff's bound of those that converged; infinite for the others."""
    import xarray as xr

    names = ("converged", "repeats", "epochs", "updates")
    flat = xr.Dataset({name: ("number", found[name].values.reshape(-1)) for name in names}, attrs=found.attrs)
    separable = np.flatnonzero(flat["converged"].values)
    bounds = np.full(flat.sizes["number"], np.inf)
    bounds[separable] = update_bounds(truth_tables(separable, inputs), inputs)
    return flat.assign(bound=("number", bounds))


def main(argv: list[str] | None = None) -> int:
    """The command line: see ``--help``."""
    return command.main("experiments.logic_gates", argv)


if __name__ == "__main__":
    sys.exit(main())
