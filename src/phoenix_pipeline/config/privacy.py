"""Group of the stage ``privacy_audit``."""

from typing import Self

from pydantic import Field, model_validator

from phoenix_pipeline.config.base import Group, Positive


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
