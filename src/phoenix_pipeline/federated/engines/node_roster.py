"""Who takes part in a deployment, and as which client.

Nodes are asked who they are when they are first seen. With node keys, Flower gives each registered
key a node id for as long as it is registered. So a client id that is bound to a node id is bound to
a key, also while its site is away.
"""

import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.client_answers import Introduction, plain_text, read_introduction
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.engines.node_grid import NodeGrid
from phoenix_pipeline.federated.fleet import Fleet, check_round
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.personal_layers import samples_are_personal
from phoenix_pipeline.federated.records import CONFIG, DESCRIBE_QUERY
from phoenix_pipeline.federated.work_plan import cap_counts
from phoenix_pipeline.json_files import read_json, write_json

logger = logging.getLogger(__name__)

_ASK_AGAIN_S = 5.0
# Between rounds; a newcomer that needs longer is asked again before the next one.
_NEWCOMER_S = 120.0
SITES_FILE = "sites.json"


def open_fleet(grid: Grid, job: FederatedJob, folder: Path) -> Fleet:
    """Wait until enough nodes take part; ``folder`` keeps which of them is which client.

    Raises FederationError: too few could answer, or release layers that samples need.
    Raises SettingsError: the aggregation rule, or ``usplit``, needs more of them.
    Raises CheckpointError: what ``folder`` keeps is broken.
    """
    roster = Roster(NodeGrid(grid), job, folder)
    roster.gather()
    check_round(job.config, len(roster.clients))
    roster.check_releases()
    clients, sizes = roster.clients, roster.sizes
    return Fleet(roster.grid, clients, sizes, lambda client: ClientState(), roster)


class Roster:
    """The nodes of one run, called before each round; its mappings grow in place."""

    def __init__(self, grid: NodeGrid, job: FederatedJob, folder: Path) -> None:
        self.grid = grid
        self.clients: dict[int, int] = {}
        self.sizes: dict[int, int] = {}
        self.releasing: set[int] = set()
        self._job = job
        self._config = job.config.deployment
        self._refused: dict[int, str] = {}
        self._claimed: dict[int, int] = {}
        # In plain text there are no keys, and a node that is started anew has another id.
        has_keys = self._config.root_certificates is not None or bool(self._config.sites)
        self._register = SiteRegister(folder / SITES_FILE, self._config.sites) if has_keys else None

    def gather(self) -> None:
        """Ask nodes until ``num_nodes`` take part; raises FederationError for too few."""
        wait_s, wanted = self._config.wait_for_nodes_s, self._config.num_nodes
        deadline = time.monotonic() + wait_s
        logged = wanted
        while True:
            online = list(self.grid.get_node_ids())
            self._admit(online, max(0.0, deadline - time.monotonic()))
            if len(self.clients) >= wanted:
                return
            if time.monotonic() >= deadline:
                reasons = list(self._refused.values())[:3] or ["no others are connected"]
                raise FederationError(
                    f"{len(self.clients)} nodes can take part after {wait_s:g} s, "
                    f"federation.deployment.num_nodes is {wanted} ({'; '.join(reasons)}); start "
                    "the others, or raise federation.deployment.wait_for_nodes_s"
                )
            if len(self.clients) != logged:
                logged = len(self.clients)
                logger.info("waiting for nodes: %s of %s take part", logged, wanted)
            time.sleep(min(_ASK_AGAIN_S, wait_s))

    def check_releases(self) -> None:
        """Raise FederationError if there will be no model to draw samples from."""
        prefixes, model = self._job.settings.personal_layers, self._job.settings.model
        needed = self._config.min_released if samples_are_personal(prefixes, model) else 0
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
        """Let newcomers in, wait for ``min_clients``; return clients that are away, and why."""
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

    def _admit(self, online: Collection[int], timeout: float) -> None:
        config = ConfigRecord({"settings": self._job.settings.model_dump_json()})
        messages = [
            Message(RecordDict({CONFIG: config}), node, f"query.{DESCRIBE_QUERY}")
            for node in sorted(set(online) - self.clients.keys())
        ]
        for reply in self.grid.send_and_receive(messages, timeout=timeout):
            node = reply.metadata.src_node_id
            try:
                self._enter(node, read_introduction(reply), online)
            except FederationError as error:
                self._refuse(node, plain_text(str(error)))

    def _enter(self, node: int, answer: Introduction, online: Collection[int]) -> None:
        """Take ``node`` into the roster; raises FederationError if another has its client id."""
        client = answer.client_id
        former = next((n for n, c in self.clients.items() if c == client), None)
        if former in online:
            raise FederationError(f"client-id {client} is taken by a node that is connected")
        if self._register:
            self._register.admit(client, node)
        if former is not None:
            del self.clients[former]
        self.clients[node] = client
        self._claimed[client] = answer.num_examples
        self.sizes.clear()
        self.sizes.update(cap_counts(self._claimed, self._config.max_count_ratio))
        (self.releasing.add if answer.releases else self.releasing.discard)(client)
        self._refused.pop(node, None)
        logger.info("client %s takes part with %s images", client, answer.num_examples)
        for capped, count in self.sizes.items():
            if count < self._claimed[capped]:
                logger.warning(
                    "client %s says it has %s images and counts for %s "
                    "(federation.deployment.max_count_ratio)",
                    capped,
                    self._claimed[capped],
                    count,
                )

    def _refuse(self, node: int, reason: str) -> None:
        if self._refused.get(node) != f"node {node}: {reason}":
            self._refused[node] = f"node {node}: {reason}"
            logger.warning("not part of the federation: %s", self._refused[node])


class SiteRegister:
    """Node ids by client id: ``listed`` by the coordinator alone, else ``file`` keeps them."""

    def __init__(self, file: Path, listed: Mapping[int, int]) -> None:
        """Go on with ``file``; raises CheckpointError when it is broken."""
        self._file = file
        self._listed = bool(listed)
        self._nodes = dict(listed)
        if not listed and file.exists():
            self._nodes = {int(client): int(node) for client, node in read_json(file).items()}

    def admit(self, client: int, node: int) -> None:
        """Let ``node`` be ``client`` alone; raises FederationError if one belongs to another."""
        where = "federation.deployment.sites" if self._listed else str(self._file)
        owner = self._nodes.get(client)
        if owner == node:
            return
        if owner is not None:
            raise FederationError(f"client-id {client} belongs to node {owner} (see {where})")
        if self._listed:
            raise FederationError(f"client-id {client} is not in {where}")
        known = next((c for c, n in self._nodes.items() if n == node), None)
        if known is not None:
            raise FederationError(
                f"it says it is client-id {client}, but was client-id {known} (see {where})"
            )
        self._nodes[client] = node
        write_json(self._file, {str(c): str(n) for c, n in sorted(self._nodes.items())})
