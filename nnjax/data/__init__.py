"""Real data sets and series with checksums, synthetic generators, label noise, splits and scaling."""

from nnjax.data.augment import random_crop_and_flip
from nnjax.data.cache import DataError
from nnjax.data.images import ImageFolder, image_folder, image_names, load_images, read_image
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
from nnjax.data.stream import Stream, stream
from nnjax.data.synthetic import blobs, linear_gaussian, linear_sphere, spherules, spirals

__all__ = [
    "DataError",
    "Dataset",
    "ImageFolder",
    "MinMaxScaler",
    "Series",
    "Split",
    "Standardizer",
    "Stream",
    "Windows",
    "blobs",
    "fit_min_max",
    "fit_standardizer",
    "group_split",
    "image_folder",
    "image_names",
    "linear_gaussian",
    "linear_sphere",
    "load",
    "load_images",
    "load_series",
    "names",
    "noisy_labels",
    "one_hot",
    "random_crop_and_flip",
    "read_image",
    "series_names",
    "share_price",
    "spherules",
    "spirals",
    "stratified_split",
    "stream",
    "take",
    "windows",
]
