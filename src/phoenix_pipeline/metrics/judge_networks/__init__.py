"""Networks of the label judge; ``evaluation.classifier.network`` chooses one."""

import torch

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.metrics.judge_networks.base import JudgeNetwork
from phoenix_pipeline.metrics.judge_networks.pooled import PooledNetwork
from phoenix_pipeline.metrics.judge_networks.residual import ResidualNetwork
from phoenix_pipeline.seeding import derive_seed

__all__ = ["JudgeNetwork", "build_judge_network"]


def build_judge_network(
    image_channels: int, image_size: int, num_classes: int, config: ClassifierConfig
) -> JudgeNetwork:
    """Return a network whose weights depend on ``config.seed``; no global generator changes."""
    kind = {"residual": ResidualNetwork, "pooled": PooledNetwork}[config.network]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(config.seed, "label_judge"))
        return kind(image_channels, image_size, num_classes, config)
