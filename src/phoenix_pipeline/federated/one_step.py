"""What reaches the server of one client's one step: the update that an audit tries to invert.

It takes the client's own way out (clipping and noise, partial update, codec) and the server's way
in, so that an attack reads what such a server reads.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord
from torch import Tensor, nn

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.personal_layers import split_personal
from phoenix_pipeline.federated.privacy.accountant import dp_sgd_noise
from phoenix_pipeline.federated.privacy.client_level import ClientLevelPrivacy
from phoenix_pipeline.federated.privacy.plan import with_noise_to_add
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.run_state import RunState
from phoenix_pipeline.federated.transport import ServerTransport, send
from phoenix_pipeline.federated.work_plan import plan_steps
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.seeding import derive_seed
from phoenix_pipeline.strategies import ClientView, Strategies
from phoenix_pipeline.strategies.strategy import beside

_ROUND = 1


@dataclass(frozen=True)
class SeenUpdate:
    """``arrays``: the update as the server decodes it, by name; ``words``: what that is of it."""

    arrays: dict[str, Tensor]
    words: str


def settings_of_clients(
    settings: ClientSettings, federation: FederationConfig, sizes: Mapping[int, int]
) -> ClientSettings:
    """Return what clients of ``sizes`` images are told: ``settings``, with the noise to add."""
    private = federation.differential_privacy.enabled
    clients = ClientLevelPrivacy.of(federation, len(sizes)) if private else None
    return with_noise_to_add(settings, federation, clients)


def step_noise(
    settings: ClientSettings, federation: FederationConfig, sizes: Mapping[int, int], client: int
) -> float | None:
    """Return the noise multiplier of the client's DP-SGD; None where that is off."""
    dp_sgd, batch_size = settings.training.dp_sgd, settings.training.batch_size
    if not dp_sgd.enabled:
        return None
    steps = plan_steps(sizes, federation.local_work, batch_size)[client] * federation.num_rounds
    return dp_sgd_noise(dp_sgd, batch_size, sizes[client], steps)


def update_at_server(
    network: nn.Module,
    gradient: Mapping[str, Tensor],
    settings: ClientSettings,
    client: int,
    clients: Collection[int],
    attempt: int = 0,
) -> SeenUpdate:
    """Return what the server sees of a step of ``client`` against ``gradient``.

    The step has the gradient's direction, which gives most away, and the length of AdamW's first
    step: ``learning_rate`` times the root of the number of weights. Nothing is left over from
    earlier messages. ``network``: as the client received it; it is not changed. ``gradient``: by
    the names of the trained parameters. ``settings``: of :func:`settings_of_clients`. ``clients``:
    who takes part in the round, which decides on halves of the model. ``attempt``: tells apart the
    noise of several steps.
    """
    start = {name: array.detach().cpu() for name, array in network.state_dict().items()}
    trained = {**start, **_step(start, gradient, settings.training.learning_rate)}
    received, _ = split_personal(start, settings.personal_layers)
    shared, _ = split_personal(trained, settings.personal_layers)
    # Fields of noise must differ between images, which are one client's in one round here.
    settings = settings.model_copy(
        update={"seed": derive_seed(settings.seed, "audit", attempt), "secret_noise": False}
    )
    strategies = Strategies.of(settings.strategies)
    _, sent = strategies.after_training(_first_step(received, settings, strategies), shared)
    run = RunState(Path(), {}, received, 0.0)
    run.held.start(beside(received, strategies.told_like(received)))
    transport = ServerTransport(settings, run)
    transport.open_round(_ROUND, sorted(clients), ArrayRecord())
    config = ConfigRecord({"round": _ROUND, **transport.write(client)[1]})
    payload = beside(shared, sent)
    record = send(payload, received, config, settings, ClientState(), client)
    read = transport.read(client, record)
    seen = {name: read[name] - received[name] for name in received if name in read}
    return SeenUpdate(seen, _words(settings, len(seen) < len(received), seen))


def _first_step(
    received: Mapping[str, Tensor], settings: ClientSettings, strategies: Strategies
) -> ClientView:
    """Return what a client knows that makes its first step, at the peak learning rate."""
    peak = settings.training.lr_warmup
    work = LocalWork(1, peak, peak, settings.seed, frozenset(received))
    return ClientView(received, work, settings.training, strategies.told_like(received))


def _step(
    start: Mapping[str, Tensor], gradient: Mapping[str, Tensor], learning_rate: float
) -> dict[str, Tensor]:
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradient.values()))
    length = learning_rate * math.sqrt(sum(g.numel() for g in gradient.values()))
    scale = length / norm if norm else 0.0
    return {name: start[name] - scale * g.detach().cpu() for name, g in gradient.items()}


def _words(settings: ClientSettings, is_half: bool, seen: Mapping[str, Tensor]) -> str:
    """Return what is seen, most telling first, such as ``"int4, difference"``."""
    up = settings.compression.up
    named = {"none": "", "top_k": f"top {up.density:.0%}"}.get(up.codec, up.codec)
    parts = [named, "difference" if settings.compression.is_active else "weights"]
    if is_half:
        part = "encoder" if any(name.startswith("conv_in") for name in seen) else "decoder"
        parts.append(f"{part} half")
    if settings.personal_layers:
        parts.append("shared layers only")
    if settings.local_noise:
        parts.append("clipped and noisy")
    if settings.training.dp_sgd.enabled:
        parts.append("of a noisy gradient")
    return ", ".join(filter(None, parts))
