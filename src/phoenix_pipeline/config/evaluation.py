"""Groups about what is drawn from a trained model, and how it is judged and attacked."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from phoenix_pipeline.config.base import Component, Fraction, Group, Positive


class PrivacyAuditConfig(Group):
    """How hard the audit looks for training images in a model, in its samples and in an update."""

    max_members: Positive = Field(
        500, description="Training images per client that are looked for; the rest is left out."
    )
    max_held_out: Positive = Field(
        2000, description="Held-out images that these are compared with, of the same classes."
    )
    timesteps: Positive = Field(
        10, description="Diffusion timesteps that an image's denoising loss is averaged over."
    )
    attack_timestep: float = Field(
        0.2, gt=0.0, lt=1.0, description="Timestep of the PIA attack, as a fraction of T."
    )
    secmi_timestep: float = Field(
        0.1, gt=0.0, lt=1.0, description="Timestep of the SecMI attack, as a fraction of T."
    )
    secmi_interval: float = Field(
        0.1,
        gt=0.0,
        lt=1.0,
        description="Length of SecMI's DDIM steps, as a fraction of T. The paper has 0.01, which "
        "small networks on small images do not tell members by (docs/privacy.md); an image costs "
        "secmi_timestep / secmi_interval + 2 passes of the network.",
    )
    batch_size: Positive = Field(256, description="Images per pass of the network.")
    reconstructions: int = Field(
        2, ge=0, le=64, description="Images to reconstruct from one client's update; 0: none."
    )
    reconstruction_steps: Positive = Field(
        200, description="Optimisation steps per reconstruction."
    )

    @model_validator(mode="after")
    def _check_secmi(self) -> Self:
        if not self.secmi_interval <= self.secmi_timestep < 1.0 - self.secmi_interval:
            raise ValueError(
                f"privacy_audit.secmi_timestep is {self.secmi_timestep:g}; allowed: secmi_interval "
                f"({self.secmi_interval:g}) to below 1 - secmi_interval"
            )
        return self


Share = Annotated[float, Field(ge=0.0)]

# Those that ship with the project; further ones are named by what a user's package lists.
EXTRACTORS = ("fid_classifier", "fid_efficientnet_lite0", "fid_inception_v3", "fid_pixels")


_SAMPLERS = ("ddpm", "ddim", "dpm_solver++", "unipc", "euler", "heun")


class SamplingConfig(Group):
    """How images are drawn from a trained model."""

    num_images: int = Field(1000, ge=1, description="Images to draw.")
    batch_size: Positive = Field(250, description="Images per batch; does not change the images.")
    sampler: Annotated[str, Component("samplers", _SAMPLERS)] = Field(
        "dpm_solver++",
        description="Sampler of the reverse process; `euler` and `heun` are for models of "
        "`prediction_type: flow`, the others for the rest.",
    )
    num_steps: Positive = Field(20, description="Network evaluations per image.")
    timestep_spacing: Literal["leading", "trailing", "linspace"] = Field(
        "trailing",
        description="Which of the T timesteps are visited; refused where the first of them still "
        "shows more than a tenth of an image, as `leading` in 600 of 1000 steps.",
    )
    eta: Fraction = Field(0.0, description="`ddim`: 0 deterministic, 1 ancestral.")
    guidance_scale: float = Field(
        1.0,
        ge=0.0,
        le=100.0,
        description="Conditional models, classifier-free guidance (arXiv 2207.12598): 1: none; "
        "above: more like its class and less varied, for twice the time; 0: the class is ignored.",
    )
    class_distribution: Literal["as_training", "uniform"] | tuple[Share, ...] = Field(
        "as_training",
        description="Conditional models: which classes are drawn. `as_training`: as among the "
        "images that the model was trained on, `uniform`: all alike, or a share for each class, in "
        "the order of the class names.",
    )
    weights: Literal["ema", "raw"] = Field("ema", description="Which weights are sampled.")
    grid_images: Positive = Field(100, description="Images in the grid PNG.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Autocast type of a diffusion model while it is sampled."
    )
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="`torch.compile` a model that is sampled: `auto` for many images on a GPU, and "
        "a line in the log says which was chosen.",
    )

    @model_validator(mode="after")
    def _something_is_drawn(self) -> Self:
        shares = self.class_distribution
        if not isinstance(shares, str) and not sum(shares):
            raise ValueError(
                f"class_distribution is {list(shares)}; a share above 0 is needed for one class"
            )
        return self


class JudgeFileConfig(Group):
    """A classifier of the user's own as label judge, and what it expects of images.

    TorchScript files are programs: use only those of people you trust (docs/security.md).
    """

    path: str | None = Field(
        None,
        description="TorchScript (`.pt`, `.ts`) or ONNX (`.onnx`) file that takes images "
        "[N, C, H, W] and gives [N, classes]; null: the pipeline trains a judge.",
    )
    outputs: Literal["logits", "probabilities"] = Field(
        "logits", description="What it gives: `logits` before softmax, or `probabilities`."
    )
    classes: tuple[str, ...] = Field(
        (), description="Class names in the order of its outputs; empty: that of the images."
    )
    value_range: Literal["0..1", "-1..1", "0..255"] = Field(
        "0..1", description="Range of pixel values that it expects, before `mean` and `std`."
    )
    mean: tuple[float, ...] = Field(
        (), description="Subtracted from each channel in that range; empty: nothing."
    )
    std: tuple[float, ...] = Field((), description="Divides each channel then; empty: nothing.")
    image_size: Positive | None = Field(
        None, description="Side to scale images to (bilinear, antialiased); null: no scaling."
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 (grey) or 3 (RGB) to convert to; null: as the images are."
    )

    @model_validator(mode="after")
    def _one_per_channel(self) -> Self:
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, 1, 3):
            raise ValueError(
                f"mean has {len(self.mean)} and std {len(self.std)} values; allowed are as many "
                "of both: none, 1, or one for each of 3 channels"
            )
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std is {list(self.std)}; allowed are values above 0")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes is {list(self.classes)}; allowed is each name once")
        return self


class ClassifierConfig(Group):
    """The label judge: trained on the real training split, or from a file."""

    file: JudgeFileConfig = JudgeFileConfig()
    network: Literal["residual", "pooled"] = Field(
        "residual",
        description="`residual`: a ResNet; `pooled` (after arXiv 2404.00498): learns photographs "
        "in fewer passes.",
    )
    channels: Positive = Field(32, description="Channels of the first of three stages.")
    blocks_per_stage: Positive = Field(
        1, description="Residual blocks in each stage; `residual` alone has them."
    )
    epochs: Positive = Field(20, description="Passes over the training images.")
    batch_size: Positive = Field(128, description="Images per step.")
    learning_rate: float = Field(2e-3, gt=0.0, description="Peak AdamW step size (one-cycle).")
    weight_decay: float = Field(0.05, ge=0.0, description="AdamW's decoupled weight decay.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Autocast type in training; auto: bf16 on a GPU, else fp32. bf16 is the faster "
        "one on a CPU that has instructions for it.",
    )
    horizontal_flip: bool = Field(
        False,
        description="Mirror half of the images at random in training, and judge by the mean of an "
        "image and its mirror image.",
    )
    cutout: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="Side of a grey square put on each training image, as a share of the side.",
    )
    seed: int = Field(
        0, ge=0, description="Seed of the judge; not `run.seed`: one judge for all seeds of a run."
    )


class EvaluationConfig(Group):
    """What is measured, the same for every arm."""

    extractors: Literal["auto"] | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        "auto",
        description="Feature spaces in which distances are taken: "
        f"{', '.join(f'`{name}`' for name in EXTRACTORS)}, or `fid_` and the name of one that an "
        "installed package adds (docs/architecture.md). `auto`: these four, without "
        "`fid_efficientnet_lite0` where the extra `efficientnet` is not installed.",
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
    utility: bool = Field(
        False,
        description="Train two more classifiers per arm, on its samples and on as many real "
        "images, and test both on real test images; costs as much as two label judges.",
    )
    client_utility: bool = Field(
        False,
        description="Train two more classifiers per client, on its own images and on these and the "
        "samples, and test both on real test images; costs as much as two label judges for each "
        "client of each arm.",
    )
    classifier: ClassifierConfig = ClassifierConfig()
