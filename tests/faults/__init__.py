"""Faults on purpose, for any study: kills, failing writes, full disks, damage, rivals, signals, bad input.

``python -m tests.faults`` breaks studies in every way of the table that it writes and says what held. Every case ends
in the same question: does the folder hold what an uninterrupted run's folder holds? ``python -m tests.faults --help``
has the options; tests/test_faults.py runs a small share of all this.
"""
