"""What an engine hands to the program: who is reached, over what, and who is away when."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from flwr.app import Message

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.federated.aggregation import check_num_replies
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.compression.partial_updates import check_split
from phoenix_pipeline.federated.work_plan import round_size

RollCall = Callable[[int], Mapping[int, str]]


class Messenger(Protocol):
    """What the rounds use of Flower's ``Grid``."""

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Return one reply per message, in the messages' order.

        There is an error in place of a reply that did not come in time.
        """


@dataclass(frozen=True)
class Fleet:
    """The clients of one run.

    Args:
        grid: carries messages.
        clients: client id by node id; both mappings may grow when the roll is called.
        sizes: images that each client holds, by client id.
        client_state: what a client kept after the last round, as far as the server may read it.
        roll_call: asked before each round; lets newcomers in and tells which clients are away, and
            why.
        write_states: called before a checkpoint with the oldest round that a run can go on from;
            afterwards what clients keep is in files.
    """

    grid: Messenger
    clients: Mapping[int, int]
    sizes: Mapping[int, int]
    client_state: Callable[[int], ClientState]
    roll_call: RollCall = lambda server_round: {}
    write_states: Callable[[int], None] = lambda oldest_checkpoint: None


def check_round(config: FederationConfig, num_clients: int) -> None:
    """Raise SettingsError if a round of ``num_clients`` is too small for the rule or for usplit.

    It is called once the clients are known: when an arm is set up, or its nodes have connected.
    """
    count = round_size(num_clients, config)
    check_num_replies(config, count)
    check_split(config, count)


_FOR_EVER = 1 << 30


class Attendance:
    """Tells before each round which clients are away; a :data:`RollCall`."""

    def __init__(self, config: FederationConfig, clients: Collection[int]) -> None:
        """Read ``federation.attendance``; raises SettingsError if it names no client of the run."""
        rounds = {} if config.pooled else config.attendance
        unknown = sorted(rounds.keys() - set(clients))
        if unknown:
            raise SettingsError(
                f"federation.attendance names client {unknown[0]}; there are {len(clients)} "
                f"clients, {min(clients)} to {max(clients)}"
            )
        self._spans = {client: _spans(text) for client, text in rounds.items()}

    def __call__(self, server_round: int) -> dict[int, str]:
        """Return the clients that are away in ``server_round``, with the reason."""
        return {
            client: _reason(spans, server_round)
            for client, spans in self._spans.items()
            if not any(first <= server_round <= last for first, last in spans)
        }


def _spans(text: str) -> list[tuple[int, int]]:
    """Return the first and last round of each part of, say, ``1-4,8-``."""
    spans = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        spans.append((int(first), int(last or _FOR_EVER) if dash else int(first)))
    return spans


def _reason(spans: list[tuple[int, int]], server_round: int) -> str:
    if server_round < min(first for first, _ in spans):
        return "has not joined yet (federation.attendance)"
    return "away in this round (federation.attendance)"
