"""nnjax: a JAX functional research toolkit for neural networks.

Submodules load on first use (`nnjax.train`, `nnjax.sweep`, ...), so that ``import nnjax`` itself costs
nothing: neither xarray nor matplotlib nor scikit-learn is imported before it is needed.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

_SUBMODULES = (
    "activations",
    "attribution",
    "batches",
    "chunks",
    "classical",
    "cluster",
    "conv",
    "data",
    "estimate",
    "hosts",
    "initializers",
    "losses",
    "metrics",
    "models",
    "monitor",
    "naming",
    "optimizers",
    "plans",
    "plotting",
    "recurrent",
    "regularizers",
    "report",
    "results",
    "saved",
    "schedules",
    "search",
    "statistics",
    "sweep",
    "theory",
    "train",
    "transfer",
    "types",
    "wann",
)


def __getattr__(name: str) -> ModuleType:
    if name in _SUBMODULES:
        return importlib.import_module(f"nnjax.{name}")
    raise AttributeError(f"module 'nnjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES})
