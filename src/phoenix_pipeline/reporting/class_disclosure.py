"""Who learns which classes a client holds, where a model learns them."""

from collections.abc import Mapping
from typing import Any

from phoenix_pipeline.reporting.provenance import read_setting

_CLIENTS = "federation.differential_privacy"
_IMAGES = "training.dp_sgd"


def describe_classes(settings: Mapping[str, Any]) -> str:
    """Return a sentence on it; an empty text for an unconditional model."""
    if read_setting(settings, "model.conditioning", "none") == "none":
        return ""
    names = read_setting(settings, "personal_layers.layers") or ()
    kept = [names] if isinstance(names, str) else names
    if any(name.split(".")[0] == "class_embedding" for name in kept):
        return "Which classes it holds does not show: the embedding of classes stayed with it."
    if read_setting(settings, f"{_IMAGES}.enabled", False):
        return (
            "Which classes it holds is hidden as its images are: the noise moves the embeddings of "
            "all classes."
        )
    if (
        read_setting(settings, f"{_CLIENTS}.enabled", False)
        and read_setting(settings, f"{_CLIENTS}.placement", "central") == "local"
    ):
        return "Which classes it holds is covered by its noise, like all else in its update."
    return (
        "Its update tells the server which classes it holds: the embeddings of the others do not "
        "move, and are averaged without it."
    )
