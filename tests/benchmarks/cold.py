"""Contestants of the cold start: one whole training run in a fresh process, from the interpreter's start to its end.

`python -m tests.benchmarks.cold NAME DIGITS` trains the net of `tests.benchmarks.contestants` on the digits in a
``.npz`` file (so that nobody waits for the data) and prints a line of JSON: seconds by stage as this process saw them,
and the accuracy.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BEGIN = time.perf_counter()
STAGES: dict[str, float] = {}


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Its seconds go to ``STAGES``."""
    begin = time.perf_counter()
    yield
    STAGES[name] = STAGES.get(name, 0.0) + time.perf_counter() - begin


def import_jax(digits: tuple[Any, Any]) -> float:
    """Nothing but jax, from which the rest counts."""
    with stage("import"):
        import jax  # noqa: F401
    return 1.0


def nnjax_cold(digits: tuple[Any, Any]) -> float:
    """`nnjax.train` as in the benchmark of one training run; its program may lie in the compilation cache."""
    with stage("import jax"):
        import jax
    with stage("import the rest"):
        from nnjax import losses, models, train  # noqa: F401
    from tests.benchmarks import contestants

    with stage("start jax"):
        contestants.digits = lambda: digits
        made, data = contestants._nnjax_training(contestants.EPOCHS)
        program = jax.jit(lambda key, rate, data: made(key, {"learning_rate": rate}, data).history["train_error"][-1])
        key = jax.random.key(0)
    with stage("trace"):
        traced = program.trace(key, contestants.RATE, data)
    with stage("lower"):
        lowered = traced.lower()
    with stage("compile or load"):
        compiled = lowered.compile()
    with stage("run"):
        error = float(compiled(key, contestants.RATE, data))
    return 1 - error


def torch_cold(digits: tuple[Any, Any]) -> float:
    """PyTorch."""
    with stage("import"):
        import torch
    from tests.benchmarks import contestants

    contestants.digits = lambda: digits
    torch.set_num_threads(1)
    with stage("run"):
        return contestants._torch_train(contestants.EPOCHS, contestants.RATE, 0)


def sklearn_cold(digits: tuple[Any, Any]) -> float:
    """scikit-learn."""
    with stage("import"):
        import sklearn.neural_network  # noqa: F401
    from tests.benchmarks import contestants

    contestants.digits = lambda: digits
    with stage("run"):
        return contestants._sklearn_train(contestants.EPOCHS, contestants.RATE, 0)


CONTESTANTS = {"nnjax": nnjax_cold, "import jax": import_jax, "torch": torch_cold, "sklearn": sklearn_cold}


def main(name: str, path: str) -> None:
    """One run."""
    with stage("import numpy, load data"):
        import numpy as np

        with np.load(path) as held:
            digits = held["x"], held["y"]
    accuracy = CONTESTANTS[name](digits)
    print(json.dumps({"accuracy": accuracy, "seconds": time.perf_counter() - BEGIN, "stages": STAGES}), flush=True)


if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    main(sys.argv[1], sys.argv[2])
