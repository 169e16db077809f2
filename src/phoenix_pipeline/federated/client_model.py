"""One network per worker thread, built once; weights are swapped in place for each client."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from phoenix_pipeline.families import Family, family_of
from phoenix_pipeline.federated.personal_layers import split_personal
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.wire import Joined, join
from phoenix_pipeline.optimization.compilation import compile_network
from phoenix_pipeline.strategies import Strategies
from phoenix_pipeline.strategies.strategy import beside

# Initial weights come from torch's one generator per process: two builds at once would mix.
_BUILDING = threading.Lock()


@dataclass(frozen=True)
class ClientModel:
    """A network that becomes one client's model after another, and what is the same for all.

    ``shared`` and ``personal`` are the network's own arrays, the shared ones on a CPU parts of one
    vector per dtype, as they are in messages. ``initial_shared``: the initial shared
    weights on the CPU; without values where nothing is compressed, since nobody asks for them then.
    ``initial_payload`` has beside them what the run's ``strategies`` receive.
    """

    family: Family
    network: nn.Module
    initial_personal: Mapping[str, Tensor]
    initial_shared: Mapping[str, Tensor]
    initial_payload: Mapping[str, Tensor]
    strategies: Strategies
    shared: Mapping[str, Tensor]
    personal: Mapping[str, Tensor]

    def load(self, shared: Mapping[str, Tensor], personal: Mapping[str, Tensor] | None) -> None:
        """Become one client's model: the server's arrays and its own layers."""
        given = {**self.initial_personal, **(personal or {})}
        own = self.personal
        if not _copy_vectors(shared, self.shared):
            # One copy to the device for each vector; the arrays are cut out there.
            shared = _move(shared, next(self.network.parameters()).device)
            given, own = {**given, **shared}, {**self.shared, **own}
        shapes = {name: tensor.shape for name, tensor in given.items()}
        if shapes != {name: tensor.shape for name, tensor in own.items()}:
            # Slower, and says what is wrong.
            self.network.load_state_dict({**given, **shared})
        if given:
            torch._foreach_copy_([own[name] for name in given], list(given.values()))

    def slot(self) -> "ClientModel":
        """Return a model with arrays of its own beside the network's, laid out like messages."""
        shared = join({name: tensor.detach().clone() for name, tensor in self.shared.items()})
        personal = {name: tensor.detach().clone() for name, tensor in self.personal.items()}
        return replace(self, shared=shared, personal=personal)

    def put_into_network(self) -> None:
        """Make the network this model's model; it is already unless this is a :meth:`slot`."""
        inside = self.network.state_dict()
        own = {**self.shared, **self.personal}
        torch._foreach_copy_([inside[name] for name in own], list(own.values()))


class ThreadModels(threading.local):
    """Keeps this thread's model while settings stay; ``compiles`` its network if asked for."""

    def __init__(self, compiles: bool = True) -> None:
        self._compiles = compiles
        self._key: tuple[ClientSettings, torch.device, Path | None] | None = None
        self._model: ClientModel | None = None
        self._slots: list[ClientModel] = []

    def prepare(
        self, settings: ClientSettings, device: torch.device, base: Path | None = None
    ) -> ClientModel:
        """Return the model of ``settings`` on ``device``; ``base``: see ``Site``."""
        if self._model is None or self._key != (settings, device, base):
            compiled = self._compiles and settings.training.compile is True
            self._model = _build(settings, device, base, compiled)
            self._key = (settings, device, base)
            self._slots = []
        return self._model

    def prepare_slots(
        self,
        settings: ClientSettings,
        device: torch.device,
        count: int,
        base: Path | None = None,
    ) -> list[ClientModel]:
        """Return ``count`` models around one network, whose arrays are each their own."""
        model = self.prepare(settings, device, base)
        self._slots.extend(model.slot() for _ in range(count - len(self._slots)))
        return self._slots[:count]


def _build(
    settings: ClientSettings, device: torch.device, base: Path | None, compiled: bool
) -> ClientModel:
    with _BUILDING:
        network = settings.open_network(base)
    shared, _ = split_personal(network.state_dict(), settings.personal_layers)
    initial_shared: Mapping[str, Tensor] = {n: tensor.clone() for n, tensor in shared.items()}
    if not settings.compression.is_active:
        initial_shared = join({name: tensor.to("meta") for name, tensor in shared.items()})
    network.to(device)
    arrays, joined = {**dict(network.named_parameters()), **dict(network.named_buffers())}, None
    # The kernels of a GPU want arrays that begin at round addresses.
    if device.type == "cpu" and not settings.training.channels_last:
        joined = join({name: arrays[name] for name in shared})
        for name, part in joined.items():
            arrays[name].data = part
    _, personal = split_personal(network.state_dict(), settings.personal_layers)
    initial = {name: tensor.clone() for name, tensor in personal.items()}
    if settings.training.channels_last:
        network.to(memory_format=torch.channels_last)
    if compiled:
        compile_network(network)
    # Once: walking through the modules for every client costs more than copying the weights.
    own, personal = split_personal(network.state_dict(), settings.personal_layers)
    strategies = Strategies.of(settings.strategies)
    return ClientModel(
        family=family_of(settings.model),
        network=network,
        initial_personal=initial,
        initial_shared=initial_shared,
        initial_payload=beside(initial_shared, strategies.told_like(initial_shared)),
        strategies=strategies,
        shared=joined or own,
        personal=personal,
    )


def _move(arrays: Mapping[str, Tensor], device: torch.device) -> Mapping[str, Tensor]:
    """Return ``arrays`` on ``device`` if they are parts of vectors, else as they are."""
    if not isinstance(arrays, Joined):
        return arrays
    return Joined({name: v.to(device) for name, v in arrays.vectors.items()}, arrays.layout)


def _copy_vectors(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> bool:
    """Copy ``source`` into ``target`` at one go and return True, if they are laid out alike."""
    if not isinstance(source, Joined) or not isinstance(target, Joined):
        return False
    if source.layout != target.layout:
        return False
    for name, vector in target.vectors.items():
        vector.copy_(source.vectors[name])
    return True
