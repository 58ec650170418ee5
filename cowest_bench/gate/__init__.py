"""The gate: whether a new model may replace the one that is in use.

baseline     blessed scores under hashes, for git
check        a run against a baseline: passed, regressed or inconclusive
sequential   an evaluation that stops as soon as a check is decided
"""
