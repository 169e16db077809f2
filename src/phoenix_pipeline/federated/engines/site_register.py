"""Which node may be which client: as the coordinator lists them, or as they were first seen.

With node keys, Flower gives each registered key a node id for as long as it is registered. So a
client id that is bound to a node id is bound to a key, also while its site is away.
"""

from collections.abc import Mapping
from pathlib import Path

from phoenix_pipeline.checkpoints import read_json, write_json
from phoenix_pipeline.errors import FederationError

SITES_FILE = "sites.json"


class SiteRegister:
    """Node ids by client id.

    ``listed``: the coordinator's list, which allows no other; empty: ``file`` keeps who came first.
    """

    def __init__(self, file: Path, listed: Mapping[int, int]) -> None:
        """Go on with ``file``; raises CheckpointError when it is broken."""
        self._file = file
        self._listed = bool(listed)
        self._nodes = dict(listed)
        if not listed and file.exists():
            self._nodes = {int(client): int(node) for client, node in read_json(file).items()}

    def admit(self, client: int, node: int) -> None:
        """Let ``node`` be ``client``, from now on alone.

        Raises:
            FederationError: one of them belongs to another; says where that is decided.
        """
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
