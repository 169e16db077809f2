"""Each benchmark runs, tiny, and gives rows; no speed is asserted."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import local_training, poisoning, presets, stacked_clients
from benchmarks.bare_loop import train_bare
from benchmarks.field_habits import EncodedImages
from benchmarks.harness import Options, Row
from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.images import encode_png, to_model_range
from tests.federated.tiny import job, settings

QUICK = Options(quick=True, repetitions=1)


def run(name: str, options: Options = QUICK) -> list[Row]:
    rows: list[Row] = import_module(f"benchmarks.{name}").run(options)
    return rows


def tiny(**training: object) -> presets.Preset:
    preset = presets.presets(QUICK)[0]
    config = TrainingConfig.model_validate(preset.training.model_dump() | training)
    return replace(preset, training=config)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["local_training", "federated_round", "field_habits", "sampling"])
def test_it_runs_on_both_presets(name: str) -> None:
    rows = run(name)
    assert {row.name.rsplit("_", 1)[1] for row in rows} == {"digits", "32x32"}
    for row in rows:
        assert row.ratio is not None
        assert row.ratio > 0.0
        assert row.goal is not None


@pytest.mark.slow
def test_scores_agree_with_those_of_the_peers() -> None:
    rows = run("evaluation")
    assert len(rows) == 4
    assert all(row.details["relative_difference"] < 1e-3 for row in rows)


def test_stacked_clients_are_held_against_one_after_another() -> None:
    threads = torch.get_num_threads()
    [row] = run("stacked_clients")
    assert (row.name, row.goal) == ("stacked_clients_8px_batch_16", 1.8)
    assert row.details["images"] == 10 * 16
    assert row.details["values"] == 16 * 8 * 8 * 16
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("batch_size", "image_size", "steps"), [(16, 8, 12), (4, 32, 12), (32, 32, 2), (64, 8, 3)]
)
def test_clients_of_every_size_train_on_as_many_pixels(
    batch_size: int, image_size: int, steps: int
) -> None:
    digits = presets.read_preset("digits", None, 1, 8, steps=1)
    sized = stacked_clients.at(digits, stacked_clients.Point(batch_size, image_size))
    found = (sized.training.batch_size, sized.image_size, sized.steps)
    assert found == (batch_size, image_size, steps)
    assert sized.network("cpu").config["sample_size"] == image_size


def test_reading_compares_equal_arrays(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    cells = [{"bytes": encode_png(image), "path": None} for image in pixels]
    pd.DataFrame({"img": cells, "label": range(6)}).to_parquet(tmp_path / "train.parquet")
    [row] = run("reading", replace(QUICK, cifar10=tmp_path))
    assert row.details["images"] == 6


@pytest.mark.slow
def test_growth_has_a_curve_per_axis() -> None:
    rows = run("growth")
    axes = ("images", "image_size", "channels", "clients")
    assert [row.name for row in rows] == [f"growth_{axis}" for axis in axes]
    assert all(len(row.details["points"]) == 2 for row in rows)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_bare_loop_trains(precision: str) -> None:
    preset = replace(tiny(precision=precision, learning_rate=5e-3), steps=12)
    unet, images = preset.network("cpu"), torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    tables = NoiseSchedule.from_config(preset.model.noise, "cpu")
    losses = train_bare(unet, images, preset, tables)
    assert losses[-4:].mean() < losses[:4].mean()


def test_the_habits_decode_what_the_model_is_given() -> None:
    pixels = tiny().images(3)
    data = EncodedImages([encode_png(image) for image in pixels.numpy()], channels=1)
    decoded = torch.stack([data[i] for i in range(len(data))])
    torch.testing.assert_close(decoded, to_model_range(pixels))


def test_the_paper_network_is_what_the_gpu_rows_measure() -> None:
    [preset] = presets.presets(Options(device="cuda"))
    unet = preset.network("cpu")
    assert sum(p.numel() for p in unet.parameters()) == 35_746_307
    assert preset.training.batch_size == 128


def test_flops_of_a_training_step_are_three_forward_passes() -> None:
    preset = tiny()
    unet = preset.network("cpu")
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        unet(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64))
    forward = counter.get_total_flops()
    # The first layer needs no gradient of its input.
    assert local_training.flops_per_image(unet, preset) == pytest.approx(3 * forward, rel=0.02)


def test_an_attacker_turns_its_update_round(tmp_path: Path) -> None:
    told = job(rounds=1)
    start = told.settings.build_network().state_dict()
    clean = poisoning.train(told, "none", tmp_path / "clean")
    turned = poisoning.train(told, "2 turned", tmp_path / "turned")
    for name, tensor in start.items():
        expected = 2.0 * tensor - clean[name]
        torch.testing.assert_close(turned[name], expected, rtol=0.0, atol=1e-6)


def test_an_attackers_training_may_diverge_too(tmp_path: Path) -> None:
    told = job(rounds=1, settings=settings(learning_rate=1e30, lr_warmup=0.0))
    with pytest.raises(FederationError, match="loss became nan"):
        poisoning.train(told, "2 turned", tmp_path)


def test_a_claimed_count_outweighs_the_others_unless_it_is_capped(tmp_path: Path) -> None:
    told = job(rounds=1)
    start = told.settings.build_network().state_dict()["conv_in.weight"]
    moved = {
        attack: poisoning.train(told, attack, tmp_path / attack)["conv_in.weight"] - start
        for attack in ("none", "count, as claimed", "count, capped at 3")
    }
    # Client 0 holds 12 images and counts for 108 when capped, against the 36 of client 1.
    assert not torch.equal(moved["count, as claimed"], moved["count, capped at 3"])
    assert (moved["count, as claimed"] - moved["none"]).norm() > 0.0


def test_the_table_gives_means_ranges_and_runs_that_ended() -> None:
    scores = {"iid/median/none/0": 1.0, "iid/median/none/1": 2.0, "iid/median/2 scaled/0": None}
    row = poisoning.table(scores).splitlines()[4]
    assert row.startswith("| iid | median | 1.50 (1.00-2.00) | ended | - |")
