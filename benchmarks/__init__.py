"""Benchmarks against bare loops and against what is used elsewhere: ``python -m benchmarks``."""

from phoenix_pipeline.offline import stay_offline

stay_offline()
