"""Groups about what crosses the wire: codecs up and down, partial updates, a simulated link."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from phoenix_pipeline.config.base import Component, Group

# Its rounding is not right on average: what is left out must be sent later.
_NEAREST = "uniform"
_CODECS = ("none", "fp16", "int8", "int4", "uniform", "top_k")


class CodecConfig(Group):
    """How the arrays of a message are written."""

    codec: Annotated[str, Component("codecs", _CODECS)] = Field(
        "none",
        description="`none`: as they are; `fp16`; `int8`, `int4`: a scale per output channel, "
        "stochastic rounding; `uniform`: steps of even width, nearest codes; "
        "`top_k`: the largest values only, as fp16, with their positions.",
    )
    step: float = Field(
        1.0,
        gt=0.0,
        le=4.0,
        description="`uniform`: width of a step in root mean squares of an array; 1 takes about "
        "2.1 bits per value, 1.5 about 1.5.",
    )
    density: float = Field(
        0.05, gt=0.0, le=1.0, description="`top_k`: share of the values of each array that is sent."
    )


class UplinkConfig(CodecConfig):
    """From a client to the server: the difference to the weights that the client received."""

    error_feedback: bool = Field(
        True,
        description="The client keeps what its codec left out and adds it to its next update.",
    )

    @model_validator(mode="after")
    def _loses_nothing_for_good(self) -> Self:
        if self.codec == _NEAREST and not self.error_feedback:
            raise ValueError(
                f"codec {self.codec} is right only together with what it left out before; set "
                "error_feedback: true, or codec to int8 or int4"
            )
        return self


class DownlinkConfig(CodecConfig):
    """From the server to the clients."""

    relative_to: Literal["weights", "last_broadcast"] = Field(
        "weights",
        description="What is written: the `weights` themselves, or their difference to the "
        "`last_broadcast` that the client got.",
    )
    max_missed: int = Field(
        8,
        ge=0,
        description="`last_broadcast`: rounds that a client may miss and still be sent a "
        "difference; the server keeps the broadcasts of as many. Who missed more gets all weights, "
        "uncompressed.",
    )

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        if self.codec == _NEAREST and self.relative_to == "weights":
            raise ValueError(
                f"codec {self.codec} rounds to the nearest of a few codes, which weights do not "
                "bear; set relative_to: last_broadcast, or codec to none, fp16, int8 or int4"
            )
        if self.codec == "top_k" and self.relative_to == "weights":
            raise ValueError(
                "codec top_k leaves most values out, and weights that are left out are lost; set "
                "relative_to: last_broadcast, or codec to none, fp16, int8 or int4"
            )
        if self.codec == "none" and self.relative_to == "last_broadcast":
            raise ValueError(
                "codec none writes a difference with as many bytes as the weights; set relative_to "
                "to weights, or codec to fp16, int8, int4, uniform or top_k"
            )
        return self


class CompressionConfig(Group):
    """Less traffic: what a client sends, and how arrays are written in each direction."""

    partial_update: Literal["full", "usplit", "ulatdec", "udec"] = Field(
        "full",
        description="Parts of the U-Net that are exchanged: `full`; `usplit`: clients are paired "
        "at random each round, one sends the encoder and bottleneck, the other the decoder; "
        "`ulatdec`: bottleneck and decoder, the rest stays on the client; `udec`: decoder only.",
    )
    up: UplinkConfig = UplinkConfig()
    down: DownlinkConfig = DownlinkConfig()

    @property
    def is_active(self) -> bool:
        """Whether messages differ from plain weights in both directions."""
        return self.up.codec != "none" or self.down.codec != "none" or self.is_split

    @property
    def is_split(self) -> bool:
        """Whether clients of one round send different arrays."""
        return self.partial_update == "usplit"


class LinkConfig(Group):
    """A simulated link: what the counted bytes would take, each client on a line of its own."""

    uplink_mbit_s: float | None = Field(
        None, gt=0.0, description="From a client to the server; null: no link is simulated."
    )
    downlink_mbit_s: float | None = Field(
        None, gt=0.0, description="From the server to a client; null: no link is simulated."
    )
    latency_ms: float = Field(0.0, ge=0.0, description="Added to every message, each way.")

    @model_validator(mode="after")
    def _has_both_ways(self) -> Self:
        if (self.uplink_mbit_s is None) != (self.downlink_mbit_s is None):
            raise ValueError(
                f"uplink_mbit_s is {self.uplink_mbit_s} and downlink_mbit_s "
                f"{self.downlink_mbit_s}; set both, or both to null"
            )
        return self
