"""Who learns which classes a client holds, where a model learns them."""

from collections.abc import Mapping
from typing import Any

from phoenix_pipeline.families import CLASS_EMBEDDING, find_family
from phoenix_pipeline.reporting.provenance import read_setting

_CLIENTS = "federation.differential_privacy"
_IMAGES = "training.dp_sgd"
# Partial updates that leave the encoder, with the embedding of classes, at the client.
_WITHOUT_ENCODER = ("ulatdec", "udec")


def describe_classes(settings: Mapping[str, Any]) -> str:
    """Return what an arm's server learns of its clients' classes; empty if the model has none."""
    if read_setting(settings, "model.conditioning", "none") == "none":
        return ""
    return _update(settings) + _samples(settings)


def _update(settings: Mapping[str, Any]) -> str:
    layers = read_setting(settings, "personal_layers.layers") or ()
    kept = [layers] if isinstance(layers, str) else layers
    scheme = read_setting(settings, "federation.compression.partial_update", "full")
    rows = find_family(read_setting(settings, "model.family", "diffusion")).class_layers
    own = CLASS_EMBEDDING in kept or all(
        any(f"{layer}.".startswith(f"{prefix}.") for prefix in kept) for layer in rows
    )
    if own or scheme in _WITHOUT_ENCODER:
        return "The embedding of classes stayed with it, and does not tell which ones it holds."
    if read_setting(settings, "model.lora.rank", 0):
        return "The embedding of classes is not trained, and does not tell which ones it holds."
    if read_setting(settings, f"{_IMAGES}.enabled", False):
        return (
            "Which classes it holds is hidden as its images are: the noise moves the embeddings of "
            "all classes."
        )
    local = read_setting(settings, f"{_CLIENTS}.placement", "central") == "local"
    if local and read_setting(settings, f"{_CLIENTS}.enabled", False):
        return "Which classes it holds is covered by its noise, like all else in its update."
    return (
        "Its update tells the server which classes it holds: the embeddings of the others do not "
        "move, and are averaged without it."
    )


def _samples(settings: Mapping[str, Any]) -> str:
    """Return how the shares of the drawn classes are known."""
    drawn = read_setting(settings, "sampling.class_distribution", "as_training")
    if drawn != "as_training":
        return ""
    return (
        " The samples have the classes of the training images, whose numbers this simulation "
        "knows; no client sent them."
    )
