"""Real federations of a tiny U-Net, in process."""

from pathlib import Path

import numpy as np
import pytest
import torch

from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.records import pack_arrays, unpack_arrays
from phoenix_pipeline.federated.wire import load_packed
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.seeding import derive_seed
from tests.federated.tiny import (
    UNET,
    arrays_of,
    federate,
    interrupt,
    same,
    settings,
    train_alone,
    train_each_alone,
)


def test_arrays_survive_the_wire_unchanged() -> None:
    state = {"w": torch.randn(3, 2), "n": torch.tensor(7), "h": torch.ones(2).half()}
    back = unpack_arrays(pack_arrays(state))
    assert same(state, back)
    assert [t.dtype for t in back.values()] == [torch.float32, torch.int64, torch.float16]


def test_one_round_is_the_mean_of_the_clients_by_example_count(tmp_path: Path) -> None:
    trained = train_each_alone(settings())
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

    interrupt(tmp_path / "cut", after=2, rounds=3, settings=told)
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


def test_a_run_that_falls_back_finds_the_clients_states_of_that_round(tmp_path: Path) -> None:
    told = settings(("conv_out",), optimizer_state="keep")
    whole = federate(tmp_path, rounds=4, settings=told)
    kept = arrays_of(whole.client_state(0))
    newest = max((tmp_path / "server").glob("round-*"))
    newest.write_bytes(newest.read_bytes()[:-100])
    again = federate(tmp_path, rounds=4, settings=told)
    assert same(again.raw, whole.raw)
    assert same(arrays_of(again.client_state(0)), kept)


def test_too_few_replies_end_the_run_with_the_reason(tmp_path: Path) -> None:
    exploding = settings(learning_rate=1e30, max_grad_norm=None)
    with pytest.raises(FederationError, match=r"0 of 2 clients.*loss became"):
        federate(tmp_path, settings=exploding, rounds=6)


def test_warm_up_trains_the_global_model_on_the_pool_before_round_1(tmp_path: Path) -> None:
    told, pool = settings(), np.arange(5, 20)
    peak = told.training.lr_warmup
    work = LocalWork(3, peak, peak, derive_seed(told.seed, "warm_up"))
    warm = train_alone(told, pool, work)
    cut = federate(tmp_path / "cut", rounds=1, pool=pool, warmup_steps=3, min_clients=1)
    assert cut.rounds["round"].tolist() == [0, 1, 1]
    assert cut.rounds["images_trained"].tolist() == [18, 12, 12]
    started = load_packed(tmp_path / "cut/server/round-000000.safetensors")[0]
    for name, tensor in warm.items():
        torch.testing.assert_close(started["raw"][name], tensor, rtol=0.0, atol=3e-5)
