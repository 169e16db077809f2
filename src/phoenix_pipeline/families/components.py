"""The families that there are: ours, and those of others."""

from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.families.dcgan import DcganFamily
from phoenix_pipeline.families.diffusion import DiffusionFamily
from phoenix_pipeline.families.family import Family
from phoenix_pipeline.registry import Registry, look_up

FAMILIES: Registry[type[Family]] = Registry(
    "families", {"diffusion": DiffusionFamily, "dcgan": DcganFamily}
)


def find_family(name: str) -> Family:
    """Return the family called ``name``; raises SettingsError for one that is not known here."""
    return look_up(FAMILIES, name, "model.family")()


def family_of(model: ModelConfig) -> Family:
    """Return the family of ``model``."""
    return find_family(model.family)
