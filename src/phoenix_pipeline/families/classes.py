"""Which class each sample of a conditional model is to show."""

from collections.abc import Mapping, Sequence

import numpy as np

from phoenix_pipeline.config import ModelConfig, SamplingConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families import family_of
from phoenix_pipeline.families.provenance import ModelDescription
from phoenix_pipeline.images import GLOBAL_MODEL

# (sqrt(5) - 1) / 2: its multiples, modulo 1, fill [0, 1) as evenly as any sequence does.
_GOLDEN = 0.6180339887498949


def check_classes(
    model: ModelConfig, sampling: SamplingConfig, class_names: Sequence[str] | None = None
) -> None:
    """Refuse classes of an unconditional model, or odd shares; raises SettingsError."""
    shares = sampling.class_distribution
    if model.conditioning == "none":
        _refuse_classes(sampling)
        return
    if sampling.guidance_scale not in (0.0, 1.0) and not model.label_dropout:
        raise SettingsError(
            f"sampling.guidance_scale is {sampling.guidance_scale:g}, but model.label_dropout is "
            "0: the model never learns images without a label, which guidance starts from; set "
            "model.label_dropout to 0.1, or sampling.guidance_scale to 1"
        )
    if class_names is not None and not isinstance(shares, str) and len(shares) != len(class_names):
        raise SettingsError(
            f"sampling.class_distribution has {len(shares)} shares, but there are "
            f"{len(class_names)} classes ({', '.join(class_names)}); give one share for each, "
            "as_training or uniform"
        )


def _refuse_classes(sampling: SamplingConfig) -> None:
    asked = {"guidance_scale": 1.0, "class_distribution": "as_training"}
    for name, plain in asked.items():
        if (value := getattr(sampling, name)) != plain:
            raise SettingsError(
                f"sampling.{name} is {value}, but the model has no classes (model.conditioning is "
                f"none); set model.conditioning: labels and train, or sampling.{name}: {plain}"
            )


def class_shares(
    metadata: ModelDescription, sampling: SamplingConfig, client_id: int = GLOBAL_MODEL
) -> np.ndarray:
    """Return the shares [classes] of the model of ``client_id``, up to a factor.

    A client whose class embedding is its own has never learnt classes that it does not hold: they
    are left out, and if nothing is left, it draws as it was trained. ``client_id``: whose model; -1
    for the one that all share.
    Raises SettingsError: nobody knows what the model was trained on.
    """
    chosen, names = sampling.class_distribution, metadata["settings"]["class_names"]
    counts = metadata.get("class_counts")
    if counts is None and chosen == "as_training":
        raise SettingsError(
            "sampling.class_distribution is as_training, but of the sites of a deployment nobody "
            "knows how many images of each class they hold; set it to uniform or to shares"
        )
    own = _counts(counts, client_id) if counts else np.ones(len(names))
    if chosen == "as_training":
        return own
    shares = np.ones(len(names)) if chosen == "uniform" else np.array(chosen, dtype=float)
    if client_id != GLOBAL_MODEL and _embedding_is_personal(metadata):
        learnt = shares * (own > 0)
        return learnt if learnt.any() else own
    return shares


def spread_labels(shares: np.ndarray, count: int) -> np.ndarray:
    """Return labels int64 [count] in these ``shares``, as nearly as any beginning of them can.

    Label ``i`` depends on ``shares`` and on ``i`` alone: u_i = frac((i + 1/2) phi), a
    low-discrepancy sequence, goes to the class whose part of [0, 1) it falls into.
    """
    places = ((np.arange(count) + 0.5) * _GOLDEN) % 1.0
    bounds = np.cumsum(shares, dtype=float)
    labels = np.searchsorted(bounds, places * bounds[-1], side="right")
    # A product that is rounded up to the bound itself belongs to the last class that has a share.
    return np.minimum(labels, np.flatnonzero(shares)[-1]).astype(np.int64)


def labels_by_number(labels: Sequence[int | str], class_names: Sequence[str]) -> list[int]:
    """Return classes given by name or number as numbers; raises SettingsError for unknown ones."""
    if not class_names:
        raise SettingsError(
            "labels were given, but the model has no classes; train with model.conditioning: "
            "labels, or leave them out"
        )
    numbers = []
    for label in labels:
        number = label
        if isinstance(label, str):
            number = class_names.index(label) if label in class_names else -1
        if isinstance(number, bool) or not 0 <= int(number) < len(class_names):
            raise SettingsError(
                f"label {label!r} is none of the model's classes; allowed are 0 to "
                f"{len(class_names) - 1} or {', '.join(class_names)}"
            )
        numbers.append(int(number))
    return numbers


def _counts(counts: Mapping[str, Sequence[int]], client_id: int) -> np.ndarray:
    if client_id == GLOBAL_MODEL:
        return np.sum([np.asarray(own, dtype=float) for own in counts.values()], axis=0)
    return np.asarray(counts[str(client_id)], dtype=float)


def _embedding_is_personal(metadata: ModelDescription) -> bool:
    settings = metadata["settings"]
    family = family_of(ModelConfig.model_validate(settings["model"]))
    drawn = [name for name in family.class_layers if name.split(".")[0] not in family.undrawn]
    personal = tuple(settings["personal_layers"])
    return any(f"{name}.".startswith(f"{prefix}.") for name in drawn for prefix in personal)
