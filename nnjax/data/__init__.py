"""Real data sets, series and text with checksums, synthetic generators, label noise, splits and scaling."""

from nnjax.data.augment import random_crop_and_flip
from nnjax.data.cache import DataError
from nnjax.data.images import ImageFolder, image_folder, image_names, load_images, read_image
from nnjax.data.labels import noisy_labels
from nnjax.data.loaders import Dataset, load, names
from nnjax.data.pairs import (
    EncodedPairs,
    Pairs,
    PairSet,
    buckets,
    encode_pairs,
    load_pairs,
    pair_names,
    read_pairs,
)
from nnjax.data.series import (
    Filled,
    Series,
    Windows,
    fill_forward,
    load_series,
    series_names,
    share_price,
    windows,
)
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
from nnjax.data.text import NextTokens, Vocabulary, load_text, next_token_batches, streams, text_names, word_tokens
from nnjax.data.walk_forward import Fold, FoldWindows, fold_windows, walk_forward

__all__ = [
    "DataError",
    "Dataset",
    "EncodedPairs",
    "Filled",
    "Fold",
    "FoldWindows",
    "ImageFolder",
    "MinMaxScaler",
    "NextTokens",
    "PairSet",
    "Pairs",
    "Series",
    "Split",
    "Standardizer",
    "Stream",
    "Vocabulary",
    "Windows",
    "blobs",
    "buckets",
    "encode_pairs",
    "fill_forward",
    "fit_min_max",
    "fit_standardizer",
    "fold_windows",
    "group_split",
    "image_folder",
    "image_names",
    "linear_gaussian",
    "linear_sphere",
    "load",
    "load_images",
    "load_pairs",
    "load_series",
    "load_text",
    "names",
    "next_token_batches",
    "noisy_labels",
    "one_hot",
    "pair_names",
    "random_crop_and_flip",
    "read_image",
    "read_pairs",
    "series_names",
    "share_price",
    "spherules",
    "spirals",
    "stratified_split",
    "stream",
    "streams",
    "take",
    "text_names",
    "walk_forward",
    "windows",
    "word_tokens",
]
