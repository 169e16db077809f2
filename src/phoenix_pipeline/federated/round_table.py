"""The rows of ``rounds.parquet``, one per round and client, and what can be read from them."""

from typing import Any

import pandas as pd

Row = dict[str, Any]
WARM_UP_ROUND = 0
SERVER = -1


def new_row(server_round: int, client_id: int, num_examples: int) -> Row:
    """Return the row of a client from which nothing has been heard yet."""
    return {
        "round": server_round,
        "client_id": client_id,
        "num_examples": num_examples,
        "images_trained": 0,
        "loss": float("nan"),
        "seconds": float("nan"),
        "bytes_up": 0,
        "bytes_down": 0,
        "status": "ok",
        "score": float("nan"),
        "threshold": float("nan"),
        "strikes": 0,
        "connected": True,
        "reason": "",
    }


def round_means(table: pd.DataFrame) -> dict[str, float]:
    """Return the totals of one round's rows, and its loss, weighted by example counts."""
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
    if table["score"].notna().any():
        means["monitor_score"] = float(table["score"].median())
        means["clients_disconnected"] = float((~table["connected"]).sum())
    return means
