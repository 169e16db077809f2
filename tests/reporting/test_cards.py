"""Cards say what lies beside the model, in the form that Hugging Face reads."""

from typing import Any

from huggingface_hub import DatasetCard, ModelCard

from phoenix_pipeline.reporting.cards import render_model_card, render_sample_card

DESCRIPTION: dict[str, Any] = {
    "arm": "phoenix",
    "settings": {
        "model": {"family": "diffusion"}, "channels": 1, "image_size": 8, "seed": 3,
        "class_names": ["cat", "dog"],
    },
    "trained_with": {"run": {"licence": "cc-by-4.0"}},
    "has_global_model": True,
    "num_examples": {"0": 900, "4": 100},
    "rounds": 60,
    "data": {"train_images": "0123"},
    "weights": "ema",
    "weights_digest": "abcd",
    "epsilon": 7.96,
    "disclosure": ["It sent weights.", "It sent numbers."],
    "phoenix_pipeline": "1.0",
    "written": "2026-01-01",
}  # fmt: skip
METRICS: dict[str, Any] = {
    "scores": {"fid_pixels": 0.1034, "memorized_share": 0.025},
    "conditions": {"num_samples": 1000, "sampler": "ddim", "num_steps": 20, "guidance_scale": 2.0},
}


def test_a_model_card_has_metadata_facts_and_scores_with_conditions() -> None:
    text = render_model_card(DESCRIPTION, METRICS)
    card = ModelCard(text)
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "diffusers"
    assert "federated-learning" in (card.data.tags or [])
    assert "| training | 1,000 images at 2 clients (shared ones counted at each), 60 rounds" in text
    assert "| classes | cat, dog |" in text
    assert "| epsilon | 7.96 |" in text
    assert "- It sent weights.\n- It sent numbers." in text
    assert "Conditions: num_samples 1000, sampler ddim, num_steps 20, guidance_scale 2.0." in text
    assert "(`fid_pixels`) | 0.103 |" in text
    assert "2.5% of the scored samples lie closer" in text


def test_a_card_without_scores_or_licence_says_so() -> None:
    told = {**DESCRIPTION, "trained_with": {"run": {"licence": None}}, "epsilon": None}
    text = render_model_card(told)
    assert ModelCard(text).data.license is None
    assert "Its samples have not been scored." in text
    assert "| epsilon | no differential privacy |" in text
    assert "was not measured" in text


def test_a_card_of_samples_is_that_of_a_data_set() -> None:
    card = DatasetCard(render_sample_card(DESCRIPTION, METRICS, 1000))
    assert card.data.license == "cc-by-4.0"
    assert card.data.size_categories == ["1K<n<10K"]
    config = {"config_name": "default", "data_files": "samples.parquet"}
    assert card.data.to_dict()["configs"] == [config]
    assert "| samples | 1,000 |" in card.text
