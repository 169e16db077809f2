"""The kinds of generative model behind one set of verbs, and the folder that a trained one lies in.

Each kind is one file here, or one object of a user's package.
"""

from phoenix_pipeline.families.components import FAMILIES, family_of, find_family
from phoenix_pipeline.families.family import CLASS_EMBEDDING, Family
from phoenix_pipeline.families.one_loss import OneLossFamily

__all__ = ["CLASS_EMBEDDING", "FAMILIES", "Family", "OneLossFamily", "family_of", "find_family"]
