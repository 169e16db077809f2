"""What a round tells and keeps, each against its value: faults here change numbers in silence."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from phoenix_pipeline.config import CompressionConfig, DpSgdConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.federated import client_app
from phoenix_pipeline.federated.client_app import _plan_work
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.own_models import NO_MODELS
from phoenix_pipeline.federated.privacy.accountant import dp_sgd_noise
from phoenix_pipeline.federated.records import ARRAYS, CONFIG, count_bytes, pack_arrays
from phoenix_pipeline.federated.run_state import RunState
from phoenix_pipeline.federated.strategy import PhoenixStrategy
from phoenix_pipeline.federated.threshold_filter import score_own_model
from phoenix_pipeline.federated.transport import ServerTransport, receive, send
from phoenix_pipeline.metrics.monitoring import build_monitor_reference
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.seeding import derive_seed
from tests.federated.tiny import UNET, client_table, federate, make_images, same, settings


def test_the_loss_of_a_round_is_weighted_by_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    aggregate = PhoenixStrategy.aggregate_train

    def listen(self: PhoenixStrategy, server_round: int, replies: Iterable[Message]) -> Any:
        arrays, metrics = aggregate(self, server_round, replies)
        assert metrics is not None
        told.append(float(metrics["loss"]))  # type: ignore[arg-type]
        return arrays, metrics

    monkeypatch.setattr(PhoenixStrategy, "aggregate_train", listen)
    rounds = federate(tmp_path).rounds
    for number, of_round in rounds.groupby("round"):
        weighted = np.average(of_round["loss"], weights=of_round["num_examples"])
        assert told[int(str(number)) - 1] == pytest.approx(weighted)
        assert weighted != pytest.approx(of_round["loss"].mean())


def test_the_loss_of_a_round_is_that_of_those_who_tell_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, means = client_app.finish_round, []

    def without_loss(begun: Any, result: Any) -> Any:
        content = finish(begun, result)
        if begun.site.client_id == 0:
            del content["metrics"]["loss"]
        return content

    monkeypatch.setattr(client_app, "finish_round", without_loss)
    rounds = federate(
        tmp_path, rounds=1, on_round=lambda _, told: means.append(told["loss"])
    ).rounds
    assert rounds["status"].tolist() == ["ok", "ok"]
    assert rounds["loss"].isna().tolist() == [True, False]
    assert means == [pytest.approx(rounds["loss"][1])]


def test_every_record_of_a_message_is_counted_in_bytes() -> None:
    config = ConfigRecord({"name": "h\u00e9", "n": 12})
    assert count_bytes(RecordDict({CONFIG: config})) == len("name") + 3 + len("n") + 2
    arrays, metrics = pack_arrays({"w": torch.zeros(5)}), MetricRecord({"loss": 1.0})
    together = RecordDict({CONFIG: config, ARRAYS: arrays, "metrics": metrics})
    assert count_bytes(together) == 10 + arrays.count_bytes() + metrics.count_bytes()


def test_the_noise_of_dp_sgd_is_that_of_all_steps_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = DpSgdConfig(enabled=True, target_epsilon=3.0, delta=1e-3)
    told = settings(dp_sgd=private)
    sent: list[ConfigRecord] = []
    configure = PhoenixStrategy.configure_train

    def listen(self: PhoenixStrategy, *arguments: Any) -> list[Message]:
        messages = list(configure(self, *arguments))
        sent.extend(message.content[CONFIG] for message in messages)
        return messages

    monkeypatch.setattr(PhoenixStrategy, "configure_train", listen)
    federate(tmp_path, rounds=3, settings=told)
    assert [record["run-steps"] for record in sent] == [6] * 6  # 2 steps in each of 3 rounds
    site: Any = SimpleNamespace(client_id=1, images=range(36))
    work = _plan_work(sent[1], told, site, frozenset())
    assert work.noise_multiplier == dp_sgd_noise(private, 6, 36, 6)
    assert work.noise_multiplier != dp_sgd_noise(private, 6, 36, 2)


def test_clients_with_the_same_update_round_it_differently() -> None:
    told = settings().model_copy(update={"compression": CompressionConfig(up={"codec": "int8"})})
    reference = dict(told.build_network().state_dict())
    moved = {n: t + 0.01 * torch.ones_like(t).cumsum(0) for n, t in reference.items()}

    def written(client: int, current: int) -> dict[str, bytes]:
        server = ServerTransport(told, RunState(Path("unused"), {}, reference, 0.5))
        server.open_round(current, [client], ArrayRecord())
        record, config = server.write(client)
        asked = ConfigRecord({"round": current, **config})
        got = receive(record, asked, told, ClientState(), reference, reference).weights
        arrays = send(moved, got, asked, told, ClientState(), client)
        return {name: array.data for name, array in arrays.items()}

    assert written(0, 1) == written(0, 1)
    assert written(0, 1) != written(1, 1)
    assert written(0, 1) != written(0, 2)


def test_clients_draw_different_images_for_their_scores() -> None:
    told = settings().model_copy(update={"monitor_samples": 3})
    reference, drawn = build_monitor_reference(make_images(60), 0), []

    def sample(
        network: Any, model: Any, config: Any, shape: Any, seeds: Any, device: Any, labels: Any
    ) -> Any:
        drawn.extend(seeds)
        return [make_images(len(seeds)).images]

    bench: Any = SimpleNamespace(
        network=torch.nn.Identity(),
        family=SimpleNamespace(sample_images=sample),
        put_into_network=lambda: None,
    )
    for client, server_round in ((0, 1), (1, 1), (0, 2)):
        site: Any = SimpleNamespace(client_id=client, images=torch.zeros(1), own=NO_MODELS)
        score_own_model(reference, told, site, bench, server_round)
    assert len(set(drawn)) == len(drawn) == 9


def test_the_average_of_personal_layers_is_the_mean_of_the_rounds_with_horizon_one_half() -> None:
    state = ClientState()
    for value in (3.0, 5.0, 10.0):
        state.keep_personal({"w": torch.tensor([value])}, 0.5)
    assert (state.personal["w"].item(), state.updates) == (10.0, 3)
    assert state.personal_ema["w"].item() == pytest.approx(6.0)


def test_the_final_average_is_that_of_the_averages_where_these_are_sampled(tmp_path: Path) -> None:
    told = settings(("conv_out",), ema_horizon=0.5)
    result = federate(tmp_path, rounds=3, settings=told, final_average="ema")
    states = [result.client_state(client) for client in (0, 1)]
    assert not same(states[0].personal, states[0].personal_ema)
    assert result.averaged_personal is not None
    for name, tensor in result.averaged_personal.items():
        expected = 0.25 * states[0].personal_ema[name] + 0.75 * states[1].personal_ema[name]
        torch.testing.assert_close(tensor, expected)


def test_momentum_of_the_server_lasts_from_round_to_round(tmp_path: Path) -> None:
    runs = {
        (momentum, rounds): federate(
            tmp_path / f"{momentum}-{rounds}",
            rounds=rounds,
            settings=settings(lr_schedule="constant"),
            server_optimizer={"name": "fedavgm", "learning_rate": 1.0, "momentum": momentum},
        ).raw
        for momentum in (0.0, 0.9)
        for rounds in (1, 2)
    }
    assert largest(runs[0.0, 1], runs[0.9, 1]) < 1e-6
    assert largest(runs[0.0, 2], runs[0.9, 2]) > 1e-4


@pytest.mark.parametrize("state", ["keep", "reset"])
def test_a_client_goes_on_with_its_moments_or_starts_anew(tmp_path: Path, state: str) -> None:
    told = settings(optimizer_state=state)
    result = federate(tmp_path, rounds=3, settings=told, client_images=client_table((12,)))
    trained = {kept: train_three_rounds(told, kept) for kept in ("keep", "reset")}
    other = trained["reset" if state == "keep" else "keep"]
    assert largest(result.raw, trained[state]) < 0.2 * largest(result.raw, other)


def train_three_rounds(told: Any, state: str) -> dict[str, Tensor]:
    """Train client 0 by itself on what it is sent in three rounds."""
    unet, moments = build_unet(UNET, 1, 8, told.seed), {}
    pixels = torch.from_numpy(make_images().images[:12])
    schedule = NoiseSchedule.from_config(told.model.noise, "cpu")
    for number in range(3):
        seed = derive_seed(told.seed, "local_training", 0, number + 1)
        work = LocalWork(2, number / 3, (number + 1) / 3, seed)
        kept = moments if state == "keep" else None
        train_locally(unet, pixels, work, schedule, told.training, kept)
    return dict(unet.state_dict())


def largest(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)
