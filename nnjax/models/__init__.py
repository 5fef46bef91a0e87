"""Flax Linen modules trained by `nnjax.train`, one family a file; `linen` holds the seam."""

from nnjax.models.cnn import SmallCNN
from nnjax.models.deep import DeepCNN, DeepMLP
from nnjax.models.linen import Layer, Summary, apply, init, network, summary
from nnjax.models.mlp import MLP, padded_mlp
from nnjax.models.resnet import PreActivationBlock, ResNet18k

__all__ = [
    "MLP",
    "DeepCNN",
    "DeepMLP",
    "Layer",
    "PreActivationBlock",
    "ResNet18k",
    "SmallCNN",
    "Summary",
    "apply",
    "init",
    "network",
    "padded_mlp",
    "summary",
]
