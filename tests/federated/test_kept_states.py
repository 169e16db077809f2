"""States in memory between checkpoints: the same runs with fewer files, and nothing lost."""

from pathlib import Path
from typing import Any

import pytest
import torch

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.federated import client_state
from phoenix_pipeline.federated.client_state import ClientState, ClientStates, KeptStates
from tests.federated.tiny import federate, interrupt, same, settings

CPU = torch.device("cpu")
OWN: dict[str, Any] = {
    "settings": settings(("conv_out",), optimizer_state="keep"),
    "client_fraction": 0.5,
    "rounds": 5,
}


def state_of(value: float, size: int = 4) -> ClientState:
    return ClientState(optimizer={"m": torch.full((size,), value)})


def kept_in_memory(every: int, num_rounds: int) -> KeptStates:
    config = FederationConfig(checkpoint_every=every, num_rounds=num_rounds)
    return KeptStates(config.is_of_checkpoint, CPU)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("round-*.safetensors"))


def test_a_state_is_in_a_file_only_after_a_round_of_a_checkpoint(tmp_path: Path) -> None:
    kept = kept_in_memory(every=2, num_rounds=5)
    states = ClientStates(tmp_path, kept)
    states.save(3, 1, 0, state_of(1.0))
    assert files(tmp_path) == []
    assert states.load(3, 2).optimizer["m"][0] == 1.0
    assert states.load(3, 1).optimizer == {}, "a state of this round is none of before it"
    states.save(3, 2, 0, state_of(2.0))
    states.save(3, 5, 2, state_of(5.0))
    assert files(tmp_path / "3") == ["round-2.safetensors", "round-5.safetensors"]
    another_process = ClientStates(tmp_path)
    assert another_process.load(3, 5).optimizer["m"][0] == 2.0
    assert list(kept.unwritten()) == []


def test_what_does_not_fit_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A quarter of 200 bytes holds three vectors of four floats.
    monkeypatch.setattr(client_state, "available_memory", lambda device: 200)
    kept = kept_in_memory(every=9, num_rounds=9)
    states = ClientStates(tmp_path, kept)
    for client in range(5):
        states.save(client, 1, 0, state_of(float(client)))
    assert len(files(tmp_path)) == 2
    for client in range(5):
        assert states.load(client, 2).optimizer["m"][0] == client
        # One that outgrows its room moves into a file, and is not read from memory any more.
        states.save(client, 2, 0, state_of(10.0 + client, size=20))
        assert states.load(client, 3).optimizer["m"][0] == 10.0 + client
    assert list(kept.unwritten()) == []


def test_a_late_state_of_an_earlier_round_does_not_replace_the_newest(tmp_path: Path) -> None:
    kept = kept_in_memory(every=9, num_rounds=9)
    states = ClientStates(tmp_path, kept)
    states.save(0, 3, 0, state_of(3.0))
    states.save(0, 2, 0, state_of(2.0))
    assert states.load(0, 4).optimizer["m"][0] == 3.0


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_a_run_goes_on_from_its_last_checkpoint_with_the_same_bits(
    stop_after: int, tmp_path: Path
) -> None:
    """Half of the clients take part in a round: others' states are older than the checkpoint."""
    whole = federate(tmp_path / "whole", **OWN)
    interrupt(tmp_path / "cut", after=stop_after, checkpoint_every=2, **OWN)
    again = federate(tmp_path / "cut", checkpoint_every=2, **OWN)
    assert same(again.raw, whole.raw)
    for client in whole.connected:
        assert same(again.client_state(client).personal, whole.client_state(client).personal)


def test_an_average_that_was_kept_stands_if_the_round_fails() -> None:
    state = ClientState()
    state.keep_personal({"w": torch.ones(2)}, 0.5)
    before = state.personal_ema
    state.keep_personal({"w": torch.zeros(2)}, 0.5)
    assert before["w"].tolist() == [1.0, 1.0]
    assert state.personal_ema["w"].tolist() != [1.0, 1.0]
