"""How weights are written into messages and read from them, on both sides.

A message holds one vector per dtype, and the configuration says what a vector cannot: the
fingerprint of the layout or, with compression, of the weights that it leads to, the kind of
broadcast, and which arrays the client is to send.
"""

from collections.abc import Mapping, Sequence

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
from phoenix_pipeline.federated.compression.updates import (
    apply_update,
    decode,
    difference,
    encode,
)
from phoenix_pipeline.federated.records import (
    ClientSettings,
    pack_arrays,
    pack_weights,
    unpack_arrays,
    unpack_weights,
)
from phoenix_pipeline.federated.run_state import RunState
from phoenix_pipeline.federated.wire import Layout
from phoenix_pipeline.seeding import torch_generator

_LAYOUT = "layout"
_KIND = "broadcast"
_FINGERPRINT = "fingerprint"
_SENDS = "sends"


class ServerTransport:
    """The server's side, a round at a time: open it, write to clients, read replies, close it."""

    def __init__(self, settings: ClientSettings, run: RunState, *, same_start: bool = True) -> None:
        """Begin with ``run``.

        ``same_start``: clients' initial weights are the server's to the last bit; other machines
        may round otherwise.
        """
        self._same_start = same_start
        self._config = settings.compression
        self._seed = settings.seed
        self._run = run
        self._codec = codec_of(self._config.up)
        self._layout = Layout.of(run.raw)
        self._sends: dict[int, str] = {}
        self._holders: set[int] = set()
        self._broadcast: Broadcast | None = None
        self._packed: dict[str, ArrayRecord] = {}

    def open_round(self, current: int, clients: Sequence[int]) -> None:
        """Decide what ``clients`` are sent in round ``current``, and what each of them sends."""
        self._layout = Layout.of(self._run.raw)
        if not self._config.is_active:
            return
        self._sends = assign_halves(clients, self._config.partial_update, self._seed, current)
        self._holders = self._who_followed(clients)
        self._broadcast = prepare_broadcast(
            self._run.raw,
            self._run.broadcast,
            self._config.down,
            torch_generator(self._seed, "downlink", current),
        )
        self._packed = {}

    def write(self, client: int, plain: ArrayRecord) -> tuple[ArrayRecord, dict[str, str]]:
        """Return the arrays for ``client`` and what its configuration says of them.

        ``plain``: the server's weights as a record.
        """
        if self._broadcast is None:
            return plain, {_LAYOUT: self._layout.fingerprint}
        kind, arrays = self._broadcast.arrays_for(client in self._holders)
        if kind not in self._packed:
            self._packed[kind] = pack_arrays(arrays)
        told = {_KIND: kind, _FINGERPRINT: self._broadcast.fingerprint}
        return self._packed[kind], told | {_SENDS: self._sends[client]}

    def read(self, client: int, record: ArrayRecord) -> Mapping[str, Tensor]:
        """Return the client's weights: the server's own, moved by the client's update.

        With ``usplit`` they are those arrays that the client was asked for.

        Raises:
            FederationError: the arrays are not what such a client writes.
        """
        if self._broadcast is None:
            return unpack_weights(record, self._layout)
        arrays = unpack_arrays(record)
        names = sent_names(self._run.raw, self._sends[client])
        template = {name: self._run.raw[name] for name in names}
        return apply_update(self._run.raw, decode(arrays, self._codec, template))

    def close_round(self) -> None:
        """Remember what this round's clients started from; the round must have succeeded."""
        if self._broadcast and self._config.down.relative_to == "last_broadcast":
            self._run.broadcast = self._broadcast.reference
        self._broadcast = None

    def _who_followed(self, clients: Sequence[int]) -> set[int]:
        """Return the clients that are known to hold the last broadcast.

        Initial weights follow from the seed: before round 1 every client on this machine has them.
        """
        done = self._run.rounds_done
        if not done:
            return set(clients) if self._same_start else set()
        rows = self._run.history.of_round(done)
        return set(rows.loc[rows["status"] == "ok", "client_id"])


def receive_weights(
    record: ArrayRecord,
    config: ConfigRecord,
    settings: ClientSettings,
    state: ClientState,
    initial: Mapping[str, Tensor],
) -> Mapping[str, Tensor]:
    """Return the shared weights that a client is to start from; ``state`` keeps what it must.

    ``initial``: the network's initial shared arrays; without compression their layout will do.

    Raises:
        FederationError: the message is for another network, or see :func:`receive_broadcast`.
    """
    if not settings.compression.is_active:
        layout = Layout.of(initial)
        if layout.fingerprint != config[_LAYOUT]:
            raise FederationError(
                f"the server's model has the layout {config[_LAYOUT]}, this client's "
                f"{layout.fingerprint}; both need the same version of this project and of diffusers"
            )
        return unpack_weights(record, layout)
    arrays = unpack_arrays(record)
    down = settings.compression.down
    reference = receive_broadcast(
        str(config[_KIND]),
        arrays,
        str(config[_FINGERPRINT]),
        state.broadcast or initial,
        initial,
        down,
    )
    if down.relative_to == "last_broadcast":
        state.broadcast = reference
    return reference


def send_weights(
    trained: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    config: ConfigRecord,
    settings: ClientSettings,
    state: ClientState,
    client_id: int,
) -> ArrayRecord:
    """Return a client's ``trained`` shared weights as a record; ``state`` keeps the residual.

    ``reference``: what :func:`receive_weights` returned in this round.
    """
    if not settings.compression.is_active:
        return pack_weights(trained, Layout.of(reference))
    up = settings.compression.up
    codec = codec_of(up)
    names = sent_names(trained, str(config[_SENDS]))
    encoded = encode(
        difference({name: trained[name].detach().cpu() for name in names}, reference),
        codec,
        torch_generator(settings.seed, "uplink", client_id, int(str(config["round"]))),
        state.residual if codec and up.error_feedback else None,
    )
    state.residual = encoded.residual
    return pack_arrays(encoded.arrays)
