"""The Python interface: images, partition, training, samples and scores without Kedro.

Everything here is also an attribute of ``phoenix_pipeline`` (docs/python.md). For the same settings
and seed it gives the bits of ``kedro run``.
"""

from phoenix_pipeline.api.data import Images, partition, read_images
from phoenix_pipeline.api.model import Model, load
from phoenix_pipeline.api.scoring import score
from phoenix_pipeline.api.settings import ARM_NAMES
from phoenix_pipeline.api.training import train
from phoenix_pipeline.errors import PhoenixError
from phoenix_pipeline.families import Family, OneLossFamily
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.scores import Scores
from phoenix_pipeline.registry import register
from phoenix_pipeline.strategies import Strategy

__all__ = [
    "ARM_NAMES",
    "Family",
    "ImageSet",
    "Images",
    "Model",
    "OneLossFamily",
    "PhoenixError",
    "Scores",
    "Strategy",
    "load",
    "partition",
    "read_images",
    "register",
    "score",
    "train",
]
