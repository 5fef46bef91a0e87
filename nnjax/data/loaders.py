"""`load(name)`: real data sets as NumPy arrays, read from checked files or from scikit-learn."""

import difflib
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from nnjax.data import cache as _cache
from nnjax.data import formats
from nnjax.data.cache import SourceFile
from nnjax.data.splits import Split, stratified_split, take

CacheFolder = str | os.PathLike[str] | None

_SPLIT_SEED = 0
_IDX_LIMIT = 16 + 60_000 * 28 * 28
_DIGIT_NAMES = tuple("0123456789")
_FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"


class Dataset(NamedTuple):
    """A data set in memory.

    Attributes:
        name: as given to `load`.
        train, test: `.x` float32, images (n, height, width, channels) in [0, 1] or raw tables (n, d);
            `.y` int32 (n,), the class as 0, 1, ...
        class_names: name of class k at place k.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]


def names() -> tuple[str, ...]:
    """Every name `load` knows."""
    return tuple(_LOADERS)


def load(name: str, *, cache: CacheFolder = None) -> Dataset:
    """Load a data set; a file that is not in the cache folder is downloaded first.

    | name | train, test | x | source |
    |---|---|---|---|
    | digits | 1438, 359 | (n, 8, 8, 1) | Alpaydin and Kaynak (1998), with scikit-learn |
    | iris | 120, 30 | (n, 4), cm | Fisher (1936), with scikit-learn |
    | wine | 142, 36 | (n, 13) | Forina et al. (1991), with scikit-learn |
    | breast_cancer | 455, 114 | (n, 30) | Wolberg et al. (1993), with scikit-learn |
    | mnist | 60000, 10000 | (n, 28, 28, 1) | LeCun et al. (1998) |
    | fashion_mnist | 60000, 10000 | (n, 28, 28, 1) | Xiao et al. (2017) |
    | cifar10 | 50000, 10000 | (n, 32, 32, 3) | Krizhevsky (2009), official binary archive |
    | cifar10_jpeg | 50000, 10000 | (n, 32, 32, 3) | the same pictures, once compressed with loss |

    The first four have no official split: theirs is a stratified 80/20 with a fixed seed. The others keep
    the official order, except that `cifar10_jpeg` (report it as "CIFAR-10 (JPEG copy)") deals the classes in
    turn, each in its official order, so that the first n images are class-balanced.

    Args:
        name: one of `names()`.
        cache: folder of the data files; by default the environment variable `NNJAX_DATA`, else a folder of
            the user's own. It holds `mnist/`, `fashion-mnist/`, `cifar-10/`, is created when something is
            downloaded, and may be read-only when everything is there.

    Raises:
        ValueError: unknown name.
        DataError: a file is missing and cannot be downloaded, or its checksum is wrong.
    """
    if name not in _LOADERS:
        near = difflib.get_close_matches(str(name), _LOADERS, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown data set {name!r}; did you mean {near!r}? Allowed: {', '.join(_LOADERS)}")
    return _LOADERS[name](name, cache)


def _bundled(function: str, name: str, cache: CacheFolder) -> Dataset:
    """A data set that installs with scikit-learn."""
    from sklearn import datasets

    bunch: Any = getattr(datasets, function)()
    if name == "digits":
        x = bunch.images[..., None].astype(np.float32) / np.float32(16)
    else:
        x = bunch.data.astype(np.float32)
    whole = Split(x, bunch.target.astype(np.int32))
    train, test = stratified_split(whole.y, (0.8, 0.2), seed=_SPLIT_SEED)
    class_names = tuple(str(class_name) for class_name in bunch.target_names)
    return Dataset(name, take(whole, train), take(whole, test), class_names)


def _images(pixels: np.ndarray, labels: np.ndarray) -> Split:
    """Bytes 0 to 255 to float32 in [0, 1] and labels to int32, without a float64 copy on the way."""
    return Split(np.divide(pixels, np.float32(255), dtype=np.float32), labels.astype(np.int32))


def _idx(sources: tuple[SourceFile, ...], class_names: tuple[str, ...], name: str, cache: CacheFolder) -> Dataset:
    """A data set of four IDX files: train images, train labels, test images, test labels."""
    arrays = []
    for source, dimensions in zip(sources, (3, 1, 3, 1), strict=True):
        plain = formats.gunzip(_cache.read(source, cache=cache), _IDX_LIMIT, str(source))
        arrays.append(formats.parse_idx(plain, dimensions, str(source)))
    x_train, y_train, x_test, y_test = arrays
    return Dataset(name, _images(x_train[..., None], y_train), _images(x_test[..., None], y_test), class_names)


def _archive(
    source: SourceFile,
    parse: Callable[[bytes, str], tuple[tuple[np.ndarray, np.ndarray], ...]],
    name: str,
    cache: CacheFolder,
) -> Dataset:
    train, test = parse(_cache.read(source, cache=cache), str(source))
    return Dataset(name, _images(*train), _images(*test), formats.CIFAR10_CLASSES)


def _idx_sources(dataset: str, folder: str, url: str, files: dict[str, tuple[int, str]]) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(dataset, f"{folder}/{file}", size, sha256, url + file) for file, (size, sha256) in files.items()
    )


_MNIST = _idx_sources(
    "mnist",
    "mnist",
    _MNIST_URL,
    {
        "train-images-idx3-ubyte.gz": (
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        "train-labels-idx1-ubyte.gz": (
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        "t10k-images-idx3-ubyte.gz": (
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        "t10k-labels-idx1-ubyte.gz": (
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    },
)
_FASHION_MNIST = _idx_sources(
    "fashion_mnist",
    "fashion-mnist",
    _FASHION_URL,
    {
        "train-images-idx3-ubyte.gz": (
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        "train-labels-idx1-ubyte.gz": (
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        "t10k-images-idx3-ubyte.gz": (
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        "t10k-labels-idx1-ubyte.gz": (
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    },
)
_CIFAR10 = SourceFile(
    "cifar10",
    "cifar-10/cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    _CIFAR_URL + "cifar-10-binary.tar.gz",
)
_CIFAR10_JPEG = SourceFile(
    "cifar10_jpeg",
    "cifar-10/cifar-10-images-jpeg.tar.xz",
    18_547_964,
    "f3b2857085406949e481708d22b3da2269769e6343208246c7cf5a722c237a03",
)

_LOADERS: dict[str, Callable[[str, CacheFolder], Dataset]] = {
    "digits": partial(_bundled, "load_digits"),
    "iris": partial(_bundled, "load_iris"),
    "wine": partial(_bundled, "load_wine"),
    "breast_cancer": partial(_bundled, "load_breast_cancer"),
    "mnist": partial(_idx, _MNIST, _DIGIT_NAMES),
    "fashion_mnist": partial(_idx, _FASHION_MNIST, _FASHION_NAMES),
    "cifar10": partial(_archive, _CIFAR10, formats.cifar_binary),
    "cifar10_jpeg": partial(_archive, _CIFAR10_JPEG, formats.cifar_jpeg),
}
