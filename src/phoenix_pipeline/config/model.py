"""Groups that describe the generative model."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from phoenix_pipeline.config.base import Component, Group, Positive
from phoenix_pipeline.registry import Registry

# How often guidance hides labels in the literature: 0.1 to 0.2 (Ho and Salimans).
_LABEL_DROPOUT = 0.1
_FAMILIES = ("diffusion", "dcgan")


def check_norm_groups(channels: Iterable[int], groups: int) -> None:
    """Raise ValueError for ``block_out_channels`` that ``norm_num_groups`` does not divide."""
    for count in channels:
        if count % groups:
            raise ValueError(
                f"block_out_channels has {count}, which norm_num_groups={groups} does not divide"
            )


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
        if "block_out_channels" not in self._auto:
            check_norm_groups(self.block_out_channels, self.norm_num_groups)
        return self


class NoiseConfig(Group):
    """The forward process and what the network predicts."""

    num_train_timesteps: int = Field(1000, ge=2, description="T, steps of the forward process.")
    schedule: Literal["linear", "cosine"] = Field(
        "cosine", description="`linear`: Ho et al. 2020; `cosine`: Nichol and Dhariwal 2021."
    )
    beta_start: float = Field(1e-4, gt=0.0, lt=1.0, description="`linear`: first variance.")
    beta_end: float = Field(0.02, gt=0.0, lt=1.0, description="`linear`: last variance.")
    prediction_type: Literal["epsilon", "v_prediction", "flow"] = Field(
        "v_prediction",
        description="Target: the noise, v (Salimans and Ho 2022), or `flow`: the velocity of a "
        "straight path from image to noise (flow matching, arXiv 2210.02747), which no `schedule` "
        "shapes and the samplers `euler` and `heun` follow.",
    )
    zero_terminal_snr: bool = Field(
        False,
        description="Rescale the schedule so that nothing of an image is left at the last timestep "
        "(arXiv 2305.08891); for `v_prediction`.",
    )

    @model_validator(mode="after")
    def _the_last_timestep_tells_something(self) -> Self:
        if self.zero_terminal_snr and self.prediction_type != "v_prediction":
            raise ValueError(
                "zero_terminal_snr leaves noise alone at the last timestep, which is for "
                f"prediction_type v_prediction, but it is {self.prediction_type}; set "
                "model.noise.prediction_type: v_prediction, or zero_terminal_snr: false"
            )
        return self


class LoraConfig(Group):
    """Low-rank adapters (LoRA, arXiv 2106.09685): with `rank` above 0 only they are trained and
    sent; the weights of `start_from` stay as they are and never travel.
    """

    rank: int = Field(0, ge=0, description="Rank of the adapters; 0: none, all weights train.")
    alpha: float | None = Field(
        None, gt=0.0, description="Adapters count `alpha / rank` times; null: `rank`, so once."
    )
    target_modules: tuple[str, ...] = Field(
        ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"),
        min_length=1,
        description="Linear layers and convolutions that get one, by the end of their names.",
    )
    freeze_a: bool = Field(
        False,
        description="Of an adapter's two factors B A, A stays as drawn from the seed, and only B "
        "is trained and sent (FFA-LoRA, arXiv 2403.12313).",
    )
    modules_to_save: tuple[str, ...] = Field(
        (),
        description="Layers that are trained and sent whole beside the adapters: convolutions, "
        "linear and normalisation layers, by the end of their names.",
    )

    @model_validator(mode="after")
    def _one_way_to_train(self) -> Self:
        both = sorted(set(self.target_modules) & set(self.modules_to_save))
        if both:
            raise ValueError(
                f"{', '.join(both)} are in target_modules and in modules_to_save; a layer gets an "
                "adapter or is trained whole; take them out of one"
            )
        return self


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
    """The generative model.

    The settings of a family of one's own are the group that has its name (docs/extending.md).
    """

    # Only groups of families that are known here: see `_read_further_families`.
    model_config = ConfigDict(extra="allow")

    family: Annotated[str, Component("families", _FAMILIES)] = Field(
        "diffusion", description="Kind of model."
    )
    conditioning: Literal["none", "labels"] = Field(
        "none",
        description="`labels`: the model learns which class an image is of, and draws images of a "
        "given class.",
    )
    label_dropout: float = Field(
        _LABEL_DROPOUT,
        ge=0.0,
        lt=1.0,
        description="`labels`: how often a diffusion model's label is hidden in training, for "
        "classifier-free guidance (arXiv 2207.12598).",
    )
    start_from: str | None = Field(
        None,
        min_length=1,
        description="Folder, or name on the Hugging Face hub, of a diffusers `DDPMPipeline` or "
        "`UNet2DModel`, such as that of a trained arm, whose weights the training starts from; "
        "null: random weights.",
    )
    autoencoder: str | None = Field(
        None,
        min_length=1,
        description="Folder, or name on the hub, of a diffusers `AutoencoderKL`: the model learns "
        "its latents, and what it draws is decoded (docs/latent.md); null: pixels.",
    )
    allow_download: bool = Field(
        False,
        description="Allow `start_from` and `autoencoder` to be downloaded where they are names on "
        "the hub, `owner/name` or `owner/name@revision`; else the hub's local cache has to have "
        "them.",
    )
    unet: UNetConfig = UNetConfig()
    noise: NoiseConfig = NoiseConfig()
    lora: LoraConfig = LoraConfig()
    dcgan: DcganConfig = DcganConfig()

    def further(self) -> dict[str, Group]:
        """Return the groups of families that are not ours, by name."""
        return dict(self.model_extra or {})

    def waiting(self) -> Iterator[str]:
        """Yield the dotted names of the keys that wait for the images, inner groups included."""
        yield from super().waiting()
        for name, group in self.further().items():
            yield from (f"{name}.{key}" for key in group.waiting())

    @model_validator(mode="before")
    @classmethod
    def _read_further_families(cls, values: Any) -> Any:
        """Read the groups of families that are not ours; the one in use has its defaults."""
        if not isinstance(values, Mapping):
            return values
        chosen = values.get("family")
        if isinstance(chosen, str) and chosen not in _FAMILIES and chosen in _further_families():
            values = {chosen: {}, **values}
        return {
            name: value if name in cls.model_fields else _read_group(name, value)
            for name, value in values.items()
        }

    @model_validator(mode="after")
    def _labels_are_used(self) -> Self:
        if self.conditioning == "none" and self.label_dropout != _LABEL_DROPOUT:
            raise ValueError(
                f"label_dropout is {self.label_dropout:g}, but conditioning is none, where no "
                "label is used; set model.conditioning: labels, or leave label_dropout out"
            )
        return self


def _further_families() -> Registry[Any]:
    return Registry("families", {})


def _read_group(name: str, value: Any) -> Group:
    known = _further_families()
    if name not in known:
        errors = [InitErrorDetails(type="extra_forbidden", loc=(name,), input=value)]
        raise ValidationError.from_exception_data("ModelConfig", errors)
    try:
        group: Group = known[name].Settings.model_validate(value or {})
    except ValidationError as error:
        errors = [
            InitErrorDetails(
                type=PydanticCustomError("family_settings", "{message}", {"message": found["msg"]}),
                loc=(name, *found["loc"]),
                input=found["input"],
            )
            for found in error.errors()
        ]
        raise ValidationError.from_exception_data("ModelConfig", errors) from error
    return group
