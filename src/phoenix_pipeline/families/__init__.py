"""The kinds of generative model behind one set of verbs, and the folder that a trained one lies in.

The federation, sampling and export call a :class:`Family` and know neither U-Nets nor GANs.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from phoenix_pipeline.config import ModelConfig, SamplingConfig, TrainingConfig
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.optimization.work import ClientTask, LocalResult, LocalWork


class Family(Protocol):
    """What a kind of model must be able to do; implemented by the modules named ``family``."""

    def check(
        self, model: ModelConfig, sampling: SamplingConfig, channels: int, image_size: int
    ) -> None:
        """Raise SettingsError for what cannot work, before any expensive work."""

    def build(
        self, model: ModelConfig, channels: int, image_size: int, seed: int, num_classes: int = 0
    ) -> nn.Module:
        """Return the network; its weights depend on ``seed`` alone.

        ``num_classes``: of a conditional model, 0 of any other.
        """

    def count_layers(self, model: ModelConfig, image_size: int) -> int:
        """Return about how many layers :meth:`build` would make, without making any."""

    def run_once(self, network: nn.Module, channels: int, image_size: int) -> int:
        """Run what training differentiates, once, on zeros; return for how many images.

        It is run on torch's current default device.
        """

    def train_locally(
        self,
        network: nn.Module,
        images: Tensor,
        work: LocalWork,
        model: ModelConfig,
        training: TrainingConfig,
        optimizer_state: dict[str, Tensor] | None = None,
        labels: Tensor | None = None,
    ) -> LocalResult:
        """Train ``network`` in place on uint8 ``images`` [N, C, H, W] of one client.

        ``labels``: int64 [N], which a conditional model needs and others do not read.
        """

    def why_not_stacked(self, training: TrainingConfig) -> str | None:
        """Return why clients must be trained one after another; None: :meth:`train_stacked` can."""

    def train_stacked(
        self,
        network: nn.Module,
        tasks: Sequence[ClientTask],
        model: ModelConfig,
        training: TrainingConfig,
    ) -> list[LocalResult | TrainingError]:
        """Train the weights of several clients, all in one program; ``network`` says of what."""

    def sample_images(
        self,
        network: nn.Module,
        model: ModelConfig,
        sampling: SamplingConfig,
        image_shape: tuple[int, int, int],
        seeds: Sequence[int],
        device: torch.device | str,
        num_steps: int | None = None,
        labels: Sequence[int] | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield uint8 batches [B, C, H, W]; image ``i`` depends on ``seeds[i]`` alone.

        With a conditional model it depends on ``labels[i]`` as well, the class that it is to show.
        """

    def export(
        self, folder: Path, network: nn.Module, model: ModelConfig, metadata: Mapping[str, Any]
    ) -> None:
        """Write the model as a folder that is complete or absent."""

    def load_start(self, folder: Path, network: nn.Module, model: ModelConfig) -> dict[str, Tensor]:
        """Return the weights in ``folder`` that ``network`` is to start from.

        Raises SettingsError if they do not fit.
        """

    def load(self, folder: Path) -> nn.Module:
        """Return the network of an exported folder, on the CPU, in evaluation mode."""


def family_of(model: ModelConfig) -> Family:
    """Return the family of ``model.family``."""
    if model.family == "dcgan":
        from phoenix_pipeline.gan import family as gan

        return cast(Family, gan)
    from phoenix_pipeline.diffusion import family as diffusion

    return cast(Family, diffusion)
