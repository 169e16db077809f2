"""Thousands of spoiled answers: nothing is raised, and what is kept can be written and read."""

import json
import logging
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from phoenix_pipeline.config import LinkConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation.means import WeightedMean
from phoenix_pipeline.federated.client_answers import read_introduction, read_reply
from phoenix_pipeline.federated.history import new_row, round_means, with_link_seconds
from phoenix_pipeline.federated.personal_upload import _read as read_upload
from phoenix_pipeline.federated.records import pack_arrays, pack_weights, unpack_weights
from phoenix_pipeline.federated.wire import Layout

TEMPLATE = {"w": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)}
LAYOUT = Layout.of(TEMPLATE)
NUMBERS: tuple[Any, ...] = (
    *(math.inf, -math.inf, math.nan, 1e300, -1e308, 2**62, 2**63, 10**400, -5, 0, 1, 0.5, -0.0),
    *(True, [1.0], [], [1] * 1000, 1e-320, 10**9, 10**9 + 1, 12, 13),
)
TEXTS = ("", "x" * 5000, "\x1b[2J", "\ud800", "../../etc", "NaN", "\x00")


def honest() -> RecordDict:
    metrics = {
        **{"client-id": 1, "num-examples": 12, "releases": 1, "images-trained": 12},
        **{"loss": 0.5, "seconds": 1.5, "score": 1.0},
    }
    return RecordDict({"arrays": pack_weights(TEMPLATE), "metrics": MetricRecord(metrics)})


def message(content: RecordDict) -> Message:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, SUPERLINK_NODE_ID
    return Message(content, 7, "train")


def spoil_number(content: RecordDict, draw: random.Random) -> None:
    metrics = content["metrics"]
    metrics.__dict__["_data"][draw.choice(list(metrics))] = draw.choice(NUMBERS)


def drop_number(content: RecordDict, draw: random.Random) -> None:
    del content["metrics"][draw.choice(list(content["metrics"]))]


