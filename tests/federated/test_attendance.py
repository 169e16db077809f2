"""Clients that join late, stay away and come back, in a simulation."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.errors import FederationError, SettingsError
from phoenix_pipeline.federated.fleet import Attendance
from tests.federated.tiny import federate, same


def test_who_is_away_in_which_round() -> None:
    attendance = Attendance(FederationConfig(attendance={1: "3-", 2: "1-2,5", 3: "2"}), range(4))
    away = [sorted(attendance(number)) for number in range(1, 7)]
    assert away == [[1, 3], [1], [2, 3], [2, 3], [3], [2, 3]]
    assert attendance(1)[1] == "has not joined yet (federation.attendance)"
    assert attendance(3)[2] == "away in this round (federation.attendance)"


def test_absent_clients_have_a_row_and_no_share_in_the_round(tmp_path: Path) -> None:
    means: list[float] = []
    result = federate(
        tmp_path / "late",
        attendance={1: "2-"},
        on_round=lambda _, values: means.append(values["clients_left_out"]),
    )
    rows = result.rounds.sort_values(["round", "client_id"])
    assert rows["status"].tolist() == ["ok", "absent", "ok", "ok"]
    assert rows["images_trained"].tolist() == [12, 0, 12, 12]
    assert rows["bytes_down"].to_numpy()[1] == 0
    assert means == [1.0, 0.0]
    assert not same(result.raw, federate(tmp_path / "whole").raw)


def test_too_few_present_clients_end_the_run_before_the_round(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"round 2: 1 of 2 clients are there.*away"):
        federate(tmp_path, attendance={1: "1"}, min_clients=2)
    assert list((tmp_path / "server").glob("round-000001*"))


def test_what_attendance_may_say(tmp_path: Path) -> None:
    for text in ("", "0-", "3-1", "a", "1,", "-4"):
        with pytest.raises(ValidationError):
            FederationConfig(attendance={0: text})
    with pytest.raises(ValidationError, match=r"set federation.attendance: {}"):
        FederationConfig(engine="deployment", attendance={0: "1-"})
    with pytest.raises(SettingsError, match="names client 7; there are 2"):
        federate(tmp_path, attendance={7: "1-"})
    pooled = FederationConfig(pooled=True, attendance={7: "2-"})
    assert Attendance(pooled, [0])(1) == {}
