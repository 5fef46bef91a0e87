"""Training runs: pure ones, compiled whole (`make_train`), and on the host with checkpoints (`fit`, `fit_stream`)."""

from nnjax.saved import Saved, load, save
from nnjax.train.fitting import fit, fit_stream, of_bytes
from nnjax.train.run import (
    Augment,
    Best,
    Config,
    Network,
    PerExample,
    Result,
    State,
    Train,
    balanced_class_weights,
    log_spaced_steps,
    make_train,
    order_key,
    predict,
)

__all__ = [
    "Augment",
    "Best",
    "Config",
    "Network",
    "PerExample",
    "Result",
    "Saved",
    "State",
    "Train",
    "balanced_class_weights",
    "fit",
    "fit_stream",
    "load",
    "log_spaced_steps",
    "make_train",
    "of_bytes",
    "order_key",
    "predict",
    "save",
]
