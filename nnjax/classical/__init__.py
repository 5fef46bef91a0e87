"""Learners with their own update rule or closed-form solve, one a file; all are pure functions."""

from nnjax.classical import least_squares, random_features

__all__ = ["least_squares", "random_features"]
