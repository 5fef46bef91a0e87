"""Flax Linen modules trained by `nnjax.train`, one family a file; `linen` holds the seam.

A name loads its file when it is first used, so that `MLP` does not wait for the residual nets.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnjax.models.cnn import SmallCNN
    from nnjax.models.data_dependent import lsuv
    from nnjax.models.deep import DeepCNN, DeepMLP
    from nnjax.models.lenet import LeNet
    from nnjax.models.linen import Layer, Summary, apply, init, network, summary
    from nnjax.models.micrometeorite import MicrometeoriteCNN
    from nnjax.models.mlp import MLP, padded_mlp
    from nnjax.models.mobilenet import DepthwiseConv, MobileNet, depthwise
    from nnjax.models.pretraining import Pretrained, autoencode
    from nnjax.models.recurrent import GRU, LSTM, RNN, Bidirectional, Stacked
    from nnjax.models.resnet import (
        BasicBlock,
        BottleneckBlock,
        CifarResNet,
        PreActivationBlock,
        ResNet,
        ResNet18k,
    )
    from nnjax.models.sequences import (
        RNNClassifier,
        RNNForecaster,
        SequenceGenerator,
        SequenceTagger,
        continued,
        generate,
    )
    from nnjax.models.signals import LayerStatistics, Signals, layer_signals, layer_statistics
    from nnjax.models.translation import EncoderDecoder, Joined, Translation, translate
    from nnjax.models.vgg import VGG

__all__ = [
    "GRU",
    "LSTM",
    "MLP",
    "RNN",
    "VGG",
    "BasicBlock",
    "Bidirectional",
    "BottleneckBlock",
    "CifarResNet",
    "DeepCNN",
    "DeepMLP",
    "DepthwiseConv",
    "EncoderDecoder",
    "Joined",
    "Layer",
    "LayerStatistics",
    "LeNet",
    "MicrometeoriteCNN",
    "MobileNet",
    "PreActivationBlock",
    "Pretrained",
    "RNNClassifier",
    "RNNForecaster",
    "ResNet",
    "ResNet18k",
    "SequenceGenerator",
    "SequenceTagger",
    "Signals",
    "SmallCNN",
    "Stacked",
    "Summary",
    "Translation",
    "apply",
    "autoencode",
    "continued",
    "depthwise",
    "generate",
    "init",
    "layer_signals",
    "layer_statistics",
    "lsuv",
    "network",
    "padded_mlp",
    "summary",
    "translate",
]

_FILES = {
    "cnn": ("SmallCNN",),
    "data_dependent": ("lsuv",),
    "deep": ("DeepCNN", "DeepMLP"),
    "lenet": ("LeNet",),
    "linen": ("Layer", "Summary", "apply", "init", "network", "summary"),
    "micrometeorite": ("MicrometeoriteCNN",),
    "mlp": ("MLP", "padded_mlp"),
    "mobilenet": ("DepthwiseConv", "MobileNet", "depthwise"),
    "parts": (),
    "pretraining": ("Pretrained", "autoencode"),
    "recurrent": ("GRU", "LSTM", "RNN", "Bidirectional", "Stacked"),
    "resnet": ("BasicBlock", "BottleneckBlock", "CifarResNet", "PreActivationBlock", "ResNet", "ResNet18k"),
    "sequences": (
        "RNNClassifier",
        "RNNForecaster",
        "SequenceGenerator",
        "SequenceTagger",
        "continued",
        "generate",
    ),
    "signals": ("LayerStatistics", "Signals", "layer_signals", "layer_statistics"),
    "tokens": (),
    "translation": ("EncoderDecoder", "Joined", "Translation", "translate"),
    "vgg": ("VGG",),
    "watch": (),
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return importlib.import_module(f"nnjax.models.{name}")
    if name not in _FILE_OF:
        raise AttributeError(f"module 'nnjax.models' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"nnjax.models.{_FILE_OF[name]}"), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FILES, *_FILE_OF})
