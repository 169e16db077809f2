"""Groups that describe the generative model."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from phoenix_pipeline.config.base import Group, Positive

# How often guidance hides labels in the literature: 0.1 to 0.2 (Ho and Salimans).
_LABEL_DROPOUT = 0.1


class UNetConfig(Group):
    """The U-Net of the DDPM (diffusers `UNet2DModel`)."""

    BY_IMAGE_SIZE: ClassVar[tuple[str, ...]] = ("block_out_channels", "attention_resolutions")

    block_out_channels: tuple[Positive, ...] = Field(
        (32, 64),
        min_length=1,
        description="Channels at each resolution, from full size down; `auto`: by image size.",
    )
    layers_per_block: Positive = Field(1, description="Residual blocks at each resolution.")
    attention_resolutions: tuple[Positive, ...] = Field(
        (4,),
        description="Feature map sides, in pixels, that get self-attention; `auto`: the smallest.",
    )
    attention_head_dim: Positive = Field(8, description="Channels per attention head.")
    norm_num_groups: Positive = Field(8, description="Groups of GroupNorm.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout in the residual blocks.")

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> Self:
        if "block_out_channels" in self.auto:
            return self
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"block_out_channels has {channels}, which norm_num_groups="
                    f"{self.norm_num_groups} does not divide"
                )
        return self


class NoiseConfig(Group):
    """The forward process and what the network predicts."""

    num_train_timesteps: int = Field(1000, ge=2, description="T, steps of the forward process.")
    schedule: Literal["linear", "cosine"] = Field(
        "cosine", description="`linear`: Ho et al. 2020; `cosine`: Nichol and Dhariwal 2021."
    )
    beta_start: float = Field(1e-4, gt=0.0, lt=1.0, description="`linear`: first variance.")
    beta_end: float = Field(0.02, gt=0.0, lt=1.0, description="`linear`: last variance.")
    prediction_type: Literal["epsilon", "v_prediction"] = Field(
        "v_prediction", description="Target: the noise, or v (Salimans and Ho 2022)."
    )


class DcganConfig(Group):
    """DCGAN (Radford et al., arXiv 1511.06434); three keys may be `auto`, by image size."""

    BY_IMAGE_SIZE: ClassVar[tuple[str, ...]] = (
        "latent_dim", "base_channels", "layers_per_resolution",
    )  # fmt: skip

    latent_dim: Positive = Field(32, description="Length of the latent vector.")
    base_channels: int = Field(
        64,
        ge=1,
        le=1024,
        description="Channels at half the images' side and above, doubled at each further halving "
        "down to 4 to 7 pixels.",
    )
    layers_per_resolution: Positive = Field(
        2,
        description="Convolutions at each resolution: 1 as in the paper, too weak a discriminator "
        "for 8 pixels; more add 3x3 ones.",
    )
    beta1: float = Field(0.5, ge=0.0, lt=1.0, description="Adam's first-moment decay.")
    federate: Literal["both", "generator"] = Field(
        "both", description="Average both networks, or keep discriminators on the clients."
    )


class ModelConfig(Group):
    """The generative model."""

    family: Literal["diffusion", "dcgan"] = Field("diffusion", description="Kind of model.")
    conditioning: Literal["none", "labels"] = Field(
        "none",
        description="`labels`: the diffusion model learns which class an image is of, and draws "
        "images of a given class.",
    )
    label_dropout: float = Field(
        _LABEL_DROPOUT,
        ge=0.0,
        lt=1.0,
        description="`labels`: how often a label is hidden in training, for classifier-free "
        "guidance (arXiv 2207.12598).",
    )
    start_from: str | None = Field(
        None,
        min_length=1,
        description="Folder of a diffusers `DDPMPipeline` or `UNet2DModel`, such as that of a "
        "trained arm, whose weights the training starts from; null: random weights.",
    )
    unet: UNetConfig = UNetConfig()
    noise: NoiseConfig = NoiseConfig()
    dcgan: DcganConfig = DcganConfig()

    @model_validator(mode="after")
    def _labels_are_used(self) -> Self:
        if self.conditioning == "none" and self.label_dropout != _LABEL_DROPOUT:
            raise ValueError(
                f"label_dropout is {self.label_dropout:g}, but conditioning is none, where no "
                "label is used; set model.conditioning: labels, or leave label_dropout out"
            )
        if self.conditioning != "none" and self.family != "diffusion":
            raise ValueError(
                f"conditioning {self.conditioning} is for family diffusion, but family is "
                f"{self.family}; set model.conditioning: none for this arm"
            )
        return self
