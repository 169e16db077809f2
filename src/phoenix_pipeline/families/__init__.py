"""The kinds of generative model, a file or an object each, and the folder of a trained one."""

from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.families.dcgan import DcganFamily
from phoenix_pipeline.families.diffusion import DiffusionFamily
from phoenix_pipeline.families.family import CLASS_EMBEDDING, Family
from phoenix_pipeline.families.one_loss import OneLossFamily
from phoenix_pipeline.registry import Registry, look_up

__all__ = ["CLASS_EMBEDDING", "FAMILIES", "Family", "OneLossFamily", "family_of", "find_family"]

# Ours, and those of others.
FAMILIES: Registry[type[Family]] = Registry(
    "families", {"diffusion": DiffusionFamily, "dcgan": DcganFamily}
)


def find_family(name: str) -> Family:
    """Return the family called ``name``; raises SettingsError for one that is not known here."""
    return look_up(FAMILIES, name, "model.family")()


def family_of(model: ModelConfig) -> Family:
    """Return the family of ``model``."""
    return find_family(model.family)
