import pytest
import torch
from torch import Tensor

from phoenix_pipeline.config.compression import CompressionConfig, DownlinkConfig, LinkConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.broadcast import (
    DELTA,
    FULL,
    prepare_broadcast,
    receive_broadcast,
)

DELTAS = DownlinkConfig(codec="top_k", density=0.2, relative_to="last_broadcast")


def weights(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(10, 12, generator=generator),
        "norm.running_mean": torch.full((3,), float(seed)),
    }


def source() -> torch.Generator:
    return torch.Generator().manual_seed(9)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("codec", ["none", "fp16", "int8"])
def test_every_client_ends_with_the_servers_reference(codec: str) -> None:
    config = DownlinkConfig(codec=codec)
    sent = prepare_broadcast(weights(1), None, config, source())
    assert sent.kind == FULL
    got = receive_broadcast(sent.kind, sent.vectors, sent.fingerprint, {}, weights(0), config)
    assert same(got, sent.reference)
    assert same(got, weights(1)) == (codec == "none")
    assert torch.equal(got["norm.running_mean"], weights(1)["norm.running_mean"])


def test_clients_that_follow_and_clients_that_missed_rounds_hold_what_the_server_knows() -> None:
    held: list[dict[str, Tensor]] = [{}, {}]
    for round_number in range(1, 6):
        for client in (0, 1) if round_number % 2 else (0,):
            known = held[client] or None
            sent = prepare_broadcast(weights(round_number), known, DELTAS, source())
            assert sent.kind == (DELTA if round_number > 1 else FULL)
            held[client] = receive_broadcast(
                sent.kind, sent.vectors, sent.fingerprint, held[client], weights(0), DELTAS
            )
            assert same(held[client], sent.reference)
    # What codecs left out of one, two, ... differences is not the same.
    assert not same(held[0], held[1])


def test_what_a_difference_leaves_out_is_in_a_later_one() -> None:
    goal = weights(2)
    reference = prepare_broadcast(weights(1), None, DELTAS, source()).reference
    errors = []
    for _ in range(12):
        reference = prepare_broadcast(goal, reference, DELTAS, source()).reference
        errors.append(float((reference["w"] - goal["w"]).abs().max()))
    # 120 values, 24 of them per message: 5 bring all, the rest mend the rounding to fp16.
    assert errors[0] > 0.5
    assert errors[-1] < 1e-5


def test_a_client_that_holds_something_else_refuses() -> None:
    first = prepare_broadcast(weights(1), None, DELTAS, source())
    second = prepare_broadcast(weights(2), first.reference, DELTAS, source())
    for held, said in ((weights(3), "fingerprint"), ({}, "holds no earlier broadcast")):
        with pytest.raises(FederationError, match=said):
            receive_broadcast(
                second.kind, second.vectors, second.fingerprint, held, weights(0), DELTAS
            )


def test_weights_cannot_be_sent_as_their_largest_values() -> None:
    with pytest.raises(ValueError, match="relative_to: last_broadcast"):
        CompressionConfig(down={"codec": "top_k"})
    with pytest.raises(ValueError, match="as many bytes as the weights"):
        CompressionConfig(down={"relative_to": "last_broadcast"})
    with pytest.raises(ValueError, match="set both, or both to null"):
        LinkConfig(uplink_mbit_s=3.0)
    with pytest.raises(ValueError, match="Extra inputs"):
        CompressionConfig(down={"error_feedback": True})
    assert not CompressionConfig().is_active
    assert CompressionConfig(partial_update="usplit").is_active
