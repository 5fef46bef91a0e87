"""Closed forms to lay over measurements: each function is a published formula, nothing is simulated."""