def spoil_bytes(content: RecordDict, draw: random.Random) -> None:
    name = next(iter(content["arrays"]))
    data = bytearray(content["arrays"][name].data)
    for _ in range(draw.randint(1, 8)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    cut = draw.choice([None, draw.randrange(len(data))])
    replace_array(content, bytes(data[:cut]), draw)


def spoil_header(content: RecordDict, draw: random.Random) -> None:
    inside = draw.choice(
        [
            b"-" * 9000,
            b"(" * 3000,
            b"9" * 5000,
            b"1 if 1 else 2",
            b"10**10",
            b"4294967296, 4294967296",
        ]
    )
    kind = draw.choice([b"<f4", b"|O8", b"<c8", b">f4", b"<f16", b"|V4"])
    header = b"{'descr': '" + kind + b"', 'fortran_order': False, 'shape': (" + inside + b",), }\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    replace_array(content, start + header + bytes(32), draw)


def replace_array(content: RecordDict, data: bytes, draw: random.Random) -> None:
    kind = draw.choice(["numpy.ndarray", "numpy.ndarray", "pickle", "\x1b"])
    array = Array(draw.choice(["float32", "\x00"]), (8,), kind, data)
    content["arrays"] = ArrayRecord({draw.choice(["float32", "x" * 3000, ""]): array})


def spoil_values(content: RecordDict, draw: random.Random) -> None:
    values = np.full(8, draw.choice([math.nan, math.inf, 1e38, 1e15]), draw.choice(["f4", "f8"]))
    content["arrays"] = ArrayRecord({"float32": Array(values)})


def spoil_records(content: RecordDict, draw: random.Random) -> None:
    name = draw.choice(["arrays", "metrics", "more", draw.choice(TEXTS)])
    record = draw.choice(
        [ConfigRecord({"float32": draw.choice(TEXTS)}), MetricRecord(), ArrayRecord(), None]
    )
    if record is None:
        content.pop(name, None)
    else:
        content[name] = record


WAYS: tuple[Callable[[RecordDict, random.Random], None], ...] = (
    *(spoil_number, drop_number, spoil_bytes, spoil_header, spoil_values, spoil_records),
)


def hostile(draw: random.Random) -> Message:
    """Return an answer that is spoiled in up to three ways."""
    answer = message(honest())
    if draw.random() < 0.05:
        return Message(Error(0, draw.choice(TEXTS) * 100), reply_to=answer)
    for _ in range(draw.randint(1, 3)):
        try:
            draw.choice(WAYS)(answer.content, draw)
        except (KeyError, StopIteration, AttributeError, IndexError, TypeError, ValueError):
            continue  # what was to be spoiled is gone
    return answer


def read(answer: Message, row: Any, rule: WeightedMean) -> Any:
    return read_reply(answer, row, 12, TEMPLATE, lambda r: unpack_weights(r, LAYOUT), rule)


def as_rows(count: int, seed: int) -> list[dict[str, Any]]:
    draw, rows = random.Random(seed), []
    for number in range(count):
        rule = WeightedMean(TEMPLATE)
        row = new_row(1, number, 12)
        rows.append(read(hostile(draw), row, rule))
        if rows[-1]["status"] == "ok":
            assert all(tensor.isfinite().all() for tensor in rule.result().values())
    return rows


def check(rows: list[dict[str, Any]], folder: Path) -> None:
    assert {row["status"] for row in rows} == {"ok", "failed"}
    for row in rows:
        assert len(row["reason"]) <= 300 and row["reason"].isprintable()
        assert 0 <= row["images_trained"] <= 12
        assert row["status"] == "failed" or math.isfinite(row["seconds"])
        assert not math.isinf(row["loss"])
    table = pd.DataFrame(rows)
    table.to_parquet(folder / "rounds.parquet")
    assert pd.read_parquet(folder / "rounds.parquet")["status"].tolist() == list(table["status"])
    assert json.loads(json.dumps(rows))
    means = round_means(with_link_seconds(table, LinkConfig()))
    assert math.isfinite(means["loss"]) and math.isfinite(means["seconds"])


@pytest.fixture(autouse=True)
def _without_flowers_log(caplog: pytest.LogCaptureFixture) -> None:
    """Flower logs names of records as they come, halves of characters too: no report bears them."""
    caplog.set_level(logging.CRITICAL, logger="flwr")


def test_no_reply_of_ten_thousand_ends_a_round(tmp_path: Path) -> None:
    check(as_rows(10_000, seed=2), tmp_path)


@pytest.mark.parametrize("read", ["introduction", "upload"])
def test_no_answer_ends_the_roll_call_or_the_last_upload(read: str) -> None:
    draw, failed = random.Random(3), 0
    for _ in range(600):
        answer = hostile(draw)
        try:
            if read == "introduction":
                answer.content.pop("arrays", None) if answer.has_content() else None
                told = read_introduction(answer)
                assert 0 <= told.client_id < 2**31 and 0 < told.num_examples <= 10**9
            else:
                upload = read_upload(answer, 1, 12, TEMPLATE, 0)
                assert 0 < upload.num_examples <= 12
        except FederationError:
            failed += 1
    assert failed > 100


@pytest.mark.parametrize("score", [math.inf, -math.inf, 1e300, 10**400])
def test_a_score_beyond_all_bounds_is_none_which_is_a_strike(score: float) -> None:
    content = honest()
    content["metrics"].__dict__["_data"]["score"] = score
    rule = WeightedMean(TEMPLATE)
    told = read(message(content), new_row(1, 0, 12), rule)
    assert told["status"] == "ok" and math.isnan(told["score"])


def test_an_honest_answer_is_read() -> None:
    rule = WeightedMean(TEMPLATE)
    told = read(message(honest()), new_row(1, 0, 7), rule)
    assert (told["loss"], told["seconds"], told["images_trained"]) == (0.5, 1.5, 12)
    assert rule._total_weight == 7.0
    alone = RecordDict({"metrics": honest()["metrics"]})
    assert read_introduction(message(alone)).client_id == 1
    layers = RecordDict({"arrays": pack_arrays(TEMPLATE), "metrics": honest()["metrics"]})
    assert read_upload(message(layers), 1, 99, TEMPLATE, 0).num_examples == 12
