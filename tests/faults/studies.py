"""Which studies are broken, and the options that make each as small as it can be."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

TINY = {
    "adding_problem": (
        "--lengths 4 6 --seeds 2 --rates 0.01 0.1 --units 4 --train-n 20 --validation-n 6 --test-n 6 --steps 4 --batch "
        "5 --evaluations 2"
    ),
    "augmentation": (
        "--seeds 2 --n 20 40 --strengths 0.25 1.0 --features 2 --hidden 4 --steps 4 --batch 10 --validation-n 20 "
        "--test-n 20 --moved-n 10"
    ),
    "backpropagation": (
        "--example-updates 20 --depths 2 --differences-depth 2 --agreement-width 3 --agreement-seeds 2 --data iris "
        "--train-n 60 --validation-n 30 --hidden 4 --epochs 3 --batch-size 16 --rates 0.1 0.3 --forms-seeds 2 "
        "--starts 4.0 --percolation-seeds 24 --percolation-epochs 40 --online-rates 0.2 --vanishing-depths 2 3 "
        "--vanishing-width 20 --vanishing-seeds 2 --spreads 0.0 0.001 --symmetry-epochs 20"
    ),
    "char_rnn": (
        "--length 400 --letters 3 --seeds 2 --rates 0.01 0.1 --parameters 120 --embedding 2 --streams 4 --steps 5 "
        "--updates 4 --evaluations 2 --order 3 --reach 4 --windows 3 --temperatures 0.5 1.0 --sample 12"
    ),
    "double_descent": (
        "--linear-n 20 --linear-draws 4 --spherical-draws 2 --features-n 20 --features-kinds relu --features-spacing "
        "0.5 --features-seeds 2 --samples-width 20 --samples-seeds 2 --mlp-n 200 --mlp-smaller-n 100 --mlp-widths 2 4 "
        "8 --mlp-seeds 2 --mlp-steps 20 --mlp-batch 50 --validation-n 50"
    ),
    "first_programs": (
        "--iris-seeds 2 --iris-epochs 5 --arrays-seeds 2 --arrays-steps 5 --negation-seeds 2 --negation-epochs 2 "
        "--xor-seeds 2 --xor-epochs 10 --walk-seeds 2 --walk-days 40 --prices-steps 5 --sentiment-seeds 2"
    ),
    "forecasting": (
        "--series cycle walk --length 60 --folds 2 --seeds 2 --rates 0.01 --units 3 --steps 4 --batch 8 --evaluations 2"
    ),
    "hyperparameter_search": (
        "--samplers random bayesian --seeds 2 --trials 10 --batch 5 --reference 20 --test-runs 1 --n 40 "
        "--validation-n 40 --features 2 --steps 4 --train-batch 10"
    ),
    "image_classification": (
        "--digits-seeds 2 --digits-epochs 3 --digits-batch 20 --features 2 3 --hidden 8 --width 2 --train-n 100 "
        "--test-n 30"
    ),
    "initialization": (
        "--input-draws 40 --zero-steps 2 --signal-depth 3 --signal-width 4 --signal-inputs 2 --signal-seeds 2 "
        "--activations tanh relu --schemes xavier_normal he_normal --histogram-depth 2 --histogram-width 4 "
        "--histogram-steps 2 --train-n 80 --validation-n 40 --depths 2 3 --width 4 --batch-size 20 --steps 4 --seeds "
        "2 --selection-seeds 1 --rates 0.01 --adam-rates 0.01 --arm-depth 2 --arm-steps 3 --cnn-depth 2 --cnn-width 2 "
        "--cnn-steps 2 --cnn-seeds 2 --map-variances 0.5 1.5 4.0 --map-depths 2 5 --map-width 8 --map-steps 6 "
        "--map-seeds 2"
    ),
    "logic_gates": (
        "--functions-inputs 1 2 --functions-epochs 12 --hidden-activations logistic --hidden-rates 0.5 --hidden-seeds "
        "4 --hidden-steps 40 --mark1-n 100 --mark1-units 8 16 --mark1-seeds 2 --mark1-epochs 2 --echo-seeds 2 "
        "--echo-taps 4 --echo-samples 600 --echo-rates 0.2 0.5 --oja-seeds 2 --oja-patterns 600 --sanger-units 2 "
        "--sanger-epochs 2"
    ),
    "micrometeorites": (
        "--width 0.03 --n 24 --test-n 12 --seeds 2 --steps 4 --batch 6 --evaluations 2 --trials 3 --trials-batch 2"
    ),
    "optimizers": (
        "--ravine-rates 0.001 0.0025 --ravine-steps 60 --rosenbrock-rates 0.001 0.1 --rosenbrock-steps 200 "
        "--encoder-seeds 4 --encoder-epochs 40 --train-n 60 --validation-n 40 --test-n 40 --hidden 4 --batch 20 "
        "--epochs 7 --rates 0.003 0.03 0.3 --rates-seeds 2 --schedule-rates 0.01 0.1 --schedule-seeds 2 --separable-n "
        "20 --separable-shares 0.6 0.8 --separable-steps 600"
    ),
    "pooling": (
        "--seeds 2 --canvas 16 --windows 1 4 16 --shift 3 --near 1 --channels 2 --n 20 --validation-n 10 --test-n 12 "
        "--steps 3 --batch 10"
    ),
    "pseudo_labelling": (
        "--labels 10 20 --seeds 2 --pool 60 --test-n 30 --hidden 8 --steps 6 --batch 5 --unlabelled 8 --evaluations 3 "
        "--threshold 0.3"
    ),
    "regularization": (
        "--n 40 --seeds 2 --hidden 8 --steps 20 --batch 20 --l2 0.0 0.1 --l1 0.0 0.1 --dropout 0.0 0.5 --early-epochs "
        "4 --early-seeds 3 --norm-hidden 8 --norm-steps 20 --norm-rates 0.01 0.1 1.0 --batch-hidden 8 --batch-sizes 4 "
        "40 --batch-epochs 2 --batch-updates 20 --batch-rates 0.01 0.1 --batch-loss 2.0 --recipe-hidden 8 "
        "--recipe-steps 20 --recipe-rates 0.01 0.1 --recipe-seeds 2 --curve-n 20 40 --curve-l2 0.0 0.1 --linear-n 12 "
        "--linear-p 3 --linear-draws 2 --validation-n 40 --test-n 40"
    ),
    "sequence_shapes": (
        "--cells gru --seeds 2 --rates 0.01 0.1 --validation-n 20 --units 3 --hidden 4 --embedding 2 --batch 10 "
        "--evaluations 2 --steps 4 --strip-validation-n 4 --strip-test-n 3 --tag-digits 2 --tag-n 12 --tag-steps 4 "
        "--number-digits 2 --number-n 12 --number-units 3 --number-steps 4"
    ),
    "transfer_learning": (
        "--seeds 2 --n 2 4 --rates 0.01 0.1 --features 2 --hidden 4 --source-steps 4 --steps 4 --batch 10 --unfreeze "
        "1 --validation-n 20 --test-n 20"
    ),
    "translation": (
        "--pairs 40 --held-out 12 --merges 20 --longest 60 --attentions none additive --seeds 2 --rates 0.01 --units 3 "
        "--embedding 2 --batch 8 --updates 4 --evaluations 2 --beams 2 --rounds 2 --looked 5 --shown 2"
    ),
    "wann_search": (
        "--tasks xor --islands 1 --migrate-every 0 --seeds 2 --population 32 --generations 40 --tournament 4 --trials "
        "3 --shared-weights 1.0 2.0 --champion-episodes 1 --selection-episodes 2 --training-generations 2 --hidden 2 "
        "--max-nodes 12"
    ),
}
"""Options by study. A study that is not here is broken as ``NAME:--its smallest --options ...``."""

# Whole sweeps of other studies sit in these, so that a fault anywhere costs the least to try.
QUICKEST = "first_programs"


class Study(NamedTuple):
    """A study to break.

    Attributes:
      name: short, for the table.
      module: what ``python -m`` runs.
      options: the smallest that fill every panel.
    """

    name: str
    module: str
    options: tuple[str, ...]


def names() -> list[str]:
    """Every study in experiments/."""
    files = sorted((ROOT / "experiments").glob("*.py"))
    return [f.stem for f in files if not f.stem.startswith("_") and "\nPRESETS" in f.read_text()]


def find(text: str) -> Study:
    """The study that ``text`` names: one of `names`, or a module with its options, ``module:--seeds 2``.

    Raises:
      ValueError: no such module, or a study without smallest options.
    """
    name, colon, options = text.partition(":")
    module = name if colon or "." in name or name not in names() else f"experiments.{name}"
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"there is no study {name!r}; known: {', '.join(names())}")
    short = module.rpartition(".")[2]
    if not colon and short not in TINY:
        raise ValueError(f"{short} has no smallest options: write them after a colon, or into {Path(__file__).name}")
    return Study(short, module, tuple(shlex.split(options if colon else TINY[short])))
