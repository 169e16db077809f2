"""What a run may go on from: other settings are refused by name, broken files passed over."""

import logging
from pathlib import Path

import pytest
import torch

from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.federated.client_state import ClientState, ClientStates
from phoenix_pipeline.federated.run_state import is_resumable
from tests.federated.tiny import federate, interrupt, job, make_images, same, settings


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_an_unfinished_run_of_other_settings_is_refused_and_kept(tmp_path: Path) -> None:
    interrupt(tmp_path, after=1, rounds=3, settings=settings(learning_rate=1e-3))
    stored = contents(tmp_path)
    with pytest.raises(CheckpointError) as refusal:
        federate(tmp_path, rounds=4, settings=settings(learning_rate=2e-3))
    said = str(refusal.value)
    assert "unfinished run of other settings, round 1 of 3: " in said
    assert "federation.num_rounds=4, stored 3; training.learning_rate=0.002, stored 0.001;" in said
    assert "--params federation.resume=false" in said
    assert "\n" not in said
    assert contents(tmp_path) == stored
    given = federate(tmp_path, rounds=3, settings=settings(learning_rate=1e-3))
    assert len(given.rounds) == 6


def test_resume_false_starts_over_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt(tmp_path, after=1, rounds=2)
    told = settings(learning_rate=2e-3)
    with caplog.at_level(logging.INFO):
        again = federate(tmp_path, settings=told, resume=False)
    assert "starting over" in caplog.text
    assert same(again.raw, federate(tmp_path / "fresh", settings=told).raw)


def test_a_finished_run_gives_way_to_other_settings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    federate(tmp_path, settings=settings(learning_rate=1e-3))
    told = settings(learning_rate=2e-3)
    with caplog.at_level(logging.INFO):
        again = federate(tmp_path, settings=told)
    assert "finished run of other settings (training.learning_rate=0.002, stored" in caplog.text
    assert same(again.raw, federate(tmp_path / "fresh", settings=told).raw)


def test_other_data_and_absent_settings_differ(tmp_path: Path) -> None:
    interrupt(tmp_path, after=1, rounds=2)
    asked = job(rounds=2).identity()
    server = tmp_path / "server"
    assert is_resumable(server, asked)
    assert is_resumable(server, {key: asked[key] for key in asked if key != "data"})
    with pytest.raises(CheckpointError, match=r"data \(other images"):
        is_resumable(server, job(rounds=2, images=make_images(50)).identity())
    with pytest.raises(CheckpointError, match=r"federation\.new=1, stored null"):
        is_resumable(server, {**asked, "federation.new": 1})
    fewer = {key: asked[key] for key in asked if key != "seed"}
    with pytest.raises(CheckpointError, match="seed=null, stored 5"):
        is_resumable(server, fewer)


def test_without_an_intact_checkpoint_nothing_is_replaced(tmp_path: Path) -> None:
    interrupt(tmp_path, after=1, rounds=2)
    for file in (tmp_path / "server").glob("round-*"):
        file.write_bytes(file.read_bytes()[:-9])
    stored = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is intact; to start over"):
        federate(tmp_path, rounds=2)
    assert contents(tmp_path) == stored


def test_settings_altered_in_the_newest_file_lead_to_the_one_before(tmp_path: Path) -> None:
    whole = federate(tmp_path, rounds=3)
    newest = max((tmp_path / "server").glob("round-*"))
    newest.write_bytes(newest.read_bytes().replace(b'seed\\": 5', b'seed\\": 6'))
    assert same(federate(tmp_path, rounds=3).raw, whole.raw)


def test_an_altered_history_leads_to_the_checkpoint_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = federate(tmp_path, rounds=3)
    file = tmp_path / "server/history.jsonl"
    *lines, last = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines, last.replace(b"[3, 3]", b"[3, 4]")]))
    again = federate(tmp_path, rounds=3)
    assert "its checksum differs; trying the one before it" in caplog.text
    assert same(again.raw, whole.raw)
    assert again.rounds["round"].tolist() == [1, 1, 2, 2, 3, 3]


def test_a_client_uses_the_state_before_a_broken_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states = ClientStates(tmp_path)
    for number in (1, 2):
        states.save(4, number, 1, ClientState(optimizer={"m": torch.full((50,), number)}))
    assert states.load(4, 3).optimizer["m"][0] == 2
    for number in (2, 1):
        file = tmp_path / f"4/round-{number}.safetensors"
        file.write_bytes(file.read_bytes()[:-3])
        if number == 2:
            assert states.load(4, 3).optimizer["m"][0] == 1
            assert "client 4: " in caplog.text and "trying the state before it" in caplog.text
    with pytest.raises(CheckpointError, match="client 4 has no intact state"):
        states.load(4, 3)
