"""One Pydantic model per parameter group: the only description of what a user may set.

Kedro builds these from ``conf/`` before any node runs, because they are the nodes' type hints.
Unknown keys are errors. ``docs/parameters.md`` is generated from the descriptions below.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]

DIFFUSION_PRESETS = ("output", "last_up_block", "decoder", "time_embedding")
EXTRACTORS = ("fid_classifier", "fid_efficientnet_lite0", "fid_inception_v3", "fid_pixels")


class Group(BaseModel):
    """A parameter group: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunConfig(Group):
    """What every stage of one run shares."""

    seed: int = Field(0, ge=0, description="Seed from which every random stream is derived.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
        description="Where models live: `auto` takes the first GPU, else the CPU.",
    )


class ImagesConfig(Group):
    """How raw images become one uint8 array."""

    image_size: int | None = Field(
        None, ge=8, le=256, description="Side in pixels to resize to; null: as stored, no resizing."
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 (grey) or 3 (RGB) to convert to; null: as stored."
    )
    image_column: str = Field("img", description="Parquet column: bytes or struct{bytes, path}.")
    label_column: str | None = Field(
        "label", description="Parquet column of integer or string labels; null: unlabelled."
    )
    test_fraction: float = Field(
        0.2, gt=0.0, lt=1.0, description="Share held out when no test source is given."
    )
    max_train_images: Positive | None = Field(
        None, description="Keep a class-stratified random subset of this size; null: all."
    )
    max_test_images: Positive | None = Field(None, description="The same for the test split.")


class PartitionConfig(Group):
    """How the training images are divided among clients."""

    scheme: Literal["iid", "pathological", "dirichlet", "quantity"] = Field(
        "pathological", description="How images are divided; see the other keys."
    )
    num_clients: Positive = Field(10, description="Number of data owners.")
    classes_per_client: Positive = Field(
        2, description="`pathological`: classes that each client holds (k)."
    )
    dirichlet_alpha: float = Field(
        0.5, gt=0.0, description="`dirichlet`: concentration of the class shares; small is skewed."
    )
    quantity_alpha: float = Field(
        0.5, gt=0.0, description="`quantity`: concentration of the client sizes; small is skewed."
    )
    min_images_per_client: Positive = Field(
        8, description="A draw that leaves a client with fewer is refused."
    )


class SharedPoolConfig(Group):
    """Data Sharing Strategy (arXiv 2306.04098, after arXiv 1806.00582)."""

    beta: float = Field(
        0.0, ge=0.0, lt=1.0, description="Pool size as a fraction of all client data; 0: no pool."
    )
    alpha: Fraction = Field(0.5, description="Fraction of the pool that each client receives.")
    source: Literal["clients", "held_out"] = Field(
        "clients",
        description="`clients`: drawn from the clients' own images; `held_out`: set aside before "
        "the partition, so no client owned them.",
    )
    class_balanced: bool = Field(
        True, description="Draw the pool in equal numbers per class (needs labels)."
    )
    keep_private_copy: bool = Field(
        True, description="`clients` only: owners keep the images that they gave to the pool."
    )
    warmup_steps: int = Field(
        0, ge=0, description="Steps that the global model is trained on the pool before round 1."
    )


class UNetConfig(Group):
    """The U-Net of the DDPM (diffusers `UNet2DModel`)."""

    block_out_channels: tuple[Positive, ...] = Field(
        (32, 64), min_length=1, description="Channels at each resolution, from full size down."
    )
    layers_per_block: Positive = Field(1, description="Residual blocks at each resolution.")
    attention_resolutions: tuple[Positive, ...] = Field(
        (4,), description="Feature map sides, in pixels, that get self-attention."
    )
    attention_head_dim: Positive = Field(8, description="Channels per attention head.")
    norm_num_groups: Positive = Field(8, description="Groups of GroupNorm.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout in the residual blocks.")

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> Self:
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
    """DCGAN (Radford et al., arXiv 1511.06434)."""

    latent_dim: Positive = Field(64, description="Length of the latent vector.")
    base_channels: Positive = Field(32, description="Channels at the widest resolution.")
    learning_rate: float = Field(2e-4, gt=0.0, description="Adam step size of both networks.")
    beta1: float = Field(0.5, ge=0.0, lt=1.0, description="Adam's first-moment decay.")
    federate: Literal["both", "generator"] = Field(
        "both", description="Average both networks, or keep discriminators on the clients."
    )


class ModelConfig(Group):
    """The generative model."""

    family: Literal["diffusion", "dcgan"] = Field("diffusion", description="Kind of model.")
    unet: UNetConfig = UNetConfig()
    noise: NoiseConfig = NoiseConfig()
    dcgan: DcganConfig = DcganConfig()


class TrainingConfig(Group):
    """Local training, the same in one place and at every client."""

    batch_size: Positive = Field(64, description="Images per step.")
    learning_rate: float = Field(1e-3, gt=0.0, description="Peak AdamW step size.")
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
    ema_horizon: Fraction = Field(
        0.1,
        description="EMA averaging window as a fraction of the run's length; 0: no EMA.",
    )
    horizontal_flip: bool = Field(False, description="Mirror half of the images at random.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Autocast type.")
    channels_last: bool = Field(False, description="NHWC memory layout of the network.")
    compile: bool = Field(False, description="`torch.compile` the network; pays for long runs.")


