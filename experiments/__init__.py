"""Studies: one script each, run as ``python -m experiments.NAME``; ``python -m experiments`` lists them."""
