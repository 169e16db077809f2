"""Real federations of a tiny U-Net whose messages are compressed or partial."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord
from torch import Tensor

from phoenix_pipeline.config import CompressionConfig, LinkConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.compression.codecs import codec_of
from phoenix_pipeline.federated.compression.partial_updates import assign_halves, sent_names
from phoenix_pipeline.federated.history import new_row
from phoenix_pipeline.federated.records import pack_arrays, pack_weights, unpack_arrays
from phoenix_pipeline.federated.run_state import RunState
from phoenix_pipeline.federated.transport import ServerTransport, receive, send
from phoenix_pipeline.federated.wire import load_packed
from tests.federated.tiny import (
    arrays_of,
    client_table,
    federate,
    interrupt,
    message_bytes,
    same,
    settings,
)

INT8 = {"codec": "int8"}
TOP_K = {"codec": "top_k", "density": 0.1}
# Each way has memory: a residual at the client, the last broadcast on both sides.
BOTH = CompressionConfig(up=TOP_K, down={**INT8, "relative_to": "last_broadcast"})
# Names, shapes, settings and metrics of a message.
OVERHEAD = 4000


def compression(**given: Any) -> CompressionConfig:
    return CompressionConfig(**given)


def shared_template() -> dict[str, Tensor]:
    return dict(settings().build_network().state_dict())


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return float(torch.cat([(a[n] - b[n]).reshape(-1) for n in a]).norm())


def test_without_compression_weights_travel_as_they_are(tmp_path: Path) -> None:
    run = RunState(tmp_path, {}, shared_template(), 0.5)
    plain, told = pack_weights(run.raw), settings()
    assert set(plain) == {"float32"}
    server = ServerTransport(told, run)
    server.open_round(1, [0, 1], plain)
    record, config = server.write(0)
    assert record is plain
    state = ClientState()
    got = receive(plain, ConfigRecord(config), told, state, *2 * (shared_template(),)).weights
    assert same(dict(got), run.raw)
    back = send(dict(got), got, ConfigRecord({"round": 1}), told, state, 0)
    assert back == plain
    assert same(dict(server.read(0, back)), run.raw)
    assert arrays_of(state) == {}
    server.close_round({0, 1})
    assert run.held.save()[0] == {}


def test_a_model_of_another_layout_is_refused_by_the_client(tmp_path: Path) -> None:
    run = RunState(tmp_path, {}, shared_template(), 0.5)
    server = ServerTransport(settings(), run)
    server.open_round(1, [0], pack_weights(run.raw))
    plain, config = server.write(0)
    # As many values of the same type, under another name.
    other = {name.replace("conv_in", "conv_first"): t for name, t in run.raw.items()}
    with pytest.raises(FederationError, match=r"has the layout .* this client's"):
        receive(plain, ConfigRecord(config), settings(), ClientState(), other, other)


@pytest.mark.parametrize(
    ("up", "down", "times"),
    [("fp16", "fp16", (2, 2)), ("int8", "fp16", (4, 2)), ("top_k", "int8", (10, 4))],
)
def test_bytes_shrink_as_the_codecs_say_and_the_weights_stay_near(
    tmp_path: Path, up: str, down: str, times: tuple[int, int]
) -> None:
    config = compression(up={"codec": up, "density": 0.1}, down={"codec": down})
    plain = federate(tmp_path / "plain")
    small = federate(tmp_path / "small", compression=config)
    template = shared_template()
    ways = (("bytes_up", config.up, times[0]), ("bytes_down", config.down, times[1]))
    for column, way, factor in ways:
        size = message_bytes(template, codec_of(way))
        # Codes of one byte are deflated: to two thirds, where the largest code is 127.
        assert ((small.rounds[column] - size).between(-size / 3, OVERHEAD)).all()
        # Arrays of one or two values are not worth a codec, and scales of channels come with it.
        assert size < 1.3 * message_bytes(template, None) / factor
    assert (small.rounds["bytes_up"] < plain.rounds["bytes_up"]).all()
    moved = distance(plain.raw, template)
    assert distance(small.raw, plain.raw) < 0.9 * moved


def test_without_loss_the_way_of_a_message_changes_nothing_but_rounding(tmp_path: Path) -> None:
    plain = federate(tmp_path / "plain")
    lossless = compression(partial_update="full", up={"codec": "top_k", "density": 1.0})
    # A density of 1 would not be smaller: arrays are sent as they are, as differences.
    result = federate(tmp_path / "update", compression=lossless)
    for name, tensor in result.raw.items():
        torch.testing.assert_close(tensor, plain.raw[name], rtol=0.0, atol=3e-5)


def test_compressed_and_plain_updates_agree_in_expectation() -> None:
    told = settings().model_copy(update={"compression": compression(up=INT8)})
    reference = shared_template()
    noise = torch.Generator().manual_seed(1)
    moved = {n: t + 0.1 * torch.randn(t.shape, generator=noise) for n, t in reference.items()}
    run = RunState(Path("unused"), {}, reference, 0.5)
    total = {n: torch.zeros_like(t) for n, t in reference.items()}
    draws = 40
    for current in range(1, draws + 1):
        server = ServerTransport(told, run)
        server.open_round(current, [0], ArrayRecord())
        record, config = server.write(0)
        config_record = ConfigRecord({"round": current, **config})
        got = receive(record, config_record, told, ClientState(), reference, reference).weights
        # A state of its own for each draw: with a kept residual errors would cancel by design.
        sent = send(moved, got, config_record, told, ClientState(), 0)
        for name, tensor in server.read(0, sent).items():
            total[name] += tensor / draws
    error = torch.cat([(total[n] - moved[n]).reshape(-1) for n in moved])
    # Rounding is off by at most a scale, about 0.4 / 127, with a deviation of half of it.
    assert error.abs().max() < 6 * 0.5 * (0.45 / 127) / draws**0.5
    assert abs(float(error.mean())) < 3e-5


def test_a_client_keeps_what_its_codec_left_out(tmp_path: Path) -> None:
    result = federate(tmp_path / "kept", rounds=1, compression=BOTH)
    state = result.client_state(1)
    assert state.residual.keys() <= shared_template().keys()
    assert max(t.abs().max() for t in state.residual.values()) > 0
    assert same(state.broadcast, held_after(tmp_path / "kept", 1))
    forgetful = compression(up={**TOP_K, "error_feedback": False})
    assert (
        federate(tmp_path / "lost", rounds=1, compression=forgetful).client_state(1).residual == {}
    )


def load_tensors_of(folder: Path, number: int, group: str) -> dict[str, Tensor]:
    return load_packed(folder / f"server/round-{number:06d}.safetensors")[0][group]


def test_workers_do_not_change_the_bits(tmp_path: Path) -> None:
    config = BOTH.model_copy(update={"partial_update": "usplit"})
    one = federate(tmp_path / "one", workers=1, threads_per_client=1, compression=config)
    two = federate(tmp_path / "two", workers=2, threads_per_client=1, compression=config)
    assert same(one.raw, two.raw)


def held_after(folder: Path, number: int) -> dict[str, Tensor]:
    """Return the reference that every client held after a round in which all took part."""
    _, metadata = load_packed(folder / f"server/round-{number:06d}.safetensors")
    [fingerprint] = {hold[0] for hold in metadata["held"]["clients"].values()}
    return load_tensors_of(folder, number, f"held/{fingerprint}")


@pytest.mark.slow
def test_ray_ends_with_the_bits_of_in_process(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    config = BOTH.model_copy(update={"partial_update": "usplit"})
    options = {"compression": config, "threads_per_client": 1}
    here = federate(tmp_path / "here", workers=1, **options)
    there = federate(tmp_path / "there", engine="ray", workers=1, **options)
    assert same(here.raw, there.raw)
    for client in (0, 1):
        expected = arrays_of(here.client_state(client))
        assert same(arrays_of(there.client_state(client)), expected)


@pytest.mark.parametrize("partial_update", ["full", "usplit"])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, partial_update: str) -> None:
    config = BOTH.model_copy(update={"partial_update": partial_update})
    options = {"rounds": 4, "compression": config, "settings": settings(optimizer_state="keep")}
    whole = federate(tmp_path / "whole", **options)

    interrupt(tmp_path / "cut", after=2, **options)
    resumed = federate(tmp_path / "cut", **options)
    assert same(resumed.raw, whole.raw)
    assert same(resumed.ema, whole.ema)
    assert resumed.rounds["bytes_down"].equals(whole.rounds["bytes_down"])
    for client in (0, 1):
        expected = arrays_of(whole.client_state(client))
        assert same(arrays_of(resumed.client_state(client)), expected)


def test_usplit_takes_each_half_from_the_client_that_sent_it(tmp_path: Path) -> None:
    told = settings()
    halves = assign_halves([0, 1], "usplit", told.seed, 1)
    split = federate(tmp_path / "split", rounds=1, compression=compression(partial_update="usplit"))
    for client, half in halves.items():
        alone = federate(
            tmp_path / str(client),
            rounds=1,
            client_images=client_table()[lambda t: t["client_id"] == client],  # noqa: B023
        )
        names = sent_names(alone.raw, half, told.model)
        assert half in ("encoder", "decoder")
        for name in names:
            torch.testing.assert_close(split.raw[name], alone.raw[name], rtol=0.0, atol=3e-5)
        row = split.rounds[split.rounds["client_id"] == client]
        size = message_bytes({n: alone.raw[n] for n in names}, None)
        assert 0 <= int(row["bytes_up"].iloc[0]) - size < OVERHEAD


def test_personal_layers_stay_and_the_rest_is_compressed(tmp_path: Path) -> None:
    result = federate(tmp_path, settings=settings(("conv_out",)), compression=BOTH)
    assert not any(name.startswith("conv_out") for name in result.raw)
    state = result.client_state(0)
    assert state.personal.keys() == {"conv_out.weight", "conv_out.bias"}
    assert not state.residual.keys() & state.personal.keys()
    assert (result.rounds["status"] == "ok").all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: {}, "the message's arrays are none"),
        (lambda a: a | {"values": a["values"][:-1]}, "the message's array values"),
        (lambda a: a | {"values": a["values"] * float("nan")}, "not finite"),
        (lambda a: a | {"positions_2": a["positions_2"].flip(0)}, "must be ascending"),
    ],
)
def test_what_a_server_cannot_decode_is_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], said: str
) -> None:
    told = settings().model_copy(update={"compression": compression(up=TOP_K)})
    run = RunState(Path("unused"), {}, shared_template(), 0.5)
    server = ServerTransport(told, run)
    server.open_round(1, [0], ArrayRecord())
    record, config = server.write(0)
    config_record = ConfigRecord({"round": 1, **config})
    got = receive(record, config_record, told, ClientState(), run.raw, run.raw).weights
    sent = send({n: t + 1 for n, t in got.items()}, got, config_record, told, ClientState(), 0)
    assert server.read(0, sent).keys() == run.raw.keys()
    with pytest.raises(FederationError) as error:
        server.read(0, pack_arrays(change(unpack_arrays(sent))))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_link_turns_bytes_into_seconds_of_the_slowest_client(tmp_path: Path) -> None:
    link = LinkConfig(uplink_mbit_s=1.0, downlink_mbit_s=8.0, latency_ms=50.0)
    told: list[float] = []
    rounds = federate(
        tmp_path, link=link, on_round=lambda n, means: told.append(means["link_seconds"])
    ).rounds
    expected = rounds["bytes_up"] * 8e-6 + rounds["bytes_down"] * 1e-6 + 0.1
    torch.testing.assert_close(
        torch.tensor(rounds["link_seconds"].to_numpy()), torch.tensor(expected.to_numpy())
    )
    assert told == pytest.approx(rounds.groupby("round")["link_seconds"].max().tolist())
    # The link is no part of what the weights depend on: the run is there, only the sum is new.
    assert federate(tmp_path).rounds["link_seconds"].isna().all()
    assert new_row(1, 0, 3).get("link_seconds") is None
