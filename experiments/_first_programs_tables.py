"""What the first programs need beside their sweeps: splits, scikit-learn's nets, and the small exact tables."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._first_programs_lanes import FLOWERS, HIDDEN, Recurrent, scanned, unrolled
from experiments._first_programs_sentences import BAD_WORDS, GOOD_WORDS, NEGATIVE, NEGATORS, POSITIVE
from nnjax import models
from nnjax.classical import logistic_regression, perceptron
from nnjax.data import fit_standardizer, stratified_split
from nnjax.types import Array

if TYPE_CHECKING:
    import xarray as xr

# Iris


def iris() -> tuple[np.ndarray, np.ndarray]:
    """All 150 flowers: float32 (150, 4) in cm, and int32 (150,)."""
    from sklearn.datasets import load_iris

    bunch: Any = load_iris()
    return bunch.data.astype(np.float32), bunch.target.astype(np.int32)


def repeated_splits(labels: np.ndarray, share: float, seeds: int, seed: int) -> dict[str, np.ndarray]:
    """Stratified training and test places of every seed: (seeds, n_train) and (seeds, n_test)."""
    splits = [stratified_split(labels, (share, 1 - share), seed=1000 * seed + number) for number in range(seeds)]
    return {
        "train": np.stack([train for train, _ in splits]).astype(np.int32),
        "test": np.stack([test for _, test in splits]).astype(np.int32),
    }


def oracle_right(splits: dict[str, np.ndarray], epochs: int, rate: float) -> np.ndarray:
    """Test flowers that scikit-learn's MLP gets right, (feature sets, seeds): full-batch Adam, no penalty."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    x, y = iris()
    found = np.empty((len(FLOWERS), len(splits["train"])), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is the protocol
        for row, columns in enumerate(FLOWERS.values()):
            for seed, (train, test) in enumerate(zip(splits["train"], splits["test"], strict=True)):
                z = x[:, columns]
                scale = fit_standardizer(z[train])
                net = MLPClassifier(
                    HIDDEN, alpha=0.0, learning_rate_init=rate, max_iter=epochs, batch_size=len(train), tol=0.0,
                    n_iter_no_change=epochs, random_state=seed,
                )  # fmt: skip
                net.fit(scale(z[train]), y[train])
                found[row, seed] = (net.predict(scale(z[test])) == y[test]).sum()
    return found


def coefficient_shapes() -> dict[str, tuple[list, list]]:
    """Shapes of the weight matrices of our MLP and of scikit-learn's, by depth, inputs and classes."""
    from sklearn.neural_network import MLPClassifier

    x, y = iris()
    asked = {
        "(7, 4)": ((7, 4), x, y), "(7, 4, 6)": ((7, 4, 6), x, y), "two features": ((7, 4), x[:, :2], y),
        "two classes": ((7, 4), x[y < 2], y[y < 2]),
    }  # fmt: skip
    found = {}
    for name, (hidden, inputs, labels) in asked.items():
        classes = np.unique(labels)
        model = models.MLP(hidden, classes=1 if len(classes) == 2 else len(classes))
        params = jax.eval_shape(lambda m=model, i=inputs: models.init(m, jax.random.key(0), jnp.asarray(i[:1])))[0]
        ours = [params[layer]["kernel"].shape for layer in sorted(params)]
        oracle = MLPClassifier(hidden, random_state=0).partial_fit(inputs, labels, classes=classes)
        found[name] = (ours, [kernel.shape for kernel in oracle.coefs_])
    return found


def shapes_table() -> xr.Dataset:
    """Those shapes as text."""
    import xarray as xr

    found = coefficient_shapes()
    text = {"ours": [str(ours) for ours, _ in found.values()], "scikit_learn": [str(o) for _, o in found.values()]}
    return xr.Dataset({name: ("net", value) for name, value in text.items()}, {"net": list(found)})


# Gates

TRUTH_TABLE = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
GATES = {"AND": [0, 0, 0, 1], "OR": [0, 1, 1, 1], "XOR": [0, 1, 1, 0]}


def gates_table(epochs: int = 100) -> xr.Dataset:
    """The delta rule on AND, OR and XOR, the bias an input that is always on: wrong patterns and convergence."""
    import xarray as xr

    x = np.concatenate([np.ones((4, 1), np.float32), TRUTH_TABLE], axis=1)
    wrong, converged = [], []
    for targets in GATES.values():
        target = np.array(targets, np.float32)
        start = perceptron.init(jax.random.key(0), perceptron.Config(inputs=3))
        learned = perceptron.train(start, (x, target), epochs=epochs)
        wrong.append(int((np.asarray(perceptron.predict(learned.state, x)) != target).sum()))
        converged.append(bool(learned.converged))
    return xr.Dataset({"wrong": ("gate", wrong), "converged": ("gate", converged)}, {"gate": list(GATES)})


# A recurrent net of two steps


def recurrence_table(seed: int) -> xr.Dataset:
    """Largest difference between the unrolled and the scanned net, and between their gradients, in float64."""
    import xarray as xr

    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        params = Recurrent(*(jnp.asarray(rng.normal(size=shape)) for shape in ((3, 5), (5, 5), (5,))))
        xs = jnp.asarray(rng.normal(size=(2, 4, 3)))
        forms = [_outputs_and_gradient(form, params, xs) for form in (unrolled, scanned)]
        (outputs, gap) = (
            max(float(np.abs(a - b).max()) for a, b in zip(*part, strict=True)) for part in zip(*forms, strict=True)
        )
    return xr.Dataset({"outputs": outputs, "gradients": gap})


@partial(jax.jit, static_argnums=0)
def _outputs_and_gradient(form: Callable, params: Recurrent, xs: Array) -> tuple[tuple[Array], Recurrent]:
    """Its states, and the gradient of the sum of their squares."""
    return (form(params, xs),), jax.grad(lambda p: jnp.sum(form(p, xs) ** 2))(params)


# Six people

PEOPLE = np.array([[150, 67], [130, 60], [200, 65], [125, 52], [230, 72], [181, 70]], np.float32)
"""Height in cm and weight in kg."""
PEOPLE_LABELS = np.array([1, 1, 0, 1, 0, 0], np.int32)


def people_table() -> xr.Dataset:
    """Each of the six by the perceptron, by logistic regression, and by k-means without labels."""
    import xarray as xr
    from sklearn.cluster import KMeans

    scale = fit_standardizer(PEOPLE)
    z = np.asarray(scale(PEOPLE))
    on = np.concatenate([np.ones((6, 1), np.float32), z], axis=1)
    start = perceptron.init(jax.random.key(0), perceptron.Config(inputs=3))
    learned = perceptron.train(start, (on, PEOPLE_LABELS.astype(np.float32)), epochs=100)
    fit = logistic_regression.fit(z, PEOPLE_LABELS, l2=0.01)
    clusters = {
        "clusters": KMeans(2, n_init=10, random_state=0).fit_predict(PEOPLE),
        "clusters_scaled": KMeans(2, n_init=10, random_state=0).fit_predict(z),
    }
    answers = {
        "perceptron": np.asarray(perceptron.predict(learned.state, on)).astype(int),
        "logistic": np.asarray(logistic_regression.classify(fit.params, z)).astype(int),
        **{name: _as_labels(found) for name, found in clusters.items()},
    }
    lines = {
        "perceptron_line": ("weight", np.asarray(learned.state.weights)),
        "logistic_line": ("weight", np.concatenate([fit.params.bias, fit.params.weights[:, 0]])),
        "perceptron_converged": bool(learned.converged), "logistic_converged": bool(fit.converged),
        "mean": ("feature", np.asarray(scale.mean)), "std": ("feature", np.asarray(scale.std)),
    }  # fmt: skip
    people = {"x": (("person", "feature"), PEOPLE), "label": ("person", PEOPLE_LABELS)}
    return xr.Dataset(people | {name: ("person", found) for name, found in answers.items()} | lines)


def _as_labels(clusters: np.ndarray) -> np.ndarray:
    """Two clusters under the names that agree best with the labels: they have none of their own."""
    return clusters if (clusters == PEOPLE_LABELS).sum() >= 3 else 1 - clusters


# Sentiment

SENTENCES = (*POSITIVE, *NEGATIVE)
LABELS = np.array([1] * len(POSITIVE) + [0] * len(NEGATIVE), np.int32)


def sentence_splits(share: float, seeds: int, seed: int) -> dict[str, np.ndarray]:
    """Stratified splits of the sentences, with twins on one side (together) and without a care for it (apart)."""
    half = len(POSITIVE)
    apart = repeated_splits(LABELS, share, seeds, seed)
    found = {f"{part}_apart": places for part, places in apart.items()}
    for part, twins in repeated_splits(np.zeros(half, np.int32), share, seeds, seed).items():
        found[f"{part}_together"] = np.concatenate([twins, twins + half], axis=1)
    return found


def tokens(sentence: str) -> list[str]:
    """Lower-case words, apostrophes kept."""
    return re.findall(r"[a-z']+", sentence.lower())


def _negates(word: str) -> bool:
    return word in NEGATORS or word.endswith("n't")


def is_negated(sentence: str) -> bool:
    """Whether a sentence has a negator in it."""
    return any(_negates(word) for word in tokens(sentence))


def list_score(sentence: str, *, rule: bool) -> int:
    """Good words minus bad ones; with the rule, those up to four words after a negator count the other way."""
    score, turned = 0, 0
    for word in tokens(sentence):
        value = (word in GOOD_WORDS) - (word in BAD_WORDS)
        score += -value if rule and turned > 0 else value
        turned = 4 if _negates(word) else turned - 1
    return score


def list_rightness(*, rule: bool) -> np.ndarray:
    """Whether the word list gets each sentence right, (n,): 1, 0, or half where it has no opinion, as if it guessed."""
    sign = np.sign([list_score(sentence, rule=rule) for sentence in SENTENCES])
    return np.where(sign == 0, 0.5, sign == 2 * LABELS - 1)


def bags() -> dict[str, np.ndarray]:
    """Which words, and which words and pairs of neighbors, each sentence holds: float32 (n, v) of 0 and 1."""
    singles = [set(tokens(sentence)) for sentence in SENTENCES]
    lists = [tokens(sentence) for sentence in SENTENCES]
    pairs = [one | set(pairwise(words)) for one, words in zip(singles, lists, strict=True)]
    return {"words": _indicators(singles), "neighbors": _indicators(pairs)}


def _indicators(bags: list[set]) -> np.ndarray:
    vocabulary = {word: place for place, word in enumerate(sorted(set().union(*bags), key=str))}
    found = np.zeros((len(bags), len(vocabulary)), np.float32)
    for row, bag in zip(found, bags, strict=True):
        row[[vocabulary[word] for word in bag]] = 1
    return found
