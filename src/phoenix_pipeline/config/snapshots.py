"""The block of the group ``federation`` about what is kept of a model by round."""

from pydantic import Field

from phoenix_pipeline.config.base import Group, Positive


class SnapshotsConfig(Group):
    """Averaged weights of the global model by round, from which the report draws scores by round.

    Training only writes them; ``evaluation`` draws and scores afterwards. An arm whose clients have
    models of their own keeps none, as the server never has these.
    """

    every: int = Field(
        0,
        ge=0,
        description="Keep the averaged weights after every n-th round and the last; 0: never.",
    )
    images: Positive = Field(500, description="Images that are drawn from each of them and scored.")
