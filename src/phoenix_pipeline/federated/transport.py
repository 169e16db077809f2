"""How a round's payload is written into messages and read from them, on both sides.

A payload is the shared weights and, beside them, what the run's strategies send. Personal layers
are no part of it. On its way out of a client it passes noise, partial update and codec, in this
order, which work on arrays by name and know no strategy; the audit takes the same way.

A message holds one vector per dtype, and the configuration says what a vector cannot: the
fingerprint of the layout or, with compression, of the weights that it leads to, the kind of
broadcast, and which arrays the client is to send.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from flwr.app import ArrayRecord, ConfigRecord
from torch import Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.compression.broadcast import (
    Broadcast,
    prepare_broadcast,
    receive_broadcast,
)
from phoenix_pipeline.federated.compression.codecs import codec_of
from phoenix_pipeline.federated.compression.partial_updates import assign_halves, sent_names
from phoenix_pipeline.federated.compression.updates import apply_update, decode, difference, encode
from phoenix_pipeline.federated.privacy.client_level import privatize
from phoenix_pipeline.federated.records import (
    ClientSettings,
    pack_arrays,
    pack_weights,
    unpack_arrays,
    unpack_weights,
)
from phoenix_pipeline.federated.run_state import RunState
from phoenix_pipeline.federated.wire import Layout, join, select
from phoenix_pipeline.seeding import derive_seed, torch_generator
from phoenix_pipeline.strategies import Strategies
from phoenix_pipeline.strategies.strategy import apart, beside

_LAYOUT = "layout"
_KIND = "broadcast"
_FINGERPRINT = "fingerprint"
_SENDS = "sends"

Arrays = Mapping[str, Tensor]


class ServerTransport:
    """The server's side, a round at a time: open it, write to clients, read replies, close it.

    ``expected`` is what a client's whole payload is like, and where its update starts from.
    """

    def __init__(self, settings: ClientSettings, run: RunState) -> None:
        self._config, self._model = settings.compression, settings.model
        self._strategies = Strategies.of(settings.strategies)
        self._seed = settings.seed
        self._run = run
        self._codec = codec_of(self._config.up)
        self.expected: Arrays = run.raw
        self._down_layout = self._up_layout = Layout.of(run.raw)
        self._sends: dict[int, str] = {}
        self._current = 0
        self._broadcasts: dict[int, Broadcast] = {}
        self._packed: dict[str, ArrayRecord] = {}

    def open_round(self, current: int, clients: Sequence[int], plain: ArrayRecord) -> None:
        """Decide what ``clients`` are sent and send; ``plain``: the weights as a record."""
        run = self._run
        told = self._strategies.tell(run.raw, run.strategies)
        payload = join(beside(run.raw, told))
        self.expected = join(beside(run.raw, self._strategies.sent_like(run.raw)))
        self._down_layout, self._up_layout = Layout.of(payload), Layout.of(self.expected)
        self._current = current
        if not self._config.is_active:
            self._packed = {"": pack_weights(payload) if told else plain}
            return
        self._sends = assign_halves(clients, self._config.partial_update, self._seed, current)
        self._broadcasts, self._packed = self._prepare(payload, clients), {}

    def _prepare(self, payload: Arrays, clients: Sequence[int]) -> dict[int, Broadcast]:
        """Return each client's broadcast; those that hold the same have the same."""
        held, down = self._run.held, self._config.down
        holds = {client: held.of(client, self._current, down.max_missed) for client in clients}
        broadcasts = {
            name: prepare_broadcast(
                payload,
                held.arrays(name),
                down,
                torch_generator(self._seed, "downlink", self._current),
            )
            for name in set(holds.values())
        }
        return {client: broadcasts[name] for client, name in holds.items()}

    def write(self, client: int) -> tuple[ArrayRecord, dict[str, str]]:
        """Return the arrays for ``client`` and what its configuration says of them."""
        if not self._config.is_active:
            return self._packed[""], {_LAYOUT: self._down_layout.fingerprint}
        own = self._broadcasts[client]
        if own.fingerprint not in self._packed:
            self._packed[own.fingerprint] = pack_arrays(own.vectors)
        described = {_KIND: own.kind, _FINGERPRINT: own.fingerprint}
        return self._packed[own.fingerprint], described | {_SENDS: self._sends[client]}

    def read(self, client: int, record: ArrayRecord) -> Arrays:
        """Return the server's arrays moved by the client's update; raises FederationError."""
        if not self._config.is_active:
            return unpack_weights(record, self._up_layout)
        arrays = unpack_arrays(record)
        names = sent_names(self.expected, self._sends[client], self._model)
        template = select(self.expected, names)
        return apply_update(self.expected, decode(arrays, self._codec, template))

    def close_round(self, trained: Collection[int]) -> None:
        """Remember what the clients ``trained`` started from; the round must have succeeded."""
        down = self._config.down
        if down.relative_to == "last_broadcast":
            self._run.held.remember(self._broadcasts, trained, self._current, down.max_missed)
        self._broadcasts = {}


@dataclass(frozen=True)
class Received:
    """What a client received: ``weights`` to start from, and what the strategies were ``told``."""

    payload: Arrays
    weights: Arrays
    told: Arrays


def receive(
    record: ArrayRecord,
    config: ConfigRecord,
    settings: ClientSettings,
    state: ClientState,
    initial: Arrays,
    initial_shared: Collection[str],
) -> Received:
    """Return what a client was sent; ``state`` keeps of it; raises FederationError for others."""
    if not settings.compression.is_active:
        layout = Layout.of(initial)
        if layout.fingerprint != config[_LAYOUT]:
            raise FederationError(
                f"the server's model has the layout {config[_LAYOUT]}, this client's "
                f"{layout.fingerprint}; both need the same version of this project and of diffusers"
            )
        payload: Arrays = unpack_weights(record, layout)
        return Received(payload, *apart(payload, initial_shared))
    down = settings.compression.down
    reference = receive_broadcast(
        str(config[_KIND]),
        unpack_arrays(record),
        str(config[_FINGERPRINT]),
        state.broadcast or initial,
        initial,
        down,
    )
    if down.relative_to == "last_broadcast":
        state.broadcast = reference
    return Received(reference, *apart(reference, initial_shared))


def send(
    trained: Arrays,
    received: Arrays,
    config: ConfigRecord,
    settings: ClientSettings,
    state: ClientState,
    client_id: int,
) -> ArrayRecord:
    """Return a client's payload as a record: noise, partial update, codec.

    Args:
        trained: shared weights and what the strategies send, on the CPU.
        received: the weights that they were trained from; what strategies send starts from zero.
        config: of the message that is answered.
        settings: what the client was told.
        state: keeps what the codec leaves out.
        client_id: whose noise and rounding it is.
    """
    server_round = int(str(config["round"]))
    further = {n: torch.zeros_like(a) for n, a in trained.items() if n not in received}
    reference = beside(received, further)
    if settings.local_noise:
        seed = derive_seed(settings.seed, "local_noise", client_id, server_round)
        known = None if settings.secret_noise else seed
        trained = privatize(trained, reference, settings.local_noise, known)
    if not settings.compression.is_active:
        return pack_weights(trained, Layout.of(reference))
    up = settings.compression.up
    codec = codec_of(up)
    names = sent_names(trained, str(config[_SENDS]), settings.model)
    encoded = encode(
        difference(select(trained, names), reference),
        codec,
        torch_generator(settings.seed, "uplink", client_id, server_round),
        state.residual if codec and up.error_feedback else None,
    )
    state.residual = encoded.residual
    return pack_arrays(encoded.vectors)
