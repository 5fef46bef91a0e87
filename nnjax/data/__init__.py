"""Real data sets and series with checksums, synthetic generators, label noise, splits and scaling."""

from nnjax.data.augment import random_crop_and_flip
from nnjax.data.cache import DataError
from nnjax.data.labels import noisy_labels
from nnjax.data.loaders import Dataset, load, names
from nnjax.data.series import Series, Windows, load_series, series_names, share_price, windows
from nnjax.data.splits import (
    MinMaxScaler,
    Split,
    Standardizer,
    fit_min_max,
    fit_standardizer,
    group_split,
    one_hot,
    stratified_split,
    take,
)
from nnjax.data.synthetic import blobs, linear_gaussian, linear_sphere, spirals

__all__ = [
    "DataError",
    "Dataset",
    "MinMaxScaler",
    "Series",
    "Split",
    "Standardizer",
    "Windows",
    "blobs",
    "fit_min_max",
    "fit_standardizer",
    "group_split",
    "linear_gaussian",
    "linear_sphere",
    "load",
    "load_series",
    "names",
    "noisy_labels",
    "one_hot",
    "random_crop_and_flip",
    "series_names",
    "share_price",
    "spirals",
    "stratified_split",
    "take",
    "windows",
]
