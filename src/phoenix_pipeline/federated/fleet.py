"""What an engine hands to the program: a Grid, and who is reached over it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from phoenix_pipeline.federated.client_state import ClientState

RollCall = Callable[[int], Mapping[int, str]]


def all_present(server_round: int) -> Mapping[int, str]:
    """Return that nobody is away."""
    return {}


@dataclass(frozen=True)
class Fleet:
    """The clients of one run.

    Args:
        grid: carries messages; yields one reply per message, in the messages' order, and an error
            in place of a reply that did not come in time.
        clients: client id by node id; both mappings may grow when the roll is called.
        sizes: images that each client holds, by client id.
        client_state: what a client kept after the last round, as far as the server may read it.
        roll_call: asked before each round; lets newcomers in and tells which clients are away, and
            why.
    """

    grid: Grid
    clients: Mapping[int, int]
    sizes: Mapping[int, int]
    client_state: Callable[[int], ClientState]
    roll_call: RollCall = field(default=all_present)
