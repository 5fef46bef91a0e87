"""Tasks of a search: simulations to steer, examples to classify or fit, and environments of Gymnasium."""

from __future__ import annotations

import importlib
from typing import Any

from nnjax.naming import choose, with_options
from nnjax.wann.tasks.acrobot import Acrobot
from nnjax.wann.tasks.boolean import Boolean, parity, xor
from nnjax.wann.tasks.pendulum import Pendulum
from nnjax.wann.tasks.regression import Regression
from nnjax.wann.tasks.swing_up import SwingUp
from nnjax.wann.tasks.task import Task, check_task, differentiable

_MAKERS = {
    "swing_up": "swing_up:SwingUp",
    "pendulum": "pendulum:Pendulum",
    "acrobot": "acrobot:Acrobot",
    "xor": "boolean:xor",
    "parity": "boolean:parity",
    "boolean": "boolean:Boolean",
    "regression": "regression:Regression",
    "digits": "classification:digits",
    "mnist16": "mnist:mnist16",
    "biped": "gym:biped",
    "racer": "gym:racer",
}
NAMES = tuple(_MAKERS)
"""Every name `by_name` knows."""


def by_name(name: str, **options: Any) -> Any:
    """A task by its name; the data that belong to it are loaded now.

    | name | task | options |
    |---|---|---|
    | swing_up | `SwingUp` | steps, params |
    | pendulum | `Pendulum` | steps, params |
    | acrobot | `Acrobot` | steps, discrete, params |
    | xor | `Boolean` | |
    | parity | `Boolean` | bits |
    | boolean | `Boolean` | table, which it needs |
    | regression | `Regression` | function, size, params |
    | digits | `classification.Classification` | batch_size, validation |
    | mnist16 | `classification.Classification` | batch_size, validation, cache |
    | biped | `gym.GymTask`, needs the extra ``rl`` | hardcore, penalty, steps |
    | racer | `gym.GymTask`, needs the extra ``rl`` | latents, inputs, steps |

    Raises:
      ValueError: an unknown name or option; the nearest is suggested.
      nnjax.data.DataError: mnist16, where a file is missing and cannot be downloaded.
    """
    module, maker = choose("task", name, _MAKERS).split(":")
    make = getattr(importlib.import_module(f"{__name__}.{module}"), maker)
    if name == "boolean" and "table" not in options:
        raise ValueError("task 'boolean' needs its table, (0, 1, 1, 0) for XOR")
    return with_options("task", name, make, options)


__all__ = [
    "NAMES",
    "Acrobot",
    "Boolean",
    "Pendulum",
    "Regression",
    "SwingUp",
    "Task",
    "by_name",
    "check_task",
    "differentiable",
    "parity",
    "xor",
]
