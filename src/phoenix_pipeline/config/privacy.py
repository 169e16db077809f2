"""Group of the stage ``privacy_audit``."""

from pydantic import Field

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
    batch_size: Positive = Field(256, description="Images per pass of the network.")
    reconstructions: int = Field(
        2, ge=0, le=64, description="Images to reconstruct from one client's update; 0: none."
    )
    reconstruction_steps: Positive = Field(
        200, description="Optimisation steps per reconstruction."
    )
