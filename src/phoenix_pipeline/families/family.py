"""What a kind of generative model is to the rest of the program; each kind is one file.

The federation, sampling, export, audit and report call a :class:`Family` and know neither U-Nets
nor GANs. A family has no state: what it needs to know of a model is in ``model``. This file and our
families import PyTorch where it is used, so that settings are read without it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from phoenix_pipeline.config import Group, ModelConfig, SamplingConfig, TrainingConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families.provenance import NetworkSettings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from phoenix_pipeline.errors import TrainingError
    from phoenix_pipeline.optimization.work import ClientTask, LocalResult

# A conditional model's layer with a row for each class: averaged row by row over the clients that
# moved it.
CLASS_EMBEDDING = "class_embedding"
# Scores [N] of a network, images [N, C, H, W] in [-1, 1] and, of a conditional model, their labels.
Attack = Callable[["nn.Module", "Tensor", "Tensor | None"], "Tensor"]
_WEIGHTS_FILE = "model.safetensors"


class Family(ABC):
    """A kind of model. The first five verbs must be written, the rest may be.

    ``name``: as ``model.family`` calls it.
    ``Settings``: the group ``model.<name>``. Those of our families are fields of ``ModelConfig``.
    ``conditional``: it learns labels (``model.conditioning``) by ``class_layers``.
    ``class_layers``: embeddings with a row for each class, called :data:`CLASS_EMBEDDING`.
    ``guided``: it learns images without a label as well, for classifier-free guidance.
    ``predicts_noise``: it is a diffusion model: it has ``model.noise``, weights of timesteps, and
    attacks that read the loss at a timestep.
    ``adaptable``: it trains low-rank adapters on a start (``model.lora``).
    ``latent``: it learns latents of an autoencoder as well as pixels (``model.autoencoder``).
    ``private``: it trains by gradients of single images (``training.dp_sgd``).
    ``why_not_compiled``: what rules out compiling where ``auto`` decides; None: nothing.
    ``parts``: top-level layers of ``encoder``, ``bottleneck`` and ``decoder``, for partial updates.
    ``undrawn``: top-level layers that no image is drawn with.
    ``attacks``: scores of images by attack: higher for images that the network was trained on.
    ``library``: what loads an exported model.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Group]] = Group
    conditional: ClassVar[bool] = False
    class_layers: ClassVar[tuple[str, ...]] = (CLASS_EMBEDDING,)
    guided: ClassVar[bool] = False
    predicts_noise: ClassVar[bool] = False
    adaptable: ClassVar[bool] = False
    latent: ClassVar[bool] = False
    private: ClassVar[bool] = False
    why_not_compiled: ClassVar[str | None] = None
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    undrawn: ClassVar[tuple[str, ...]] = ()
    attacks: ClassVar[Mapping[str, Attack]] = {}
    library: ClassVar[str] = "phoenix-pipeline"

    @abstractmethod
    def build(
        self, model: ModelConfig, channels: int, image_size: int, seed: int, num_classes: int = 0
    ) -> "nn.Module":
        """Return the network; its weights depend on ``seed`` alone.

        ``num_classes``: of a conditional model, 0 of any other. Raises SettingsError for images
        that it does not make.
        """

    @abstractmethod
    def count_layers(self, model: ModelConfig, image_size: int) -> int:
        """Return about how many layers :meth:`build` would make, without making any."""

    @abstractmethod
    def run_once(self, network: "nn.Module", channels: int, image_size: int) -> int:
        """Run what training differentiates, once, on zeros; return for how many images.

        It is run on torch's current default device.
        """

    @abstractmethod
    def train_locally(
        self,
        network: "nn.Module",
        task: "ClientTask",
        model: ModelConfig,
        training: TrainingConfig,
    ) -> "LocalResult":
        """Train ``network`` in place on a client's images, or latents of a ``latent`` family."""

    @abstractmethod
    def sample_images(
        self,
        network: "nn.Module",
        model: ModelConfig,
        sampling: SamplingConfig,
        image_shape: tuple[int, int, int],
        seeds: Sequence[int],
        device: "torch.device | str",
        labels: Sequence[int] | None = None,
    ) -> "Iterator[np.ndarray]":
        """Yield uint8 batches [B, C, H, W]; image ``i`` depends on ``seeds[i]`` alone.

        With a conditional model it depends on ``labels[i]`` as well, the class that it is to show.
        """

    def check_sampling(self, model: ModelConfig, sampling: SamplingConfig) -> None:
        """Raise SettingsError for what no image can be drawn with, before anything is trained."""
        return

    def settle_model(self, model: ModelConfig, image_size: int) -> ModelConfig:
        """Return ``model`` with values for what is ``auto`` in the family's own settings."""
        return model

    def settle_training(
        self, training: TrainingConfig, image_size: int, *, pooled: bool, aligned: bool
    ) -> TrainingConfig:
        """Return ``training`` with values for what is ``auto``.

        ``pooled``: one client has all images; ``aligned``: clients follow the last global step.
        """
        return training.settled(batch_size=32, learning_rate=1e-3)

    def table_bytes(self, model: ModelConfig) -> int:
        """Return the memory of what training holds beside the network."""
        return 0

    def why_not_stacked(self, training: TrainingConfig) -> str | None:
        """Return why clients must be trained one after another; None: :meth:`train_stacked` can."""
        return f"models of family {self.name} train one at a time"

    def train_stacked(
        self,
        network: "nn.Module",
        tasks: "Sequence[ClientTask]",
        model: ModelConfig,
        training: TrainingConfig,
    ) -> "list[LocalResult | TrainingError]":
        """Train the weights of several clients, all in one program; ``network`` says of what."""
        raise SettingsError(f"clients cannot be stacked: {self.why_not_stacked(training)}")

    def personal_presets(self, model: ModelConfig) -> Mapping[str, tuple[str, ...]]:
        """Return the prefixes of layers by what ``personal_layers.layers`` may call them."""
        return {}

    def layers_that_stay(self, model: ModelConfig) -> tuple[str, ...]:
        """Return the prefixes of layers that the model's own settings leave on the clients."""
        return ()

    def load_start(
        self, folder: Path, network: "nn.Module", model: ModelConfig
    ) -> "dict[str, Tensor]":
        """Return weights of ``folder`` for ``network``; raises SettingsError if none fit."""
        raise SettingsError(
            f"model.start_from is for diffusion models, but model.family is {self.name}; set "
            "model.start_from: null for this arm"
        )

    def arrays_at_rest(self, network: "nn.Module") -> "dict[str, Tensor]":
        """Return the arrays that are no part of the network's state: the base of adapters."""
        return {}

    def base_digest(self, network: "nn.Module") -> str:
        """Return a digest of :meth:`arrays_at_rest`; "" where there are none."""
        return ""

    def complete(
        self, network: "nn.Module", arrays: "Mapping[str, Tensor]", misfit: str
    ) -> "nn.Module":
        """Return ``network`` with all its ``arrays``; raises CheckpointError, saying ``misfit``."""
        from phoenix_pipeline.families.model_folder import fill

        return fill(network, arrays, misfit)

    def export(
        self, folder: Path, network: "nn.Module", model: ModelConfig, metadata: Mapping[str, Any]
    ) -> None:
        """Write the model as a folder that is complete or absent."""
        from phoenix_pipeline.checkpoints import atomic_path, save_tensors

        with atomic_path(folder) as temporary:
            save_tensors(temporary / _WEIGHTS_FILE, network.state_dict(), {"family": self.name})

    def load(self, folder: Path) -> "nn.Module":
        """Return the network, on the CPU, to draw; raises CheckpointError if it does not fit."""
        from phoenix_pipeline.checkpoints import load_tensors
        from phoenix_pipeline.families.model_folder import build_network, fill, read_description

        tensors, _ = load_tensors(folder / _WEIGHTS_FILE)
        network = build_network(read_description(folder)["settings"])
        return fill(network, tensors, f"{folder / _WEIGHTS_FILE} does not fit phoenix.json")

    def describe_sampling(self, sampling: Mapping[str, Any], conditional: bool) -> dict[str, Any]:
        """Return what a score must be read with: of ``sampling``, what this family reads."""
        return {"sampler": "generator", "num_steps": 1}

    def describe_sent(self, settings: Mapping[str, Any]) -> str:
        """Return what of a model each client sends, in words that follow "each client sent".

        ``settings``: the group ``model`` as it was in training, as far as it is known.
        """
        return "the weights of the whole model"

    def describe_use(self, settings: NetworkSettings) -> list[str]:
        """Return lines of Python that use a folder without this package; none: nothing does."""
        return []

    def why_not_attacked(self, layers_away: Sequence[str]) -> str:
        """Return why a model tells nothing of its training images, or ``""``.

        ``layers_away``: prefixes of layers that are untrained in it, since they stayed elsewhere.
        """
        if self.attacks or self.predicts_noise:
            return ""
        return f"no attack is known on models of family {self.name}"
