"""Local training, the same for every kind of model."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from phoenix_pipeline.config.base import Fraction, Group, Positive
from phoenix_pipeline.config.differential_privacy import DpSgdConfig


class TrainingConfig(Group):
    """Local training, the same in one place and at every client."""

    BY_IMAGE_SIZE: ClassVar[tuple[str, ...]] = ("batch_size", "learning_rate")

    batch_size: Positive = Field(64, description="Images per step; `auto`: by image size.")
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
    def _gradients_can_be_taken_apart(self) -> Self:
        if self.dp_sgd.enabled and (self.compile is True or self.precision == "fp16"):
            raise ValueError(
                "dp_sgd takes gradients image by image, which works with training.compile: false "
                f"and training.precision fp32 or bf16; got compile: {str(self.compile).lower()}, "
                f"precision {self.precision}"
            )
        return self
