"""Cards of models and samples: a README.md with the metadata that Hugging Face reads.

All they say is from what lies beside the model: ``phoenix.json`` and the scores of its samples.
"""

from collections.abc import Mapping
from typing import Any

from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.families import find_family
from phoenix_pipeline.metrics.components import describe
from phoenix_pipeline.reporting.formatting import MISSING, format_values

CARD_FILE = "README.md"
_TAGS = ("federated-learning", "image-generation")
_TASK = "unconditional-image-generation"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
_LARGEST = "1M<n<10M"
# Of the conditions of scores: what a reader has to know to compare them.
_CONDITIONS = (
    "num_samples", "num_reference", "reference_split", "sampler", "num_steps", "timestep_spacing",
    "guidance_scale", "class_distribution", "weights", "seed",
)  # fmt: skip
_TOLD = ("arm", "trained_with", "data", "disclosure", "epsilon")
_WITHOUT_MEMORISATION = (
    "A generated image can resemble a training image. Whether this model's samples do was not "
    "measured."
)


def render_model_card(
    description: Mapping[str, Any], metrics: Mapping[str, Any] | None = None
) -> str:
    """Return the card of a model's folder.

    Args:
        description: of its ``phoenix.json``.
        metrics: of its samples' ``metrics.json``; None: nobody has scored it, or an earlier model.
    """
    _check(description)
    family = description["settings"]["model"]["family"]
    front = {
        "license": licence_of(description),
        "library_name": find_family(family).library,
        "pipeline_tag": _TASK,
        "tags": [*_TAGS, family],
    }
    lines = [*front_matter(front), f"# {description['arm']}", ""]
    lines += [f"An image generator ({family}) that was trained by federated learning.", ""]
    lines += [*_table(_facts(description)), "", *_use(description), ""]
    lines += [*_disclosure(description), "", *_scores(metrics), ""]
    return "\n".join([*lines, *_limits(metrics), ""])


def render_sample_card(
    description: Mapping[str, Any], metrics: Mapping[str, Any], num_images: int
) -> str:
    """Return the card of the folder of an arm's samples; see :func:`render_model_card`.

    ``num_images``: in ``samples.parquet``.
    """
    _check(description)
    front = sample_front_matter(licence_of(description), num_images, "samples.parquet")
    facts = {"samples": f"{num_images:,}", **_facts(description)}
    lines = [*front, f"# Samples of {description['arm']}", ""]
    lines += ["A model drew every image here; none was picked.", ""]
    lines += [*_table(facts), "", *_disclosure(description), "", *_scores(metrics), ""]
    return "\n".join([*lines, *_limits(metrics), ""])


def render_outdated_card(arm: str) -> str:
    """Return the card of samples that are of an earlier model than the one that is there."""
    lines = [f"# Samples of {arm}", "", "They are of an earlier model than the one that is there."]
    return "\n".join([*lines, f"Draw them again: `kedro run --pipelines {arm}`.", ""])


def sample_front_matter(
    licence: str | None, num_images: int, data_files: str | None = None
) -> list[str]:
    """Return the metadata of a set of generated images.

    ``data_files``: the one file that they lie in; None: a folder, which is read as it is.
    """
    configs = [{"config_name": "default", "data_files": data_files}] if data_files else None
    return front_matter(
        {
            "license": licence,
            "task_categories": [_TASK],
            "tags": [*_TAGS, "synthetic"],
            "size_categories": [_size(num_images)],
            "configs": configs,
        }
    )


def licence_of(description: Mapping[str, Any]) -> str | None:
    """Return the licence that the user chose for the training; None where none was chosen."""
    run: Mapping[str, Any] = description["trained_with"].get("run", {})
    licence: str | None = run.get("licence")
    return licence


def front_matter(values: Mapping[str, Any]) -> list[str]:
    """Return lines of YAML between dashes; what is None is left out."""
    import yaml

    given = {key: value for key, value in values.items() if value is not None}
    text = yaml.safe_dump(given, sort_keys=False, allow_unicode=True, width=1000)
    return ["---", *text.splitlines(), "---", ""]


def _check(description: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a model that does not say what a card has to."""
    missing = [name for name in _TOLD if name not in description]
    if missing:
        raise CheckpointError(
            f"the model's phoenix.json has no {', '.join(missing)}, which its card needs: an "
            "earlier version of this project made it; train it again"
        )


def _size(num_images: int) -> str:
    return next((name for bound, name in _SIZES if num_images < bound), _LARGEST)


def _facts(description: Mapping[str, Any]) -> dict[str, str]:
    settings, counts = description["settings"], description["num_examples"]
    side, colours = settings["image_size"], "RGB" if settings["channels"] == 3 else "grey"
    classes, epsilon = settings.get("class_names", ()), description.get("epsilon")
    return {
        "arm": description["arm"],
        "images": f"{side} x {side} pixels, {colours}",
        **({"classes": ", ".join(classes)} if classes else {}),
        "training": f"{sum(counts.values()):,} images at {len(counts)} clients (shared ones "
        f"counted at each), {description['rounds']} rounds, seed {settings['seed']}",
        "data": ", ".join(f"{name} {digest}" for name, digest in description["data"].items()),
        **({"client": str(description["client_id"])} if "client_id" in description else {}),
        "weights": f"{description['weights']}, digest {description['weights_digest']}",
        "epsilon": "no differential privacy" if epsilon is None else f"{epsilon:.3g}",
        "made by": f"phoenix-pipeline {description['phoenix_pipeline']}, {description['written']}",
    }


def _use(description: Mapping[str, Any]) -> list[str]:
    settings = description["settings"]
    family = find_family(settings["model"]["family"])
    python = [
        *("import phoenix_pipeline as phoenix", ""),
        'images = phoenix.load(".").sample(16)',
    ]
    if description["has_global_model"]:
        python = family.describe_use(bool(settings.get("class_names"))) or python
    return ["## Use", "", "```python", *python, "```"]


def _disclosure(description: Mapping[str, Any]) -> list[str]:
    sentences = [f"- {sentence}" for sentence in description["disclosure"]]
    return ["## What left the clients", "", *sentences]


def _scores(metrics: Mapping[str, Any] | None) -> list[str]:
    if metrics is None:
        return ["## Scores", "", "Its samples have not been scored."]
    rows = {}
    for name, value in metrics["scores"].items():
        metric = describe(name)
        if metric is not None:
            rows[f"{metric.title} (`{name}`)"] = f"{format_values([value], metric)[0]} | " + (
                metric.phrase
            )
    conditions = metrics["conditions"]
    told = [f"{key} {_show(conditions[key])}" for key in _CONDITIONS if key in conditions]
    head = ["| score | value | what it says |", "|---|---|---|"]
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    return ["## Scores", "", f"Conditions: {', '.join(told)}.", "", *head, *table]


def _show(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _limits(metrics: Mapping[str, Any] | None) -> list[str]:
    share = metrics["scores"].get("memorized_share") if metrics else None
    sentence = _WITHOUT_MEMORISATION
    if share is not None:
        sentence = (
            f"{share:.1%} of the scored samples lie closer to one training image than 99 % of "
            "held-out images do (about 1 % is what unseen images get)."
        )
    return ["## Before you publish", "", sentence]


def _table(rows: Mapping[str, str]) -> list[str]:
    body = [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
    return ["| | |", "|---|---|", *body]


def _cell(value: str) -> str:
    return value.replace("|", "\\|") or MISSING
