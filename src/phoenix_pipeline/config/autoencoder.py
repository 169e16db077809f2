"""The group of the autoencoder that this project trains itself."""

from typing import Self

from pydantic import Field, model_validator

from phoenix_pipeline.config.base import Group, Positive, check_norm_groups


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
