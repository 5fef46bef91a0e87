"""Flax Linen modules trained by `nnjax.train`, one family a file; `linen` holds the seam."""

from nnjax.models.cnn import SmallCNN
from nnjax.models.data_dependent import lsuv
from nnjax.models.deep import DeepCNN, DeepMLP
from nnjax.models.linen import Layer, Summary, apply, init, network, summary
from nnjax.models.mlp import MLP, padded_mlp
from nnjax.models.pretraining import Pretrained, autoencode
from nnjax.models.resnet import PreActivationBlock, ResNet18k
from nnjax.models.signals import LayerStatistics, Signals, layer_signals, layer_statistics

__all__ = [
    "MLP",
    "DeepCNN",
    "DeepMLP",
    "Layer",
    "LayerStatistics",
    "PreActivationBlock",
    "Pretrained",
    "ResNet18k",
    "Signals",
    "SmallCNN",
    "Summary",
    "apply",
    "autoencode",
    "init",
    "layer_signals",
    "layer_statistics",
    "lsuv",
    "network",
    "padded_mlp",
    "summary",
]
