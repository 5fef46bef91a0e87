"""Hyper-parameter search: grid, random, Sobol, Bayesian and TPE, in batches of trials that are one program.

>>> space = {"rate": Float(1e-4, 1, log=True), "batch": Integer(8, 128, log=True), "nesterov": Choice((False, True))}
>>> found = search(run, space, sampler="bayesian", trials=32, batch=4, key=jax.random.key(0), data=splits)
>>> found.best.hparams, found.table()

``run(key, hparams, data) -> {"validation_loss": ...}`` is pure, as for `nnjax.sweep.sweep`; all hyper-parameters are
traced. It sees training and validation data; the chosen point meets the test split in `test_once`.
"""

from nnjax.search import gaussian_process
from nnjax.search.asking import NAMES, ask, by_name
from nnjax.search.bayesian import Bayesian
from nnjax.search.loop import Found, best_so_far, compare, ranked, sampler_seed, search, test_once
from nnjax.search.samplers import Grid, Random, Sampler, Sobol, Trial
from nnjax.search.space import Choice, Float, Integer, Space
from nnjax.search.tpe import TPE

__all__ = [
    "NAMES",
    "TPE",
    "Bayesian",
    "Choice",
    "Float",
    "Found",
    "Grid",
    "Integer",
    "Random",
    "Sampler",
    "Sobol",
    "Space",
    "Trial",
    "ask",
    "best_so_far",
    "by_name",
    "compare",
    "gaussian_process",
    "ranked",
    "sampler_seed",
    "search",
    "test_once",
]
