"""The way down where differences to the last broadcast are sent: who can follow, and who cannot."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord

from phoenix_pipeline.config import CompressionConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.compression.broadcast import Broadcast
from phoenix_pipeline.federated.compression.codecs import codec_of
from phoenix_pipeline.federated.compression.held_references import HeldReferences
from phoenix_pipeline.federated.run_state import RunState
from phoenix_pipeline.federated.transport import ServerTransport, receive
from tests.federated.test_transport import (
    BOTH,
    INT8,
    OVERHEAD,
    TOP_K,
    compression,
    distance,
    held_after,
    load_tensors_of,
    shared_template,
)
from tests.federated.tiny import (
    client_table,
    cut_and_resume,
    federate,
    make_images,
    message_bytes,
    same,
    settings,
)


def test_the_first_broadcast_is_a_difference_to_the_initial_weights(tmp_path: Path) -> None:
    told = compression(down={**TOP_K, "relative_to": "last_broadcast"})
    result = federate(tmp_path / "cold", rounds=1, compression=told)
    size = message_bytes(shared_template(), codec_of(told.down))
    assert ((result.rounds["bytes_down"] - size).between(0, OVERHEAD)).all()
    assert same(held_after(tmp_path / "cold", 1), shared_template())


def test_a_warm_up_is_part_of_the_first_difference(tmp_path: Path) -> None:
    warm = {"pool": np.arange(5, 20), "warmup_steps": 3, "compression": BOTH}
    result = federate(tmp_path, rounds=1, **warm)
    first = result.rounds[result.rounds["round"] == 1]
    assert (first["status"] == "ok").all()
    size = message_bytes(shared_template(), codec_of(BOTH.down))
    assert ((first["bytes_down"] - size).between(0, OVERHEAD)).all()
    started = held_after(tmp_path, 1)
    warmed = load_tensors_of(tmp_path, 0, "raw/")
    # 8 bits of a small difference: near what the server holds, and not the initial weights.
    assert 0 < distance(started, warmed) < 0.1 * distance(shared_template(), warmed)


def test_who_missed_few_rounds_is_sent_a_difference_and_who_missed_more_all(
    tmp_path: Path,
) -> None:
    down = {**INT8, "relative_to": "last_broadcast", "max_missed": 2}
    rows = federate(
        tmp_path,
        rounds=7,
        compression=compression(up=TOP_K, down=down),
        attendance={1: "1,3-", 2: "1,5-", 3: "4-"},
        client_images=client_table((6, 6, 6, 6)),
        images=make_images(24),
    ).rounds
    there = rows[rows["status"] != "absent"]
    assert (there["status"] == "ok").all()
    whole = message_bytes(shared_template(), None)
    sent_whole = there[there["bytes_down"] > whole]
    # Client 2 missed rounds 2 to 4; client 3 holds the initial weights, which are four rounds old.
    assert set(zip(sent_whole["client_id"], sent_whole["round"], strict=True)) == {(2, 5), (3, 4)}


def test_a_resumed_run_knows_what_each_client_holds(tmp_path: Path) -> None:
    options = {
        "rounds": 6,
        "compression": BOTH,
        "client_fraction": 0.5,
        "client_images": client_table((6, 6, 6, 6)),
        "images": make_images(24),
    }
    whole, resumed = cut_and_resume(tmp_path, after=3, **options)
    assert resumed.rounds["bytes_down"].equals(whole.rounds["bytes_down"])
    # Each trains every second round on average, and nobody is ever sent all weights.
    assert (whole.rounds["bytes_down"] < message_bytes(shared_template(), None)).all()


def test_clients_that_hold_different_references_each_reach_the_servers_weights() -> None:
    # Differences as they are: what each client then holds is what the server has.
    told = settings().model_copy(
        update={"compression": compression(down={**INT8, "relative_to": "last_broadcast"})}
    )
    run = RunState(Path("unused"), {}, shared_template(), 0.5)
    run.held.start(shared_template())
    server, states = ServerTransport(told, run), (ClientState(), ClientState())
    for current, clients in enumerate(([0], [1], [0, 1]), start=1):
        run.raw = {name: array + 0.01 * current for name, array in run.raw.items()}
        server.open_round(current, clients, ArrayRecord())
        for client in clients:
            record, config = server.write(client)
            assert config["broadcast"] == "delta"
            asked = ConfigRecord({"round": current, **config})
            initial = shared_template()
            got = receive(record, asked, told, states[client], initial, initial)
            # 8 bits of a constant difference are exact to its rounding.
            assert distance(dict(got.weights), run.raw) < 1e-2 * distance(initial, run.raw)
        server.close_round(clients)
    tensors, told_of = run.held.save()
    again = HeldReferences.restore(tensors, json.loads(json.dumps(told_of)))
    assert [again.of(c, 4, 8) for c in (0, 1)] == [run.held.of(c, 4, 8) for c in (0, 1)]
    assert same(again.arrays(again.of(1, 4, 8)), states[1].broadcast)


def test_nothing_is_kept_that_no_client_can_need() -> None:
    held = HeldReferences()
    held.start({"w": torch.zeros(2)})
    one, two = (
        Broadcast({"w": torch.full((2,), v)}, name, "delta", {})
        for v, name in ((1.0, "a"), (2.0, "b"))
    )
    held.remember({0: one, 1: one}, trained=[0], current=1, max_missed=1)
    # What the client 1 holds is not known, as it did not answer; 2 was not asked.
    assert [held.of(c, 2, 1) for c in (0, 1, 2)] == ["a", "", held.of(3, 1, 1)]
    held.remember({1: two}, trained=[1], current=2, max_missed=1)
    # The initial weights are too old for round 3, and "a" is not yet.
    assert [held.of(c, 3, 1) for c in (0, 1, 2)] == ["a", "b", ""]
    assert {name.partition("/")[0] for name in held.save()[0]} == {"a", "b"}
    held.remember({1: two}, trained=[1], current=3, max_missed=1)
    assert {name.partition("/")[0] for name in held.save()[0]} == {"b"}
    assert held.arrays("") is None


@pytest.mark.parametrize(("is_known", "kind"), [(True, "delta"), (False, "full")])
def test_other_machines_get_the_first_broadcast_whole(is_known: bool, kind: str) -> None:
    down = {"codec": "int8", "relative_to": "last_broadcast"}
    told = settings().model_copy(update={"compression": CompressionConfig(down=down)})
    run = RunState(Path("unused"), {}, shared_template(), 0.5)
    if is_known:
        run.held.start(shared_template())
    server = ServerTransport(told, run)
    server.open_round(1, [0], ArrayRecord())
    record, config = server.write(0)
    assert config["broadcast"] == kind
    # The last bit of one weight is another one there.
    initial = shared_template()
    initial["conv_in.bias"] = initial["conv_in.bias"].nextafter(initial["conv_in.bias"] + 1.0)
    asked = ConfigRecord({"round": 1, **config})
    if kind == "full":
        assert same(
            dict(receive(record, asked, told, ClientState(), initial, initial).weights), run.raw
        )
    else:
        with pytest.raises(FederationError, match="fingerprint"):
            receive(record, asked, told, ClientState(), initial, initial)
