"""The one parser of what clients say: types, ranges and sizes; whatever else is their failure.

A client may send anything. What comes out of here can be averaged, planned with and written to
``rounds.parquet``; everything else is a :class:`FederationError` of that client, which costs it the
round and nobody else anything.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.records import ARRAYS, METRICS, check_size, count_bytes

# Client ids are int32 in the tables of who holds what.
_LARGEST_CLIENT_ID = 2**31 - 1
# More than any site holds; sums over all sites are exact in float64.
MOST_IMAGES = 10**9
_LARGEST = 1e15
# About four months.
_LONGEST_S = 1e7

Number = int | float


@dataclass(frozen=True)
class RoundReport:
    """What a client reports of its round.

    ``loss`` is NaN where it tells none, ``score`` where there is none that is finite.
    """

    num_examples: int
    images_trained: int
    loss: float
    seconds: float
    score: float


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
    """Return an answer's records, named ``names`` and no others, and their size in bytes.

    ``expected``: the arrays that bound the size.

    Raises:
        FederationError: the client could not answer, or answers with something else.
    """
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


def read_report(metrics: MetricRecord, most_images: int) -> RoundReport:
    """Return what a client reports of a round in which it was to train ``most_images`` at most."""
    return RoundReport(
        num_examples=read_count(metrics),
        images_trained=_whole(metrics, "images-trained", 0, most_images),
        loss=_number(metrics, "loss", -_LARGEST, _LARGEST) if "loss" in metrics else math.nan,
        seconds=_number(metrics, "seconds", 0, _LONGEST_S),
        score=_score(metrics.get("score", math.nan)),
    )


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
