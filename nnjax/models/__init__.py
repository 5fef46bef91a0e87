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
    from nnjax.models.resnet import (
        BasicBlock,
        BottleneckBlock,
        CifarResNet,
        PreActivationBlock,
        ResNet,
        ResNet18k,
    )
    from nnjax.models.signals import LayerStatistics, Signals, layer_signals, layer_statistics
    from nnjax.models.vgg import VGG

__all__ = [
    "MLP",
    "VGG",
    "BasicBlock",
    "BottleneckBlock",
    "CifarResNet",
    "DeepCNN",
    "DeepMLP",
    "DepthwiseConv",
    "Layer",
    "LayerStatistics",
    "LeNet",
    "MicrometeoriteCNN",
    "MobileNet",
    "PreActivationBlock",
    "Pretrained",
    "ResNet",
    "ResNet18k",
    "Signals",
    "SmallCNN",
    "Summary",
    "apply",
    "autoencode",
    "depthwise",
    "init",
    "layer_signals",
    "layer_statistics",
    "lsuv",
    "network",
    "padded_mlp",
    "summary",
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
    "resnet": ("BasicBlock", "BottleneckBlock", "CifarResNet", "PreActivationBlock", "ResNet", "ResNet18k"),
    "signals": ("LayerStatistics", "Signals", "layer_signals", "layer_statistics"),
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
