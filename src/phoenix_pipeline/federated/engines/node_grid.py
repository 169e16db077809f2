"""The Grid of a deployment: a SuperLink's, made to answer in order and for every message."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence

import httpx
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from phoenix_pipeline.config import DeploymentConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.records import CONFIG, DESCRIBE_QUERY, METRICS, ClientSettings

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_ASK_AGAIN_S = 5.0


class NodeGrid(Grid):
    """Yields replies in the order of the messages, one in memory at a time.

    The others wait at the SuperLink. A reply that is not there in time, or that the SuperLink
    answers in place of a node, becomes an error of that node.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def set_run(self, run: Run) -> None:
        """Set the run that this grid belongs to."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that this grid belongs to."""
        return self._grid.run

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that are connected."""
        return sorted(self._grid.get_node_ids())

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to ``dst_node_id``."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send the messages; return their ids."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield the reply to each message, in the order of the messages."""
        start = time.monotonic()
        sent = [(message, self._send(message)) for message in messages]
        for message, message_id in sent:
            reply = self._await(message_id, start, timeout) if message_id else None
            if reply is None:
                waited = f"no reply within {time.monotonic() - start:.0f} s"
                error = Error(ErrorCode.UNKNOWN, waited if message_id else "could not be reached")
                yield Message(error, reply_to=message)
            elif reply.has_error():
                yield Message(reply.error, reply_to=message)
            else:
                yield reply

    def _send(self, message: Message) -> str | None:
        try:
            ids = list(self._grid.push_messages([message]))
        except httpx.HTTPError as error:
            logger.warning("a message was not taken: %s", _first_line(error))
            return None
        return ids[0] if ids else None

    def _await(self, message_id: str, start: float, timeout: float | None) -> Message | None:
        """Return the reply, None if it is late; a SuperLink that is restarted is waited for."""
        while True:
            late = timeout is not None and time.monotonic() - start >= timeout
            try:
                if replies := list(self._grid.pull_messages([message_id])):
                    return replies[0]
            except httpx.HTTPError as error:
                if _is_refusal(error):
                    raise
                logger.warning("no answer from the SuperLink: %s", _first_line(error))
            if late:
                return None
            time.sleep(_POLL_S)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _is_refusal(error: httpx.HTTPError) -> bool:
    """Return whether asking again is of no use: the run was stopped, say."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500


def open_fleet(grid: Grid, config: DeploymentConfig, settings: ClientSettings) -> Fleet:
    """Ask the nodes who they are and how many images they hold, until enough have answered.

    A node that cannot answer is asked again: it may be starting anew, or its configuration is being
    corrected.

    Raises:
        FederationError: too few nodes came or could answer, or two have one client id.
    """
    nodes, deadline = NodeGrid(grid), time.monotonic() + config.wait_for_nodes_s
    clients: dict[int, int] = {}
    sizes: dict[int, int] = {}
    while True:
        left = max(0.0, deadline - time.monotonic())
        found = [node for node in nodes.get_node_ids() if node not in clients]
        refused = _describe(nodes, found, settings, left, clients, sizes)
        if len(clients) >= config.num_nodes:
            break
        if time.monotonic() >= deadline:
            reasons = "; ".join(refused[:3]) or "no others are connected"
            raise FederationError(
                f"{len(clients)} nodes can take part after {config.wait_for_nodes_s:g} s, "
                f"federation.deployment.num_nodes is {config.num_nodes} ({reasons}); start the "
                "others, or raise wait_for_nodes_s"
            )
        time.sleep(min(_ASK_AGAIN_S, config.wait_for_nodes_s))
    by_client = {client: sizes[client] for client in sorted(sizes)}
    return Fleet(nodes, clients, by_client, lambda client: ClientState())


def _describe(
    nodes: NodeGrid,
    found: Sequence[int],
    settings: ClientSettings,
    timeout: float,
    clients: dict[int, int],
    sizes: dict[int, int],
) -> list[str]:
    """Add the answers of the nodes ``found`` to ``clients`` and ``sizes``; return the refusals."""
    content = RecordDict({CONFIG: ConfigRecord({"settings": settings.model_dump_json()})})
    messages = [Message(content, node, f"query.{DESCRIBE_QUERY}") for node in found]
    refused = []
    for reply in nodes.send_and_receive(messages, timeout=timeout):
        node = reply.metadata.src_node_id
        if reply.has_error():
            refused.append(f"node {node}: {reply.error.reason}")
            logger.warning("not yet part of the federation: %s", refused[-1])
            continue
        told = reply.content[METRICS]
        client = int(told["client-id"])
        if client in sizes:
            raise FederationError(
                f"two nodes have client-id {client}; give each node a client-id of its own in "
                "its node configuration"
            )
        clients[node], sizes[client] = client, int(told["num-examples"])
    return refused
