"""Pretrained nets from checked files, and the features that they compute."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnjax.data import cache as _cache
from nnjax.data.cache import DataError, SourceFile
from nnjax.models import linen
from nnjax.models.mobilenet import MobileNet
from nnjax.train import Network, predict
from nnjax.transfer.patterns import check_architecture, near
from nnjax.types import Array, PyTree


class Pretrained(NamedTuple):
    """A net with trained parameters and what it takes to use it.

    Attributes:
      model: the Linen module.
      params, stats: its parameters and running statistics, NumPy arrays.
      class_names: of its outputs, in order.
      size: rows and columns of the pictures it was trained on.
      preprocess: bytes or values in [0, 1], any shape -> what the net takes.
    """

    model: nn.Module
    params: PyTree
    stats: PyTree
    class_names: tuple[str, ...]
    size: int
    preprocess: Callable[[Array], Array]


def symmetric(x: Array) -> jax.Array:
    """Pixels as values from -1 to 1: integers from 0 to 255, or floats from 0 to 1; any shape."""
    x = jnp.asarray(x)
    return 2 * x - 1 if jnp.issubdtype(x.dtype, jnp.floating) else x / 127.5 - 1


def load_mobilenet(cache: str | os.PathLike[str] | None = None) -> Pretrained:
    """MobileNet v1 (Howard et al., 2017), alpha .75, trained on the 1000 classes of ImageNet at 224 x 224.

    Three files in the cache folder, ``imagenet-mobilenet/`` with ``mobilenet_v1_0.75_224.npz`` (the weights),
    ``model.json`` (Keras' topology) and ``metadata.json`` (class names), are checked by SHA-256 before they are parsed.
    They are those of the TensorFlow.js layers model with its weight files joined, which has no public address.

    Pictures: RGB, 224 x 224, values from -1 to 1 (`symmetric`); best the middle 224 x 224 after the shorter side was
    resized to 256, which gives the probabilities that others state for this file to three digits. The largest square in
    the middle, resized to 224, does about as well.

    Args:
      cache: folder of the data files, as for `nnjax.data.load`.

    Raises:
      DataError: a file is missing (the sentence says where to put it), or is not the file it should be.
    """
    weights, topology, metadata = (_cache.read(source, cache=cache) for source in _MOBILENET)
    layers = {
        layer["name"]: layer["config"]
        for layer in json.loads(topology)["modelTopology"]["model_config"]["config"]["layers"]
    }
    size = int(layers["input_1"]["batch_input_shape"][1])
    model = MobileNet(
        alpha=layers["conv1"]["filters"] / 32,
        classes=layers["conv_preds"]["filters"],
        dropout=layers["dropout"]["rate"],
        epsilon=layers["conv1_bn"]["epsilon"],
    )
    with np.load(io.BytesIO(weights), allow_pickle=False) as arrays:
        params, stats = _from_keras(arrays)
    try:
        check_architecture(model, params, stats, (size, size, 3))
    except ValueError as error:
        raise DataError(f"{_MOBILENET[0]} does not fit {_MOBILENET[1]}: {error}") from error
    return Pretrained(model, params, stats, tuple(json.loads(metadata)["labels"]), size, symmetric)


def _from_keras(arrays: Mapping[str, np.ndarray]) -> tuple[PyTree, PyTree]:
    """Parameters and statistics of a `MobileNet` from Keras' arrays, "layer/name"."""
    params: dict[str, dict[str, np.ndarray]] = {}
    means: dict[str, dict[str, np.ndarray]] = {}
    for key in sorted(arrays):
        layer, name = key.split("/")
        value = arrays[key]
        if layer == "conv_preds":  # there a 1x1 convolution of one pixel
            params.setdefault("logits", {})[name] = value.reshape(value.shape[-2:]) if name == "kernel" else value
        elif name in _STATISTICS:
            means.setdefault(layer, {})[_STATISTICS[name]] = value
        elif name == "depthwise_kernel":
            params.setdefault(layer, {})["kernel"] = value.transpose(0, 1, 3, 2)
        else:
            params.setdefault(layer, {})[_PARAMETERS[name]] = value
    return params, {"batch_stats": means}


_PARAMETERS = {"kernel": "kernel", "gamma": "scale", "beta": "bias"}
_STATISTICS = {"moving_mean": "mean", "moving_variance": "var"}

_MOBILENET = tuple(
    SourceFile("imagenet_mobilenet", f"imagenet-mobilenet/{name}", size, sha256)
    for name, size, sha256 in (
        (
            "mobilenet_v1_0.75_224.npz",
            10_445_636,
            "bb8ee093809f09a3032550319a58b0cff503860ab0c5348238a4d111b4b45fc4",
        ),
        ("model.json", 49_403, "a74c25424bd9939b1c245a58da417e35d1ca16f0b009490a1c44b43d982600d9"),
        ("metadata.json", 23_688, "99d6587c6effe11752dc089ab4daf8af60a4675fef42975ec20cd7c0779bab80"),
    )
)


def features(
    model: nn.Module,
    params: PyTree,
    stats: PyTree,
    x: Array,
    *,
    before: str = "logits",
    batch_size: int = 64,
    preprocess: Callable[[Array], Array] | None = None,
) -> jax.Array:
    """What the layer ``before`` is given in evaluation, for x (n, ...): (n, d), to train a new head on.

    Computed once, it serves all epochs: the layers below cost nothing from then on. They must be frozen and pictures
    must not be augmented anew. The head itself can be a linear model, ``MLP(features=(), classes=2)``, whose parameters
    `replace_head` puts into the net. Compiled once for a model and a shape of x.

    Args:
      model, params, stats: the pretrained net.
      x: examples, (n, ...).
      before: path of the layer whose input is wanted, "logits".
      batch_size: examples at once.
      preprocess: applied to each batch before the net, so that x may be bytes; a function defined once, such as
        `symmetric`, not one made anew for every call.

    Raises:
      ValueError: no layer of that path, no examples, or a batch size below 1.
    """
    return _features(model, params, stats, jnp.asarray(x), before, batch_size, preprocess)


@partial(jax.jit, static_argnames=("model", "before", "batch_size", "preprocess"))
def _features(
    model: nn.Module,
    params: PyTree,
    stats: PyTree,
    x: Array,
    before: str,
    batch_size: int,
    preprocess: Callable[[Array], Array] | None,
) -> Array:
    def apply(params: PyTree, stats: PyTree, x: Array, **_: Any) -> tuple[Array, PyTree]:
        seen = []

        def record(next_call: Callable, args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
            if context.method_name == "__call__" and "/".join(context.module.path) == before:
                seen.append(args[0])
            return next_call(*args, **kwargs)

        with nn.intercept_methods(record):
            linen.apply(model, params, stats, x if preprocess is None else preprocess(x))
        if not seen:
            raise ValueError(f"before={before!r} is no layer of {type(model).__name__}{near(before, params)}")
        return seen[0], stats

    return predict(Network(partial(linen.init, model), apply), params, stats, x, batch_size=batch_size)
