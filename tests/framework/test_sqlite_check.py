"""A database that MLflow cannot use is told at once; a good one is left as it is."""

import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework import mlflow_store
from phoenix_pipeline.framework.mlflow_store import (
    TrackingConfig,
    connect,
    find_problem,
    reason_of,
    sqlite_file,
)


def make(file: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(file)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    return file


def mlflow_like(file: Path) -> Path:
    rows = "INSERT INTO runs SELECT hex(randomblob(500)) FROM sqlite_master, (VALUES (1), (2), (3))"
    return make(file, "CREATE TABLE experiments (x)", "CREATE TABLE runs (x)", *[rows] * 20)


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////tmp/a.db", "/tmp/a.db"),
        ("sqlite:///a.db?timeout=3", "a.db"),
        ("sqlite:///~/a.db", "/home/ann/a.db"),
        ("sqlite:///:memory:", None),
        ("postgresql://host/db", None),
        ("http://host:5000", None),
    ],
)
def test_the_file_of_an_address(
    uri: str, file: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert sqlite_file(uri) == (Path(file) if file else None)


def test_what_mlflow_can_use_has_no_problem_and_no_change(tmp_path: Path) -> None:
    assert find_problem(tmp_path / "new/mlflow.db") is None
    assert find_problem(make(tmp_path / "empty.db")) is None
    used = mlflow_like(tmp_path / "used.db")
    before = used.read_bytes()
    assert find_problem(used) is None
    assert used.read_bytes() == before


def truncated(folder: Path) -> Path:
    file = mlflow_like(folder / "mlflow.db")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def garbled(folder: Path) -> Path:
    file = mlflow_like(folder / "mlflow.db")
    file.write_bytes(file.read_bytes()[:100] + b"\xff" * (file.stat().st_size - 100))
    return file


def text(folder: Path) -> Path:
    (folder / "mlflow.db").write_text("notes\n" * 100)
    return folder / "mlflow.db"


def stub(folder: Path) -> Path:
    (folder / "mlflow.db").write_bytes(b"SQLite format 3\x00\x10")
    return folder / "mlflow.db"


def foreign(folder: Path) -> Path:
    return make(folder / "mlflow.db", "CREATE TABLE users (x)", "CREATE TABLE alembic_version (x)")


def folder(folder: Path) -> Path:
    (folder / "mlflow.db").mkdir()
    return folder / "mlflow.db"


def below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file/mlflow.db"


@pytest.mark.parametrize(
    ("broken", "parts"),
    [
        (truncated, ["no whole database", "move the file away"]),
        (garbled, ["no whole database", "move the file away"]),
        (text, ["file is not a database", "move the file away"]),
        (stub, ["file is not a database", "move the file away"]),
        (foreign, ["tables of another program (users)", "name another file"]),
        (folder, ["unable to open", "allow writing"]),
        (below_a_file, ["file/mlflow.db.lock cannot be written: ", "allow writing"]),
    ],
)
def test_a_broken_database_is_one_line_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[Path], Path],
    parts: list[str],
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    file = broken(tmp_path)
    with pytest.raises(SettingsError) as caught:
        connect(TrackingConfig(tracking_uri=f"sqlite:///{file}"), tmp_path)
    line = str(caught.value)
    assert "\n" not in line
    for part in [*parts, str(file), "MLFLOW_TRACKING_URI", "PHOENIX_TRACKING=0"]:
        assert part in line
    assert line.endswith("PHOENIX_TRACKING=0")


def test_a_locked_database_is_told_after_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_store, "PATIENCE_S", 0.1)
    file = mlflow_like(tmp_path / "mlflow.db")
    with closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert "database is locked; another program has held it" in str(find_problem(file))
    assert find_problem(file) is None


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs a mount")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=False
    )
    if mounted.returncode:
        pytest.skip("no mounting here")
    try:
        file = mlflow_like(small / "mlflow.db")
        with (small / "filler").open("wb", buffering=0) as filler:
            with suppress(OSError):
                while True:
                    filler.write(b"0" * 4096)
        assert "free some space" in str(find_problem(file))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_two_first_runs_at_once_make_one_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found: list[str] = []
    config = TrackingConfig(experiment="tiny")
    both = [
        threading.Thread(target=lambda: found.append(connect(config, tmp_path)[1]))
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert found == ["1", "1"]


def test_a_reason_is_whole_and_without_sql() -> None:
    told = "x" * 300
    error = ValueError(f"{told}\n[SQL: SELECT 1] (Background on this error at: https://...)")
    assert reason_of(error) == told
    assert reason_of(ValueError("no server at http://me:secret@host.")) == (
        "no server at http://***@host"
    )
