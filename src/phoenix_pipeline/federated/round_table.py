"""The rows of ``rounds.parquet``, one per round and client, and what can be read from them."""

from typing import Any

import pandas as pd

from phoenix_pipeline.config import LinkConfig

Row = dict[str, Any]
WARM_UP_ROUND = 0
SERVER = -1
ABSENT = "absent"


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


def with_link_seconds(table: pd.DataFrame, link: LinkConfig) -> pd.DataFrame:
    """Return ``table`` with ``link_seconds``: how long a row's bytes take, one message each way.

    NaN where nothing was sent, or no link is simulated.
    """
    if link.uplink_mbit_s is None or link.downlink_mbit_s is None:
        return table.assign(link_seconds=float("nan"))
    down = table["bytes_down"] * 8e-6 / link.downlink_mbit_s
    up = table["bytes_up"] * 8e-6 / link.uplink_mbit_s
    messages = 1 + (table["bytes_up"] > 0)
    seconds = down + up + messages * link.latency_ms / 1000
    return table.assign(link_seconds=seconds.where(table["bytes_down"] > 0))


def round_means(table: pd.DataFrame) -> dict[str, float]:
    """Return the totals of one round's rows, and its loss, weighted by example counts.

    ``loss`` is that of those who tell one, NaN if nobody does. ``link_seconds`` is that of the
    slowest client, whom the round waits for.
    """
    usable = table[table["status"] == "ok"]
    told = usable[usable["loss"].notna()]
    weights = told["num_examples"] / told["num_examples"].sum()
    means = {
        "loss": float((told["loss"] * weights).sum()) if len(told) else float("nan"),
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