class LocalWorkConfig(Group):
    """How much each client trains in a round."""

    unit: Literal["epochs", "steps", "images_per_round"] = Field(
        "images_per_round",
        description="`epochs` over the client's images; `steps` per client; `images_per_round`: "
        "over all clients of the round, divided in proportion to what they hold.",
    )
    amount: float = Field(5748, gt=0.0, description="How many of these units.")


class FederationConfig(Group):
    """The federated program."""

    engine: Literal["in_process"] = Field(
        "in_process", description="Where clients run: all in this process."
    )
    pooled: bool = Field(
        False, description="Pool all clients' data in one place: the centralized ceiling."
    )
    num_rounds: Positive = Field(12, description="Communication rounds.")
    local_work: LocalWorkConfig = LocalWorkConfig()
    client_fraction: float = Field(
        1.0, gt=0.0, le=1.0, description="Share of the connected clients that train in a round."
    )
    min_clients: Positive = Field(
        1, description="Fewest usable replies in a round, and fewest connected clients."
    )
    workers: Positive | None = Field(
        None, description="Clients trained at a time, one thread each; null: one per core."
    )
    resume: bool = Field(True, description="Continue from the newest checkpoint of the same run.")
    checkpoint_every: Positive = Field(1, description="Rounds between checkpoints.")
    round_timeout_s: float = Field(
        3600.0, gt=0.0, description="Longest wait for a round's replies."
    )


class ThresholdFilterConfig(Group):
    """Threshold Filtering: disconnect clients whose own samples score badly."""

    enabled: bool = Field(False, description="Switch the filter on.")
    monitor_every: Positive = Field(2, description="Rounds between checks.")
    monitor_samples: int = Field(64, ge=16, description="Images that a client makes per check.")
    monitor_steps: Positive = Field(10, description="Sampler steps per image of a check.")
    absolute_threshold: float | None = Field(
        None, gt=0.0, description="Largest allowed distance; null: only the relative rule."
    )
    relative_threshold: float | None = Field(
        3.5,
        gt=0.0,
        description="Largest allowed distance in robust deviations (1.4826 x MAD) above the "
        "median of all clients; null: only the absolute rule.",
    )
    patience: Positive = Field(2, description="Consecutive bad checks before disconnection.")
    min_clients: Positive = Field(2, description="Clients that are never gone below.")

    @model_validator(mode="after")
    def _has_a_rule(self) -> Self:
        if self.enabled and self.absolute_threshold is None and self.relative_threshold is None:
            raise ValueError(
                "enabled needs absolute_threshold or relative_threshold; both are null"
            )
        return self


class PersonalizationConfig(Group):
    """Personalization layers (after FedPer, arXiv 1912.00818) with threshold filtering."""

    layers: str | tuple[str, ...] | None = Field(
        None,
        description="Layers that stay on the client: a preset (`output`, `last_up_block`, "
        "`decoder`, `time_embedding`), a list of U-Net prefixes, or null for none.",
    )
    final_average: bool = Field(
        False, description="Upload personal layers once, at the end, to export one model as well."
    )
    threshold_filter: ThresholdFilterConfig = ThresholdFilterConfig()


class SamplingConfig(Group):
    """How images are drawn from a trained model."""

    num_images: int = Field(1000, ge=1, description="Images to draw.")
    batch_size: Positive = Field(250, description="Images per batch; does not change the images.")
    sampler: Literal["ddpm", "ddim", "dpm_solver++", "unipc"] = Field(
        "dpm_solver++", description="Sampler of the reverse process."
    )
    num_steps: Positive = Field(20, description="Network evaluations per image.")
    timestep_spacing: Literal["leading", "trailing", "linspace"] = Field(
        "trailing", description="Which of the T timesteps are visited."
    )
    eta: Fraction = Field(0.0, description="`ddim`: 0 deterministic, 1 ancestral.")
    weights: Literal["ema", "raw"] = Field("ema", description="Which weights are sampled.")
    grid_images: Positive = Field(100, description="Images in the grid PNG.")


class ClassifierConfig(Group):
    """The label judge, trained on the real training split."""

    channels: Positive = Field(32, description="Channels of the first of three stages.")
    blocks_per_stage: Positive = Field(1, description="Residual blocks in each stage.")
    epochs: Positive = Field(20, description="Passes over the training images.")
    batch_size: Positive = Field(128, description="Images per step.")
    learning_rate: float = Field(2e-3, gt=0.0, description="Peak AdamW step size (one-cycle).")
    weight_decay: float = Field(0.05, ge=0.0, description="AdamW's decoupled weight decay.")
    horizontal_flip: bool = Field(False, description="Mirror half of the images at random.")


class EvaluationConfig(Group):
    """What is measured, the same for every arm."""

    extractors: tuple[Literal[EXTRACTORS], ...] = Field(  # type: ignore[valid-type]
        EXTRACTORS, min_length=1, description="Feature spaces in which distances are taken."
    )
    reference_split: Literal["train", "test"] = Field(
        "train", description="Real images that samples are held against."
    )
    max_reference_images: Positive | None = Field(
        None, description="Reference images used; null: all."
    )
    batch_size: Positive = Field(256, description="Images per batch of feature extraction.")
    nearest_k: Positive = Field(5, description="k of precision/recall, density/coverage.")
    kid_subsets: Positive = Field(50, description="Subsets over which KID is averaged.")
    kid_subset_size: Positive = Field(200, description="Images per subset of KID.")
    inception_weights: str | None = Field(
        None,
        description="File of the published FID Inception weights; null: download if possible.",
    )
    allow_download: bool = Field(
        False, description="Allow `fid_inception_v3` to download its weights."
    )
    classifier: ClassifierConfig = ClassifierConfig()
