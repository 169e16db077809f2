"""What clients say: the one parser of it, and whether the replies of a round are enough.

A client may send anything. What comes out of here can be averaged, planned with, shown and written
to ``rounds.parquet``; everything else is a :class:`FederationError` of that client, which costs it
the round and nobody else anything.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation import Aggregation
from phoenix_pipeline.federated.history import ABSENT, Row
from phoenix_pipeline.federated.records import ARRAYS, METRICS, check_size, count_bytes

# Client ids are int32 in the tables of who holds what.
_LARGEST_CLIENT_ID = 2**31 - 1
# More than any site holds; sums over all sites are exact in float64.
MOST_IMAGES = 10**9
_LARGEST = 1e15
# About four months.
_LONGEST_S = 1e7

# Characters of a reason that is kept and shown.
_LONGEST_REASON = 300
# Sequences that move a terminal's cursor, colour it, or set its title (ECMA-48).
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
# Control, format (text direction among them), surrogate, private and unassigned characters.
_HIDDEN = "C"

Number = int | float


@dataclass(frozen=True)
class Introduction:
    """Who a node is, how many images it holds, and whether it releases its personal layers."""

    client_id: int
    num_examples: int
    releases: bool


@contextmanager
def clients_fault() -> Iterator[None]:
    """Make every exception in reading an answer a FederationError, that is, the client's."""
    try:
        yield
    except FederationError:
        raise
    except Exception as error:
        reason = f"the reply is malformed: {type(error).__name__}: {error}"
        raise FederationError(reason) from error


def open_answer(
    message: Message, names: tuple[str, ...], expected: Mapping[str, Tensor]
) -> tuple[RecordDict, int]:
    """Return records ``names`` and their size, bounded by ``expected``; raises FederationError."""
    if message.has_error():
        raise FederationError(message.error.reason or "the client gave no reason")
    content = message.content
    size = count_bytes(content)
    check_size(size, expected)
    kinds = {ARRAYS: ArrayRecord, METRICS: MetricRecord}
    if set(content) != set(names):
        raise FederationError(
            f"the reply holds {len(content)} records; {' and '.join(names)} are read"
        )
    for name in names:
        if type(content[name]) is not kinds[name]:
            raise FederationError(
                f"record {name} is a {type(content[name]).__name__}; {kinds[name].__name__} is read"
            )
    return content, size


def read_introduction(message: Message) -> Introduction:
    """Return who answers the roll call; raises FederationError for any other answer."""
    with clients_fault():
        metrics = open_answer(message, (METRICS,), {})[0][METRICS]
        return Introduction(
            client_id=_whole(metrics, "client-id", 0, _LARGEST_CLIENT_ID),
            num_examples=read_count(metrics),
            releases=_whole(metrics, "releases", 0, 1) == 1,
        )


def read_count(metrics: MetricRecord) -> int:
    """Return how many images a client says it holds."""
    return _whole(metrics, "num-examples", 1, MOST_IMAGES)


def _score(value: object) -> float:
    """Return a score; of a model that is far off it may be of any size, which is a strike."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FederationError(f"score is {_show(value)}; a number is read")
    return float(value) if abs(value) < _LARGEST else math.nan


def _whole(metrics: MetricRecord, name: str, least: int, most: int) -> int:
    return int(_checked(metrics, name, (int,), least, most))


def _number(metrics: MetricRecord, name: str, least: float, most: float) -> float:
    return float(_checked(metrics, name, (int, float), least, most))


def _checked(
    metrics: MetricRecord, name: str, kinds: tuple[type, ...], least: Number, most: Number
) -> Number:
    """Return the number ``name``; a bool is none, and comparisons with NaN are false."""
    value = metrics[name]
    if type(value) not in kinds or not least <= value <= most:
        what = "a whole number" if kinds == (int,) else "a number"
        raise FederationError(
            f"{name} is {_show(value)}; {what} from {least:g} to {most:g} is read"
        )
    return value


def _show(value: object) -> str:
    if type(value) is float or (type(value) is int and abs(value) < 10**18):
        return f"{value:.10g}"
    return "too long to show" if type(value) is int else f"a {type(value).__name__}"


def plain_text(text: str) -> str:
    """Return ``text`` in one line of at most 300 characters, without what no reader would see."""
    # What is cut is not even looked at: a client may send megabytes.
    start = _ESCAPES.sub("", text[: 4 * _LONGEST_REASON])
    spaced = "".join(" " if char.isspace() else char for char in start)
    seen = "".join(char for char in spaced if unicodedata.category(char)[0] != _HIDDEN)
    line = " ".join(seen.split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "..."


def read_reply(
    message: Message,
    row: Row,
    most_images: int,
    template: Mapping[str, Tensor],
    read_weights: Callable[[ArrayRecord], Mapping[str, Tensor]],
    rule: Aggregation,
) -> Row:
    """Add a reply to ``rule``; return its ``row`` with what it says, or why it cannot be used.

    A client counts for at most the number of images in its ``row``. ``loss`` is NaN where it tells
    none, ``score`` where there is none that is finite. ``row``: of the client, before anything was
    heard. ``most_images``: what the client was asked to train on, at most. ``template``: arrays
    that bound the reply's size. ``read_weights``: decodes the reply's arrays, once their size is
    known to be harmless.
    """
    size = 0
    try:
        with clients_fault():
            content, size = open_answer(message, (ARRAYS, METRICS), template)
            said = content[METRICS]
            read: Row = {
                **row,
                "bytes_up": size,
                "images_trained": _whole(said, "images-trained", 0, most_images),
                "loss": _number(said, "loss", -_LARGEST, _LARGEST) if "loss" in said else math.nan,
                "seconds": _number(said, "seconds", 0, _LONGEST_S),
                "score": _score(said.get("score", math.nan)),
            }
            counted = min(read_count(said), row["num_examples"])
            rule.add(read_weights(content[ARRAYS]), float(counted))
            return read
    except FederationError as error:
        reason = plain_text(str(error))
        return {**row, "bytes_up": size, "status": "failed", "reason": reason}


def check_usable(config: FederationConfig, current: int, rows: Sequence[Row]) -> None:
    """Raise FederationError, with the first reasons, if too few of ``rows`` can be used."""
    rule = config.aggregation
    needs = {
        f"federation.min_clients is {config.min_clients}": config.min_clients,
        f"federation.aggregation.rule {rule.rule} needs {rule.required_replies}": (
            rule.required_replies
        ),
    }
    said, fewest = max(needs.items(), key=lambda need: need[1])
    if config.differential_privacy.is_central:
        # Chance may choose few, which is no failure.
        fewest = min(fewest, sum(row["status"] != ABSENT for row in rows))
    bad = [row for row in rows if row["status"] != "ok"]
    usable = len(rows) - len(bad)
    if usable < fewest:
        raise FederationError(
            f"round {current}: {usable} of {len(rows)} clients gave a usable reply, {said} "
            f"({say_reasons(bad)})"
        )


def say_reasons(rows: Sequence[Row]) -> str:
    """Return what the first three of ``rows`` say."""
    said = [f"client {row['client_id']}: {row['reason']}" for row in rows[:3]]
    return "; ".join(said) or "the others were disconnected"
