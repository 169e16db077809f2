"""Real federations of a tiny U-Net, in process."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from phoenix_pipeline.config import (
    FederationConfig,
    LocalWorkConfig,
    ModelConfig,
    TrainingConfig,
    UNetConfig,
)
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.records import ClientSettings, pack_arrays, unpack_arrays
from phoenix_pipeline.federated.server import FederatedResult, train_federated
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.seeding import derive_seed

UNET = UNetConfig(block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4)
SIZES = (12, 36)


def make_images() -> ImageSet:
    pixels = np.random.default_rng(3).integers(0, 256, (sum(SIZES), 1, 8, 8), dtype=np.uint8)
    return ImageSet(pixels)


def client_table() -> pd.DataFrame:
    clients = np.repeat(np.arange(len(SIZES)), SIZES)
    return pd.DataFrame({"client_id": clients, "image_index": np.arange(sum(SIZES))})


def settings(**training: Any) -> ClientSettings:
    defaults = {"batch_size": 6, "ema_horizon": 0.5, "optimizer_state": "reset"}
    return ClientSettings(
        model=ModelConfig(unet=UNET),
        training=TrainingConfig(**{**defaults, **training}),
        channels=1,
        image_size=8,
        seed=5,
    )


def federate(folder: Path, *, rounds: int = 2, **options: Any) -> FederatedResult:
    told = options.pop("settings", settings())
    images = options.pop("images", make_images())
    on_round = options.pop("on_round", None)
    work = LocalWorkConfig(unit="steps", amount=2)
    config = FederationConfig(num_rounds=rounds, local_work=work, **options)
    return train_federated(images, client_table(), config, told, "cpu", folder, on_round)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_arrays_survive_the_wire_unchanged() -> None:
    state = {"w": torch.randn(3, 2), "n": torch.tensor(7), "h": torch.ones(2).half()}
    back = unpack_arrays(pack_arrays(state))
    assert same(state, back)
    assert [t.dtype for t in back.values()] == [torch.float32, torch.int64, torch.float16]


def test_one_round_is_the_mean_of_the_clients_by_example_count(tmp_path: Path) -> None:
    told, images = settings(), make_images()
    trained = []
    for client, rows in client_table().groupby("client_id"):
        unet = build_unet(UNET, 1, 8, told.seed)
        work = LocalWork(2, 0.0, 1.0, derive_seed(told.seed, "local_training", client, 1))
        pixels = torch.from_numpy(images.images[rows["image_index"].to_numpy()])
        schedule = NoiseSchedule.from_config(told.model.noise, "cpu")
        train_locally(unet, pixels, work, schedule, told.training)
        trained.append(unet.state_dict())
    result = federate(tmp_path, rounds=1)
    for name, tensor in result.raw.items():
        expected = 0.25 * trained[0][name] + 0.75 * trained[1][name]
        # Adam divides small gradients by themselves: other thread counts show. Equal weights
        # instead of 1:3 would be off by 3e-4.
        torch.testing.assert_close(tensor, expected, rtol=0.0, atol=3e-5)
    assert same(result.ema, result.raw)  # the first update forgets the initial weights


def test_workers_do_not_change_the_bits(tmp_path: Path) -> None:
    one = federate(tmp_path / "one", workers=2)
    two = federate(tmp_path / "two", workers=2)
    assert same(one.raw, two.raw)
    assert same(one.ema, two.ema)


def test_rows_count_bytes_and_images(tmp_path: Path) -> None:
    rounds = federate(tmp_path).rounds
    assert rounds[["round", "client_id"]].to_numpy().tolist() == [[1, 0], [1, 1], [2, 0], [2, 1]]
    assert rounds["num_examples"].tolist() == [12, 36, 12, 36]
    assert rounds["images_trained"].tolist() == [12] * 4
    size = 4 * sum(p.numel() for p in build_unet(UNET, 1, 8, 0).parameters())
    assert (rounds["bytes_up"] > size).all()
    assert (rounds["bytes_down"] > size).all()
    assert (rounds[["bytes_up", "bytes_down"]] < 1.5 * size + 20_000).all(axis=None)


def test_pooled_data_crosses_no_wire(tmp_path: Path) -> None:
    assert federate(tmp_path, pooled=True).rounds["bytes_up"].sum() == 0


@pytest.mark.parametrize("state", ["keep", "reset"])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, state: str) -> None:
    told = settings(optimizer_state=state)
    undisturbed = federate(tmp_path / "whole", rounds=3, settings=told)

    def stop_after_two(server_round: int, means: object) -> None:
        if server_round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(tmp_path / "cut", rounds=3, settings=told, on_round=stop_after_two)
    seen: list[int] = []
    resumed = federate(
        tmp_path / "cut", rounds=3, settings=told, on_round=lambda r, _: seen.append(r)
    )
    assert seen == [1, 2, 3]
    assert same(resumed.raw, undisturbed.raw)
    assert same(resumed.ema, undisturbed.ema)


def test_other_settings_start_anew(tmp_path: Path) -> None:
    federate(tmp_path, settings=settings(learning_rate=1e-3))
    fresh = federate(tmp_path / "fresh", settings=settings(learning_rate=2e-3))
    again = federate(tmp_path, settings=settings(learning_rate=2e-3))
    assert same(again.raw, fresh.raw)


def test_a_broken_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    whole = federate(tmp_path, rounds=3)
    newest = max((tmp_path / "server").glob("round-*"))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert same(federate(tmp_path, rounds=3).raw, whole.raw)


def test_too_few_replies_end_the_run_with_the_reason(tmp_path: Path) -> None:
    exploding = settings(learning_rate=1e30, max_grad_norm=None)
    with pytest.raises(FederationError, match=r"0 of 2 clients.*loss became"):
        federate(tmp_path, settings=exploding, rounds=6)
