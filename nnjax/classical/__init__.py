"""Learners with their own update rule or closed-form solve, one a file; all are pure functions.

They load on first use: ``nnjax.classical.perceptron.step(...)``.
"""

import importlib
from types import ModuleType

__all__ = [
    "adaline",
    "back_percolation",
    "backpropagation",
    "hebb",
    "least_squares",
    "linear_classifier",
    "linear_regression",
    "logistic_regression",
    "mcculloch_pitts",
    "perceptron",
    "random_features",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"nnjax.classical.{name}")
    raise AttributeError(f"module 'nnjax.classical' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
