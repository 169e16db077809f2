"""Benchmarks against bare loops and against what is used elsewhere: ``python -m benchmarks``."""
