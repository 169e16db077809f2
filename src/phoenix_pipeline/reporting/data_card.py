"""The data card of exported images, as Markdown."""

from collections.abc import Mapping
from typing import Any

from phoenix_pipeline.reporting.cards import sample_front_matter

_NO_GUARANTEE = (
    "No differential privacy was applied by this export. A generated image can resemble a training "
    "image, above all where there are few of these: look at the memorisation score before "
    "publishing."
)


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
        "seed": card["seed"],
        "drawn from": _origin(card["images_per_model"]),
        "made by": f"phoenix-pipeline {card['phoenix_pipeline']}, {card['written']}",
    }
    front = sample_front_matter(card["licence"], card["num_images"], card["data_files"])
    lines = [*front, "# Generated images", "", "A model drew every image here."]
    lines += ["", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    lines += ["", "## What left the clients while the model was trained", ""]
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
