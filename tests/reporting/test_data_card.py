"""What the data card says."""

from typing import Any

from phoenix_pipeline.reporting.cards import render_data_card

CARD: dict[str, Any] = {
    "arm": "personalization",
    "licence": "cc-by-4.0",
    "data_files": None,
    "num_images": 12000,
    "images_per_model": {"0": 9000, "4": 3000},
    "channels": 3,
    "image_size": 32,
    "seed": 7,
    "sampling": {"sampler": "ddim", "num_steps": 50},
    "model": {
        "family": "diffusion",
        "weights": "ema",
        "rounds": 8,
        "training_seed": 1,
        "trained": "2026-01-01",
        "training_images": 50000,
    },
    "disclosure": ["A.", "B."],
    "scores": {},
    "phoenix_pipeline": "1",
    "written": "2026-01-02",
}


def test_numbers_and_origin_are_written_out() -> None:
    text = render_data_card(CARD)
    assert "| images | 12,000, 32 x 32 pixels, RGB |" in text
    assert "| drawn from | client 0: 9,000, client 4: 3,000 |" in text
    assert "| sampling | sampler ddim, num_steps 50 |" in text
    assert "diffusion, ema weights, 8 rounds, training seed 1" in text


def test_what_left_the_clients_and_how_many_copies_are_written_out() -> None:
    text = render_data_card(CARD)
    assert "- A.\n- B." in text
    assert "Memorisation score: not measured" in text
    assert "50.0% lie closer" in render_data_card({**CARD, "scores": {"memorized_share": 0.5}})
