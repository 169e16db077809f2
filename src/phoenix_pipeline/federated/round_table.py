"""The rows of ``rounds.parquet``, one per round and client, and what can be read from them."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from phoenix_pipeline.config import LinkConfig

Row = dict[str, Any]
WARM_UP_ROUND = 0
SERVER = -1


def new_row(server_round: int, client_id: int, num_examples: int) -> Row:
    """Return the row of a client from which nothing has been heard yet."""
    return {
        "round": server_round,
        "client_id": client_id,
        "num_examples": num_examples,
        "steps": 0,
        "images_trained": 0,
        "loss": float("nan"),
        "seconds": float("nan"),
        "bytes_up": 0,
        "bytes_down": 0,
        "status": "ok",
        "score": float("nan"),
        "threshold": float("nan"),
        "epsilon": float("nan"),
        "strikes": 0,
        "connected": True,
        "reason": "",
    }


def strikes_of(rows: Iterable[Row]) -> dict[int, int]:
    """Return each client's bad checks in a row, as of its last row."""
    return {row["client_id"]: row["strikes"] for row in rows}


def disconnected(rows: Iterable[Row]) -> set[int]:
    """Return the clients that the threshold filter has disconnected."""
    return {row["client_id"] for row in rows if not row["connected"]}


def link_seconds(row: Row, link: LinkConfig) -> float:
    """Return how long a row's bytes take, one message each way; NaN where nothing is simulated."""
    if link.uplink_mbit_s is None or link.downlink_mbit_s is None or not row["bytes_down"]:
        return float("nan")
    down = row["bytes_down"] * 8e-6 / link.downlink_mbit_s
    up = row["bytes_up"] * 8e-6 / link.uplink_mbit_s
    messages = 1 + (row["bytes_up"] > 0)
    return float(down + up + messages * link.latency_ms / 1000)


def with_link_seconds(rows: Iterable[Row], link: LinkConfig) -> pd.DataFrame:
    """Return the rows as a table, with the column ``link_seconds``."""
    return pd.DataFrame([row | {"link_seconds": link_seconds(row, link)} for row in rows])


def round_means(rows: Iterable[Row], number: int, link: LinkConfig) -> dict[str, float]:
    """Return one round's totals and its loss, weighted by example counts.

    ``link_seconds`` is that of the slowest client, whom the round waits for.
    """
    of_round = [row for row in rows if row["round"] == number]
    # Poisson sampling may choose nobody.
    columns = [*new_row(number, SERVER, 0), "link_seconds"]
    table = with_link_seconds(of_round, link).reindex(columns=columns)
    usable = table[table["status"] == "ok"]
    weights = usable["num_examples"] / usable["num_examples"].sum()
    means = {
        "loss": float((usable["loss"] * weights).sum()),
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
