"""Cards of models, of their samples and of exported images: the metadata that Hugging Face reads.

All they say is from what lies beside the model: ``phoenix.json`` and the scores of its samples.
"""

from collections.abc import Mapping
from typing import Any

from phoenix_pipeline.families import find_family
from phoenix_pipeline.families.provenance import ModelDescription
from phoenix_pipeline.metrics.arm_metrics import ArmMetrics
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
_WITHOUT_MEMORISATION = (
    "A generated image can resemble a training image. Whether this model's samples do was not "
    "measured."
)

_NO_GUARANTEE = (
    "No differential privacy was applied by this export. A generated image can resemble a training "
    "image, above all where there are few of these: look at the memorisation score before "
    "publishing."
)


def render_model_card(description: ModelDescription, metrics: ArmMetrics | None = None) -> str:
    """Return the card of a model's folder; ``metrics`` None: nobody has scored its samples."""
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


def render_sample_card(description: ModelDescription, metrics: ArmMetrics, num_images: int) -> str:
    """Return the card of an arm's ``num_images`` samples; see :func:`render_model_card`."""
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
    """Return metadata of generated images; ``data_files``: their one file, None: a folder."""
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


def licence_of(description: ModelDescription) -> str | None:
    """Return the licence that the user chose for the training; None where none was chosen."""
    licence: str | None = description["trained_with"]["run"]["licence"]
    return licence


def front_matter(values: Mapping[str, Any]) -> list[str]:
    """Return lines of YAML between dashes; what is None is left out."""
    import yaml

    given = {key: value for key, value in values.items() if value is not None}
    text = yaml.safe_dump(given, sort_keys=False, allow_unicode=True, width=1000)
    return ["---", *text.splitlines(), "---", ""]


def _size(num_images: int) -> str:
    return next((name for bound, name in _SIZES if num_images < bound), _LARGEST)


def _facts(description: ModelDescription) -> dict[str, str]:
    settings, counts = description["settings"], description["num_examples"]
    side, colours = settings["image_size"], "RGB" if settings["channels"] == 3 else "grey"
    classes, epsilon = settings["class_names"], description["epsilon"]
    latents = settings.get("latents")
    return {
        "arm": description["arm"],
        "images": f"{side} x {side} pixels, {colours}",
        **({"classes": ", ".join(classes)} if classes else {}),
        **({"latents": _latents(latents)} if latents else {}),
        "training": f"{sum(counts.values()):,} images at {len(counts)} clients (shared ones "
        f"counted at each), {description['rounds']} rounds, seed {settings['seed']}",
        "data": ", ".join(f"{name} {digest}" for name, digest in description["data"].items()),
        **({"client": str(description["client_id"])} if "client_id" in description else {}),
        "weights": f"{description['weights']}, digest {description['weights_digest']}",
        "epsilon": "no differential privacy" if epsilon is None else f"{epsilon:.3g}",
        "made by": f"phoenix-pipeline {description['phoenix_pipeline']}, {description['written']}",
    }


def _latents(space: Mapping[str, Any]) -> str:
    return (
        f"{space['channels']} channels, sides {space['factor']} times shorter, of the autoencoder "
        f"with the digest {space['digest']}"
    )


def _use(description: ModelDescription) -> list[str]:
    settings = description["settings"]
    family = find_family(settings["model"]["family"])
    python = [
        *("import phoenix_pipeline as phoenix", ""),
        'images = phoenix.load(".").sample(16)',
    ]
    if description["has_global_model"]:
        python = family.describe_use(settings) or python
    return ["## Use", "", "```python", *python, "```"]


def _disclosure(description: ModelDescription) -> list[str]:
    sentences = [f"- {sentence}" for sentence in description["disclosure"]]
    return ["## What left the clients", "", *sentences]


def _scores(metrics: ArmMetrics | None) -> list[str]:
    if metrics is None:
        return ["## Scores", "", "Its samples have not been scored."]
    rows = {}
    for name, value in metrics["scores"].items():
        metric = describe(name)
        if metric is not None:
            rows[f"{metric.title} (`{name}`)"] = f"{format_values([value], metric)[0]} | " + (
                metric.phrase
            )
    conditions: Mapping[str, object] = metrics["conditions"]
    shown = [f"{key} {_show(conditions[key])}" for key in _CONDITIONS if key in conditions]
    head = ["| score | value | what it says |", "|---|---|---|"]
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    return ["## Scores", "", f"Conditions: {', '.join(shown)}.", "", *head, *table]


def _show(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _limits(metrics: ArmMetrics | None) -> list[str]:
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


def render_data_card(card: Mapping[str, Any]) -> str:
    """Return the card of ``data_card.json`` as text; see ``pipelines/sampling/export.py``."""
    model = card["model"]
    side = card["image_size"]
    colours = "RGB" if card["channels"] == 3 else "grey"
    rows = {
        "images": f"{card['num_images']:,}, {side} x {side} pixels, {colours}",
        "arm": card["arm"],
        "model": f"{model['family']}, {model['weights']} weights, {model['rounds']} rounds, "
        f"training seed {model['training_seed']}",
        "trained": f"{model['trained']}, on {model['training_images']:,} images at the clients "
        "(shared ones counted at each)",
        "sampling": ", ".join(f"{name} {value}" for name, value in card["sampling"].items()),
        "seed": str(card["seed"]),
        "drawn from": _origin(card["images_per_model"]),
        "made by": f"phoenix-pipeline {card['phoenix_pipeline']}, {card['written']}",
    }
    front = sample_front_matter(card["licence"], card["num_images"], card["data_files"])
    lines = [*front, "# Generated images", "", "A model drew every image here."]
    lines += ["", *_table(rows), "", "## What left the clients while the model was trained", ""]
    lines += [f"- {sentence}" for sentence in card["disclosure"]]
    lines += ["", "## Privacy", "", _NO_GUARANTEE, "", _memorisation(card["scores"])]
    lines += ["", "The settings of the model in full are in `data_card.json`.", ""]
    return "\n".join(lines)


def _origin(images_per_model: Mapping[str, int]) -> str:
    if list(images_per_model) == ["-1"]:
        return "the global model"
    return ", ".join(f"client {name}: {count:,}" for name, count in images_per_model.items())


def _memorisation(scores: Mapping[str, float]) -> str:
    share = scores.get("memorized_share")
    if share is None:
        return "Memorisation score: not measured for this model."
    return (
        f"Memorisation score of this model's evaluated samples: {share:.1%} lie closer to one "
        "training image than 99 % of held-out images do (about 1 % is what unseen images get)."
    )
