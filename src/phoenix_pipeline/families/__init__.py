"""The kinds of generative model behind one set of verbs, and the folder that a trained one lies in.

Each kind is one file here, or one object of a user's package.
"""

from phoenix_pipeline.families.components import FAMILIES, family_of, find_family
from phoenix_pipeline.families.family import CLASS_EMBEDDING, Family

__all__ = ["CLASS_EMBEDDING", "FAMILIES", "Family", "family_of", "find_family"]
