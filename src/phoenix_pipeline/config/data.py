"""Groups about the run as a whole, its images, and who holds them."""

import re
from typing import Annotated, Any, Literal

from PIL import ImageColor
from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from phoenix_pipeline.config.base import Component, Fraction, Group, Positive


def _check_colour(value: str) -> str:
    ImageColor.getrgb(value)  # a ValueError names the value
    return value


def _split_window(value: Any) -> Any:
    # A list cannot be written after --params, which divides at commas.
    return value.split("..") if isinstance(value, str) else value


def _check_window(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] >= value[1]:
        raise ValueError(f"must be two rising values, got {list(value)}")
    return value


def _check_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", value):
        raise ValueError(f"got {value!r}, must be auto, cpu, cuda, cuda:N (N a number) or mps")
    return value


Device = Annotated[str, AfterValidator(_check_device)]
Colour = Annotated[str, AfterValidator(_check_colour)]
Window = Annotated[
    tuple[float, float], BeforeValidator(_split_window), AfterValidator(_check_window)
]
Fit = Literal["crop", "pad", "stretch"]


_SCHEMES = ("iid", "pathological", "dirichlet", "quantity")


class RunConfig(Group):
    """What every stage of one run shares."""

    seed: int = Field(0, ge=0, description="Seed from which every random stream is derived.")
    device: Device = Field(
        "auto",
        description="Where models live: `cpu`, `cuda`, `cuda:1`, `mps`; `auto`: the first GPU, "
        "else the CPU.",
    )
    arms_at_a_time: Literal["auto"] | Positive = Field(
        "auto",
        description="Arms that `kedro run` trains side by side, each in a process with its share "
        "of cores and memory. `auto`: on a CPU one per core, with 2 GiB each; elsewhere, and with "
        "an engine other than `in_process`, one. How many clients a process stacks, and with it "
        "the rounding of an arm, depends on its share.",
    )
    extensions: tuple[str, ...] = Field(
        (),
        description="Modules that register components of your own (docs/extending.md), as a list "
        "or separated by spaces.",
    )
    licence: str | None = Field(
        None,
        min_length=1,
        description="Licence of models and samples, for their cards: an identifier of Hugging Face "
        "such as `cc-by-4.0`; null: none is named.",
    )

    @field_validator("extensions", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        return given.replace(",", " ").split() if isinstance(given, str) else given


class ImagesConfig(Group):
    """How raw images become one uint8 array."""

    image_size: int | None = Field(
        None, ge=8, le=256, description="Side in pixels to resize to; null: as stored, no resizing."
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 (grey) or 3 (RGB) to convert to; null: as stored."
    )
    fit: Fit = Field(
        "crop",
        description="How images that are not square become so, with `image_size`: `crop` keeps the "
        "middle, `pad` all of it on `background`, `stretch` all of it out of shape.",
    )
    background: Colour = Field(
        "white",
        description="Colour, by name or `#rrggbb`, that transparent and padded images are put on.",
    )
    window: Window | None = Field(
        None,
        description="Values of deep grey images (16 and 32 bits, float) that become black and "
        "white, as `[low, high]` or `low..high`; null: 0 to 65535 for 16 bits, 0 to 1 for float.",
    )
    max_megapixels: float = Field(
        179.0, gt=0.0, description="Largest image that is decoded; larger ones are an error."
    )
    max_broken_fraction: Fraction = Field(
        0.01,
        description="Share of the images that may be undecodable: they are left out and named; "
        "more are an error.",
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
    seed: int = Field(
        0,
        ge=0,
        description="Draws the held-out share and the subsets; not `run.seed`: runs of several "
        "seeds are held against the same images.",
    )


class PartitionConfig(Group):
    """How the training images are divided among clients."""

    scheme: Annotated[str, Component("partition_schemes", _SCHEMES)] = Field(
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
        0.0,
        ge=0.0,
        lt=1.0,
        description="Pool size as a fraction of what clients hold of their own, as in arXiv "
        "1806.00582; 0: no pool.",
    )
    alpha: Fraction = Field(0.5, description="Fraction of the pool that each client receives.")
    source: Literal["clients", "held_out"] = Field(
        "clients",
        description="`clients`: drawn from the clients' own images; `held_out`: set aside before "
        "the partition, so no client owned them.",
    )
    class_balanced: bool = Field(
        True, description="Draw the pool in equal numbers per class, where there are labels."
    )
    keep_private_copy: bool = Field(
        True, description="`clients` only: owners keep the images that they gave to the pool."
    )
    warmup_steps: int = Field(
        0, ge=0, description="Steps that the global model is trained on the pool before round 1."
    )
