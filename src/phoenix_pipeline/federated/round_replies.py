"""What a round makes of its replies: which are used, and whether they are enough."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, Message
from torch import Tensor

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation import Aggregation
from phoenix_pipeline.federated.client_answers import clients_fault, open_answer, read_report
from phoenix_pipeline.federated.reasons import plain_text
from phoenix_pipeline.federated.records import ARRAYS, METRICS
from phoenix_pipeline.federated.round_table import ABSENT, Row


@dataclass(frozen=True)
class Asked:
    """What bounds a client's reply.

    ``template`` are the server's weights, ``most_images`` what the client was asked to train on,
    and ``num_examples`` how many images it counts for at most.
    """

    template: Mapping[str, Tensor]
    most_images: int
    num_examples: int


def read_reply(
    message: Message,
    asked: Asked,
    read_weights: Callable[[ArrayRecord], Mapping[str, Tensor]],
    rule: Aggregation,
) -> Row:
    """Add a reply to ``rule``; return what its row says, a failure and its reason included.

    ``read_weights`` decodes the reply's arrays, once their size is known to be harmless.
    """
    row: Row = {}
    try:
        with clients_fault():
            content, row["bytes_up"] = open_answer(message, (ARRAYS, METRICS), asked.template)
            report = read_report(content[METRICS], asked.most_images)
            counted = min(report.num_examples, asked.num_examples)
            rule.add(read_weights(content[ARRAYS]), float(counted))
    except FederationError as error:
        return row | {"status": "failed", "reason": plain_text(str(error))}
    return row | {
        "images_trained": report.images_trained,
        "loss": report.loss,
        "seconds": report.seconds,
        "score": report.score,
    }


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
