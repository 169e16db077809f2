"""Local training, the same for every kind of model, and that of an autoencoder."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from phoenix_pipeline.config.base import Fraction, Group, Positive
from phoenix_pipeline.config.differential_privacy import DpSgdConfig
from phoenix_pipeline.config.model import check_norm_groups


class AutoencoderConfig(Group):
    """The small autoencoder of `kedro run --pipelines autoencoder` (diffusers `AutoencoderKL`), for
    `model.autoencoder`.
    """

    beta: float = Field(
        0.1,
        gt=0.0,
        lt=1.0,
        description="It is trained on the pool that `shared_pool.beta` of this value draws from "
        "the clients, and on no other image: these do leave their owners.",
    )
    block_out_channels: tuple[Positive, ...] = Field(
        (16, 32, 64),
        min_length=2,
        description="Channels at each resolution, from full size down; with three of them latents "
        "have a quarter of the images' side.",
    )
    layers_per_block: Positive = Field(1, description="Residual blocks at each resolution.")
    latent_channels: Positive = Field(4, description="Channels of the latents.")
    norm_num_groups: Positive = Field(8, description="Groups of GroupNorm.")
    kl_weight: float = Field(
        1e-3,
        ge=0.0,
        description="Weight of the divergence of latents from a standard Gaussian, a mean over "
        "their values, beside the mean absolute error of pixels in [-1, 1].",
    )
    steps: Positive = Field(2000, description="Steps of AdamW; the rate falls to 0 as a cosine.")
    batch_size: Positive = Field(16, description="Images of a step.")
    learning_rate: float = Field(1e-3, gt=0.0, description="Of the first step.")

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> Self:
        check_norm_groups(self.block_out_channels, self.norm_num_groups)
        return self


# Best in the paper (Hang et al., table 1).
_MIN_SNR_GAMMA = 5.0


class TrainingConfig(Group):
    """Local training, the same in one place and at every client."""

    BY_IMAGE_SIZE: ClassVar[tuple[str, ...]] = ("batch_size", "learning_rate", "micro_batch")

    batch_size: Positive = Field(64, description="Images per step; `auto`: by image size.")
    micro_batch: Positive | None = Field(
        None,
        description="Images that pass the network at a time, where a batch takes too much memory: "
        "their gradients add up to the batch's; null: all; `auto`: by image size.",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Keep less of the forward pass, and compute it again for the backward pass.",
    )
    learning_rate: float = Field(
        1e-3, gt=0.0, description="Peak AdamW step size; `auto`: by image size."
    )
    lr_schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="Course of the learning rate over the whole run, not per round."
    )
    lr_warmup: Fraction = Field(0.02, description="Linear warm-up, as a fraction of the run.")
    weight_decay: float = Field(0.0, ge=0.0, description="AdamW's decoupled weight decay.")
    max_grad_norm: float | None = Field(
        1.0, gt=0.0, description="Clip the global gradient norm; null: no clipping."
    )
    optimizer_state: Literal["keep", "reset"] = Field(
        "keep", description="Keep each client's Adam moments between rounds, or start anew."
    )
    ema_horizon: float = Field(
        0.1,
        ge=0.0,
        lt=1.0,
        description="EMA averaging window as a fraction of the run's length; 0: no EMA. 1 would "
        "never take a weight in.",
    )
    loss_weighting: Literal["none", "min_snr"] = Field(
        "none",
        description="Weights of timesteps in a diffusion model's loss: `min_snr` (arXiv "
        "2303.09556) takes less of those with little noise.",
    )
    min_snr_gamma: float = Field(
        _MIN_SNR_GAMMA, gt=0.0, description="`min_snr`: signal-to-noise ratio that counts at most."
    )
    timestep_distribution: Literal["uniform", "logit_normal"] = Field(
        "uniform",
        description="How a diffusion model's timesteps are drawn in training; `logit_normal` "
        "(arXiv 2403.03206) takes more of those in the middle.",
    )
    noise_assignment: Literal["random", "immiscible"] = Field(
        "random",
        description="`immiscible` (arXiv 2406.12303): the noise of a batch goes to the images that "
        "are nearest to it.",
    )
    horizontal_flip: bool = Field(False, description="Mirror half of the images at random.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Autocast type.")
    channels_last: bool = Field(False, description="NHWC memory layout of the network.")
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="`torch.compile` the network: `auto` where the run has steps enough to pay for "
        "it, and a line in the log says which was chosen.",
    )
    dp_sgd: DpSgdConfig = DpSgdConfig()

    @model_validator(mode="after")
    def _gamma_is_used(self) -> Self:
        if self.loss_weighting == "none" and self.min_snr_gamma != _MIN_SNR_GAMMA:
            raise ValueError(
                f"min_snr_gamma is {self.min_snr_gamma:g}, but loss_weighting is none; set "
                "training.loss_weighting: min_snr, or leave min_snr_gamma out"
            )
        return self

    @model_validator(mode="after")
    def _images_stay_independent(self) -> Self:
        if self.dp_sgd.enabled and self.noise_assignment != "random":
            raise ValueError(
                f"noise_assignment {self.noise_assignment} lets the images of a batch choose among "
                "their noise, so that one image changes the gradients of the others, which "
                "dp_sgd does not allow; set training.noise_assignment: random"
            )
        return self

    @model_validator(mode="after")
    def _memory_is_saved_once(self) -> Self:
        is_divided = "micro_batch" not in self._auto and self.micro_batch is not None
        if self.dp_sgd.enabled and (self.gradient_checkpointing or is_divided):
            raise ValueError(
                "dp_sgd takes gradients of so many images at a time as memory allows; leave out "
                "training.micro_batch and training.gradient_checkpointing"
            )
        return self

    @model_validator(mode="after")
    def _gradients_can_be_taken_apart(self) -> Self:
        if self.dp_sgd.enabled and (self.compile is True or self.precision == "fp16"):
            raise ValueError(
                "dp_sgd takes gradients image by image, which works with training.compile: false "
                f"and training.precision fp32 or bf16; got compile: {str(self.compile).lower()}, "
                f"precision {self.precision}"
            )
        return self
