"""Who takes part in a deployment: nodes are asked who they are when they are first seen."""

import logging
import time
from collections.abc import Collection, Mapping

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.engines.node_grid import NodeGrid
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.personal_layers import samples_are_personal
from phoenix_pipeline.federated.records import CONFIG, DESCRIBE_QUERY, METRICS

logger = logging.getLogger(__name__)

_ASK_AGAIN_S = 5.0
# Between rounds; a newcomer that needs longer is asked again before the next one.
_NEWCOMER_S = 120.0


def open_fleet(grid: Grid, job: FederatedJob) -> Fleet:
    """Wait until enough nodes take part; later ones join between rounds.

    Raises:
        FederationError: too few nodes came or could answer, two have one client id, or too few
            release their personal layers where samples need them.
    """
    roster = Roster(NodeGrid(grid), job)
    roster.gather()
    roster.check_releases()
    clients, sizes = roster.clients, roster.sizes
    return Fleet(roster.grid, clients, sizes, lambda client: ClientState(), roster)


class Roster:
    """The nodes of one run; called before each round, it lets newcomers in.

    ``clients`` (client id by node id), ``sizes`` (images by client id) and ``releasing`` (clients
    that release their personal layers) grow in place.
    """

    def __init__(self, grid: NodeGrid, job: FederatedJob) -> None:
        self.grid = grid
        self.clients: dict[int, int] = {}
        self.sizes: dict[int, int] = {}
        self.releasing: set[int] = set()
        self._job = job
        self._config = job.config.deployment
        self._refused: dict[int, str] = {}

    def gather(self) -> None:
        """Ask nodes until ``num_nodes`` take part.

        A node that cannot answer is asked again: it may be starting anew, or its configuration is
        being corrected.

        Raises:
            FederationError: too few came or could answer, or two have one client id.
        """
        wait_s, wanted = self._config.wait_for_nodes_s, self._config.num_nodes
        deadline = time.monotonic() + wait_s
        while True:
            online = list(self.grid.get_node_ids())
            taken = self._admit(online, max(0.0, deadline - time.monotonic()))
            if taken:
                raise FederationError(
                    f"two nodes have client-id {taken[0]}; give each node a client-id of its own "
                    "in its node configuration"
                )
            if len(self.clients) >= wanted:
                return
            if time.monotonic() >= deadline:
                reasons = list(self._refused.values())[:3] or ["no others are connected"]
                raise FederationError(
                    f"{len(self.clients)} nodes can take part after {wait_s:g} s, "
                    f"federation.deployment.num_nodes is {wanted} ({'; '.join(reasons)}); start "
                    "the others, or raise federation.deployment.wait_for_nodes_s"
                )
            time.sleep(min(_ASK_AGAIN_S, wait_s))

    def check_releases(self) -> None:
        """Raise FederationError if there will be no model to draw samples from."""
        prefixes = self._job.settings.personal_layers
        needed = self._config.min_released if samples_are_personal(prefixes) else 0
        if prefixes and self._job.final_average:
            needed = max(1, needed)
        if len(self.releasing) < needed:
            raise FederationError(
                f"{len(self.releasing)} of {len(self.clients)} nodes release their personal "
                f"layers, {needed} must, since samples are drawn from their models: set "
                "release-personal-layers=true in the node configuration of those that agree, or "
                "train the shared layers alone by federation.deployment.min_released: 0 and "
                "personal_layers.final_average: false"
            )

    def __call__(self, server_round: int) -> dict[int, str]:
        """Let newcomers in; return the clients whose nodes are away, with the reason.

        If fewer than ``federation.min_clients`` are there, they are waited for.
        """
        deadline = time.monotonic() + self._config.wait_for_nodes_s
        while True:
            online = set(self.grid.get_node_ids())
            self._admit(online, _NEWCOMER_S)
            away = [client for node, client in self.clients.items() if node not in online]
            there = len(self.clients) - len(away)
            if there >= self._job.config.min_clients or time.monotonic() >= deadline:
                return {client: "its node is not connected" for client in sorted(away)}
            logger.warning("round %s waits for nodes: %s are connected", server_round, there)
            time.sleep(_ASK_AGAIN_S)

    def _admit(self, online: Collection[int], timeout: float) -> list[int]:
        """Ask the nodes that are new; return the client ids that were taken already."""
        told = ConfigRecord({"settings": self._job.settings.model_dump_json()})
        messages = [
            Message(RecordDict({CONFIG: told}), node, f"query.{DESCRIBE_QUERY}")
            for node in sorted(set(online) - self.clients.keys())
        ]
        taken = []
        for reply in self.grid.send_and_receive(messages, timeout=timeout):
            node = reply.metadata.src_node_id
            try:
                if reply.has_error():
                    raise FederationError(reply.error.reason)
                known = self._enter(node, reply.content[METRICS], online)
            except (FederationError, KeyError, TypeError, ValueError) as error:
                self._refuse(
                    node, str(error) if isinstance(error, FederationError) else repr(error)
                )
                continue
            if known is not None:
                self._refuse(node, f"client-id {known} is taken by a node that is connected")
                taken.append(known)
        return taken

    def _enter(self, node: int, answer: Mapping[str, float], online: Collection[int]) -> int | None:
        """Take ``node`` into the roster; return its client id if another node holds it."""
        client, size = int(answer["client-id"]), int(answer["num-examples"])
        if client < 0 or size < 1:
            raise FederationError(f"client-id {client} with {size} images; 0 and 1 are the least")
        former = next((n for n, c in self.clients.items() if c == client), None)
        if former in online:
            return client
        if former is not None:
            del self.clients[former]
        self.clients[node] = client
        self.sizes[client] = size
        ordered = dict(sorted(self.sizes.items()))
        self.sizes.clear()
        self.sizes.update(ordered)
        (self.releasing.add if answer.get("releases") else self.releasing.discard)(client)
        self._refused.pop(node, None)
        logger.info("client %s takes part with %s images", client, size)
        return None

    def _refuse(self, node: int, reason: str) -> None:
        """Remember why ``node`` does not take part; say it once."""
        if self._refused.get(node) != f"node {node}: {reason}":
            self._refused[node] = f"node {node}: {reason}"
            logger.warning("not part of the federation: %s", self._refused[node])
