"""The history file: a line per round, checked, and cut where a checkpoint says that it ends."""

import itertools
import math
from pathlib import Path

import pandas as pd
import pytest

from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.federated.history import ABSENT, History, Row, new_row


def rows(number: int, **changes: object) -> list[Row]:
    return [new_row(number, client, 10 + client) | changes for client in (3, 5)]


def test_rows_come_back_with_their_types_and_odd_numbers(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.add(1, rows(1, loss=0.1, threshold=math.inf, strikes=1))
    history.add(2, [new_row(2, 3, 13), new_row(2, 7, 1) | {"connected": False, "status": "failed"}])
    back = History.restore(tmp_path / "history.jsonl", history.save())
    pd.testing.assert_frame_equal(back.table(), history.table())
    assert back.of_round(2)["client_id"].tolist() == [3, 7]
    assert back.strikes == {3: 0, 5: 1, 7: 0}
    assert back.disconnected == {7}
    assert back.trained == {3, 5}
    assert back.rounds_asked == {3: 2, 5: 1, 7: 1}


def test_a_checkpoint_writes_its_own_rounds_only(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    sizes = []
    for number in range(1, 5):
        history.add(number, rows(number))
        sizes.append(history.save()["bytes"])
    assert {b - a for a, b in itertools.pairwise(sizes)} == {sizes[0]}
    assert history.save()["bytes"] == sizes[-1] == history._file.stat().st_size


def test_what_a_killed_process_left_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    history = History(file)
    history.add(1, rows(1))
    first = history.save()
    history.add(2, rows(2, loss=1.0))
    history.save()
    with file.open("ab") as stream:
        stream.write(b'{"round": [3')
    again = History.restore(file, first)
    assert len(again.table()) == 2
    again.add(2, rows(2, loss=2.0))
    mark = again.save()
    back = History.restore(file, mark)
    assert back.table()["loss"].tolist()[2:] == [2.0, 2.0]
    assert file.read_bytes().count(b"\n") == 2
    assert file.stat().st_size == mark["bytes"]


def test_an_altered_or_short_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    history = History(file)
    history.add(1, rows(1))
    mark = history.save()
    content = file.read_bytes()
    for broken in (content.replace(b"13", b"14"), content[:-5], b""):
        file.write_bytes(broken)
        with pytest.raises(CheckpointError, match="truncated or altered"):
            History.restore(file, mark)
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        History.restore(file, mark)


def test_traffic_is_added_to_the_newest_row_of_each_client(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.add(1, rows(1, bytes_up=5))
    history.add(2, rows(2, bytes_up=6)[:1])
    history.add(3, [])
    history.charge({3: (10, 1), 5: (100, 7), 9: (1, 1)})
    traffic = history.table()[["bytes_up", "bytes_down"]].to_numpy().tolist()
    assert traffic == [[5, 0], [105, 7], [16, 1]]


def test_rounds_of_nobody_raise_epsilon_of_the_last_that_had_one(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.add(1, rows(1, epsilon=0.5))
    history.add(2, rows(2, epsilon=0.7))
    history.add(3, [new_row(3, 3, 13) | {"status": ABSENT}])
    history.add(4, [])
    history.raise_epsilon(0.9)
    assert history.table()["epsilon"].tolist()[:4] == [0.5, 0.5, 0.9, 0.9]
    assert math.isnan(history.table()["epsilon"][4])


def test_a_round_of_nobody_and_absent_clients_are_kept(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.add(1, [])
    history.add(2, [new_row(2, 3, 13) | {"steps": 4}, new_row(2, 5, 1) | {"status": ABSENT}])
    back = History.restore(tmp_path / "history.jsonl", history.save())
    pd.testing.assert_frame_equal(back.table(), history.table())
    assert back.of_round(1).empty
    assert back.rounds_asked == {3: 1}
    assert back.steps_asked == {3: 4}
