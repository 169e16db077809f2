"""The way down where differences to the last broadcast are sent: who can follow, and who cannot."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord

from phoenix_pipeline.config import CompressionConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.compression.codecs import codec_of
from phoenix_pipeline.federated.compression.updates import encoded_bytes
from phoenix_pipeline.federated.run_state import RunState
from phoenix_pipeline.federated.transport import ServerTransport, receive
from tests.federated.test_transport import (
    BOTH,
    OVERHEAD,
    TOP_K,
    compression,
    distance,
    load_tensors_of,
    shared_template,
)
from tests.federated.tiny import client_table, federate, make_images, same, settings


def test_the_first_broadcast_is_a_difference_to_the_initial_weights(tmp_path: Path) -> None:
    told = compression(down={**TOP_K, "relative_to": "last_broadcast"})
    result = federate(tmp_path / "cold", rounds=1, compression=told)
    size = encoded_bytes(shared_template(), codec_of(told.down))
    assert ((result.rounds["bytes_down"] - size).between(0, OVERHEAD)).all()
    assert same(load_tensors_of(tmp_path / "cold", 1, "broadcast/"), shared_template())


def test_a_warm_up_is_part_of_the_first_difference(tmp_path: Path) -> None:
    warm = {"pool": np.arange(5, 20), "warmup_steps": 3, "compression": BOTH}
    result = federate(tmp_path, rounds=1, **warm)
    first = result.rounds[result.rounds["round"] == 1]
    assert (first["status"] == "ok").all()
    size = encoded_bytes(shared_template(), codec_of(BOTH.down))
    assert ((first["bytes_down"] - size).between(0, OVERHEAD)).all()
    started = load_tensors_of(tmp_path, 1, "broadcast/")
    warmed = load_tensors_of(tmp_path, 0, "raw/")
    # 8 bits of a small difference: near what the server holds, and not the initial weights.
    assert 0 < distance(started, warmed) < 0.1 * distance(shared_template(), warmed)


def test_a_client_that_missed_the_last_broadcast_gets_all_of_it(tmp_path: Path) -> None:
    rows = federate(
        tmp_path,
        rounds=5,
        compression=BOTH,
        client_fraction=0.5,
        client_images=client_table((6, 6, 6, 6)),
        images=make_images(24),
    ).rounds
    whole = encoded_bytes(shared_template(), None)
    held = set(range(4))
    kinds = set()
    for _, part in rows.groupby("round"):
        for row in part.itertuples():
            assert (row.bytes_down > whole) == (row.client_id not in held)
            kinds.add(row.bytes_down > whole)
        assert (part["status"] == "ok").all()
        held = set(part["client_id"])
    assert kinds == {True, False}


@pytest.mark.parametrize(("same_start", "kind"), [(True, "delta"), (False, "full")])
def test_other_machines_get_the_first_broadcast_whole(same_start: bool, kind: str) -> None:
    down = {"codec": "int8", "relative_to": "last_broadcast"}
    told = settings().model_copy(update={"compression": CompressionConfig(down=down)})
    run = RunState(Path("unused"), {}, shared_template(), 0.5)
    run.broadcast = shared_template()
    server = ServerTransport(told, run, same_start=same_start)
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
