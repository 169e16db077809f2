"""The rows of ``rounds.parquet``, one per round and client: what they say, in memory and on disk.

The file on disk has a line per round and only grows, so that a checkpoint costs what its own rounds
cost; a checkpoint says how much of the file belongs to it.
"""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd

from phoenix_pipeline.config import LinkConfig
from phoenix_pipeline.errors import CheckpointError, StorageError

WARM_UP_ROUND = 0
SERVER = -1
ABSENT = "absent"


class Row(TypedDict):
    """One client in one round, as ``docs/architecture.md`` describes it; what is not known is NaN.

    ``status``: ``ok``, ``failed`` or :data:`ABSENT`; ``reason``: why, or "".
    """

    round: int
    client_id: int
    num_examples: int
    steps: int
    images_trained: int
    loss: float
    seconds: float
    bytes_up: int
    bytes_down: int
    status: str
    score: float
    threshold: float
    epsilon: float
    strikes: int
    connected: bool
    reason: str


_COLUMNS = list(Row.__annotations__)


def new_row(server_round: int, client_id: int, num_examples: int) -> Row:
    """Return the row of a client from which nothing has been heard yet."""
    return {
        "round": server_round,
        "client_id": client_id,
        "num_examples": num_examples,
        "steps": 0,
        "images_trained": 0,
        "loss": math.nan,
        "seconds": math.nan,
        "bytes_up": 0,
        "bytes_down": 0,
        "status": "ok",
        "score": math.nan,
        "threshold": math.nan,
        "epsilon": math.nan,
        "strikes": 0,
        "connected": True,
        "reason": "",
    }


def with_link_seconds(table: pd.DataFrame, link: LinkConfig) -> pd.DataFrame:
    """Return ``table`` with ``link_seconds`` of each row's bytes; NaN where there is no link."""
    if link.uplink_mbit_s is None or link.downlink_mbit_s is None:
        return table.assign(link_seconds=float("nan"))
    down = table["bytes_down"] * 8e-6 / link.downlink_mbit_s
    up = table["bytes_up"] * 8e-6 / link.uplink_mbit_s
    messages = 1 + (table["bytes_up"] > 0)
    seconds = down + up + messages * link.latency_ms / 1000
    return table.assign(link_seconds=seconds.where(table["bytes_down"] > 0))


def round_means(table: pd.DataFrame) -> dict[str, float]:
    """Return totals of a round, its loss by example counts, the slowest client's link time."""
    usable = table[table["status"] == "ok"]
    with_loss = usable[usable["loss"].notna()]
    weights = with_loss["num_examples"] / with_loss["num_examples"].sum()
    means = {
        "loss": float((with_loss["loss"] * weights).sum()) if len(with_loss) else float("nan"),
        "clients": float(len(usable)),
        "clients_left_out": float(len(table) - len(usable)),
        "images_trained": float(usable["images_trained"].sum()),
        "seconds": float(usable["seconds"].sum()),
        "bytes_up": float(table["bytes_up"].sum()),
        "bytes_down": float(table["bytes_down"].sum()),
    }
    if table["link_seconds"].notna().any():
        means["link_seconds"] = float(table["link_seconds"].max())
    if table["score"].notna().any():
        means["monitor_score"] = float(table["score"].median())
        means["clients_disconnected"] = float((~table["connected"]).sum())
    if table["epsilon"].notna().any():
        means["epsilon"] = float(table["epsilon"].max())
    return means


