"""What is published of weight-agnostic searches, and marks and goals, beside which the study puts what it measures."""

from __future__ import annotations

from typing import Any, NamedTuple

SOURCE = "Gaier and Ha (2019)"
OWN = "own check"

MARKS = (64, 128, 192, 512, 1024)
"""Generations at which a course is reported."""

WINDOW = 8
"""Generations over which a course is averaged: one alone is noisy, for its episodes are."""


class Course(NamedTuple):
    """One run of the program of Gaier and Ha (2019) on swing-up with a population of 64, at `MARKS`.

    Attributes:
      elite_mean: highest mean return in the population.
      nodes, connections: medians of the population.
    """

    elite_mean: tuple[float, ...] = (438, 442, 543, 605, 629)
    nodes: tuple[float, ...] = (15, 20, 24, 61, 109)
    connections: tuple[float, ...] = (17, 27, 37, 137, 290)


REFERENCE = Course()

PUBLISHED: dict[str, dict[str, tuple[tuple[float, float], ...]]] = {
    "swing_up": {
        "searched": ((57, 121), (515, 58), (723, 16), (932, 6)),
        "fixed": ((21, 43), (7, 2), (8, 1), (918, 7)),
    },
    "biped": {
        "searched": ((-46, 54), (51, 108), (261, 58), (332, 1)),
        "fixed": ((-129, 28), (-107, 12), (-35, 23), (347, 1)),
    },
}
"""Mean and standard deviation of 100 trials: random weights, random shared, tuned shared, tuned weights."""

PUBLISHED_ACCURACY = {
    "mnist16": {"random shared": 0.820, "ensemble": 0.916, "tuned shared": 0.919, "tuned weights": 0.942}
}

PUBLISHED_NETS = {"swing_up": 192 * 1024, "biped": 480 * 2048, "mnist16": 960 * 4096}
"""Nets that the published searches evaluated."""

RELEASED_SPEED = 17_000
"""Environment steps a second and core of the released program, on a net of 29 nodes, as measured by us."""

UPRIGHT_GOAL = 0.8
"""Share of episodes that a net must end upright."""


def holds(yes: Any, surely_not: Any = True) -> str:
    """``holds``, ``fails``, or neither: ``open``."""
    return "holds" if yes else "fails" if surely_not else "open"
