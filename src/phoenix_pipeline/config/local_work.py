"""Group about how much clients train in a round."""

from typing import ClassVar, Literal

from pydantic import Field

from phoenix_pipeline.config.base import Group


class LocalWorkConfig(Group):
    """How much each client trains in a round."""

    BY_IMAGE_SIZE: ClassVar[tuple[str, ...]] = ("amount",)

    unit: Literal["epochs", "steps", "images_per_round"] = Field(
        "images_per_round",
        description="`epochs` over the client's images; `steps` per client; `images_per_round`: "
        "over all clients of the round, divided in proportion to what they hold.",
    )
    amount: float = Field(
        11520,
        gt=0.0,
        description="How many of these units; `auto`: images by their size, so that all rounds "
        "together train on as many as docs/own-data.md lists, however many rounds there are.",
    )