class History:
    """Rows by round, and what the coming rounds must know of them.

    ``strikes``: bad checks in a row by client, as of its last row. ``disconnected``: by the
    threshold filter. ``trained``: clients that had a usable reply. ``rounds_asked`` and
    ``steps_asked``: by client, whether or not a reply came.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tables: dict[int, pd.DataFrame] = {}
        self._saved: set[int] = set()
        self._size = 0
        self._digest = hashlib.sha256()
        self.strikes: dict[int, int] = {}
        self.disconnected: set[int] = set()
        self.trained: set[int] = set()
        self.rounds_asked: Counter[int] = Counter()
        self.steps_asked: Counter[int] = Counter()

    def add(self, number: int, rows: Sequence[Row]) -> None:
        """Append the rows of round ``number``; Poisson sampling may have chosen nobody."""
        self._add(number, pd.DataFrame(list(rows), columns=_COLUMNS))

    def of_round(self, number: int) -> pd.DataFrame:
        """Return the rows of round ``number``."""
        return self._tables[number]

    def table(self) -> pd.DataFrame:
        """Return all rows, in the order in which they were added."""
        filled = [table for table in self._tables.values() if len(table)]
        if not filled:
            return pd.DataFrame(columns=_COLUMNS)
        return pd.concat(filled, ignore_index=True)

    def charge(self, traffic: Mapping[int, tuple[int, int]]) -> None:
        """Add (bytes up, bytes down) by client to the newest row of each, of whatever round."""
        left = dict(traffic)
        for table in reversed(self._tables.values()):
            found = left.keys() & set(table["client_id"])
            if not found:
                continue
            for position, column in enumerate(("bytes_up", "bytes_down")):
                more = {client: left[client][position] for client in found}
                table[column] += table["client_id"].map(more).fillna(0).astype("int64")
            for client in found:
                del left[client]

    def raise_epsilon(self, epsilon: float) -> None:
        """Note ``epsilon`` in the newest rows that have one; a round of nobody has no rows."""
        for table in reversed(self._tables.values()):
            known = table["epsilon"].notna()
            if known.any():
                table.loc[known, "epsilon"] = epsilon
                return

    def save(self) -> dict[str, Any]:
        """Append what is new; return a mark for :meth:`restore`; raises StorageError."""
        new = [number for number in self._tables if number not in self._saved]
        lines = b"".join(_to_line(number, self._tables[number]) for number in new)
        try:
            self._append(lines)
        except OSError as error:
            raise StorageError(
                f"{self._file} could not be written: {error.strerror}; the last checkpoint stands"
            ) from error
        self._saved.update(new)
        return self._mark(lines)

    @classmethod
    def restore(cls, file: Path, mark: Mapping[str, Any]) -> "History":
        """Return the history that ``mark`` describes; raises CheckpointError if it was altered."""
        try:
            with file.open("rb") as stream:
                content = stream.read(mark["bytes"])
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != mark["sha256"]:
            raise CheckpointError(
                f"{file} was truncated or altered after it was written: its checksum differs"
            )
        history = cls(file)
        for line in content.splitlines():
            number, columns = json.loads(line)
            history._add(number, pd.DataFrame(columns))
        history._saved = set(history._tables)
        history._mark(content)
        return history

    def _add(self, number: int, table: pd.DataFrame) -> None:
        self._tables[number] = table
        if table.empty:
            return
        clients = table["client_id"].tolist()
        self.strikes.update(zip(clients, table["strikes"].tolist(), strict=True))
        self.disconnected.update(table.loc[~table["connected"], "client_id"].tolist())
        self.trained.update(table.loc[table["status"] == "ok", "client_id"].tolist())
        asked = table[table["status"] != ABSENT]
        self.rounds_asked.update(asked["client_id"].tolist())
        self.steps_asked.update(
            dict(zip(asked["client_id"].tolist(), asked["steps"].tolist(), strict=True))
        )

    def _append(self, lines: bytes) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("r+b" if self._size else "wb") as stream:
            stream.truncate(self._size)
            stream.seek(self._size)
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())

    def _mark(self, content: bytes) -> dict[str, Any]:
        self._size += len(content)
        self._digest.update(content)
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}


def _to_line(number: int, table: pd.DataFrame) -> bytes:
    columns = {name: table[name].tolist() for name in table}
    return json.dumps([number, columns]).encode() + b"\n"
