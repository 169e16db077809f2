"""What a round makes of its replies: which are used, and whether they are enough."""

from collections.abc import Callable, Mapping, Sequence

from flwr.app import RecordDict
from torch import Tensor

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation import Aggregation
from phoenix_pipeline.federated.records import METRICS, check_size
from phoenix_pipeline.federated.round_table import ABSENT, Row


def read_reply(
    content: RecordDict,
    size: int,
    template: Mapping[str, Tensor],
    read_weights: Callable[[], Mapping[str, Tensor]],
    rule: Aggregation,
) -> Row:
    """Add a reply to ``rule``; return what its row says, a refusal and its reason included.

    ``template``: the server's weights, which bound ``size``, the reply's bytes; ``read_weights``
    decodes those of the reply, once its size is known to be harmless.
    """
    try:
        check_size(size, template)
        metrics = content[METRICS]
        told = {
            "images_trained": int(metrics["images-trained"]),
            "loss": float(metrics["loss"]),
            "seconds": float(metrics["seconds"]),
            "score": float(metrics.get("score", float("nan"))),
        }
        rule.add(read_weights(), float(metrics["num-examples"]))
    except FederationError as error:
        return {"status": "refused", "reason": str(error)}
    except (KeyError, TypeError, ValueError) as error:
        reason = f"the reply is malformed: {type(error).__name__}: {error}"
        return {"status": "refused", "reason": reason}
    return told


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
