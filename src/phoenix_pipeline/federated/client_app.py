"""The ClientApp: translates messages; learning is the model family's ``train_locally``."""

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from torch import Tensor

from phoenix_pipeline.errors import FederationError, PhoenixError
from phoenix_pipeline.federated.client_model import ClientModel, ThreadModels
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.privacy.accountant import dp_sgd_noise
from phoenix_pipeline.federated.records import (
    ARRAYS,
    CONFIG,
    DESCRIBE_QUERY,
    INITIAL_PERSONAL,
    METRICS,
    PERSONAL_LAYERS_QUERY,
    REFERENCE,
    ClientSettings,
    pack_arrays,
    unpack_arrays,
)
from phoenix_pipeline.federated.site_errors import SiteRefusal
from phoenix_pipeline.federated.sites import Site
from phoenix_pipeline.federated.threshold_filter import score_own_model
from phoenix_pipeline.federated.transport import receive, send
from phoenix_pipeline.federated.wire import join
from phoenix_pipeline.hardware import out_of_memory
from phoenix_pipeline.metrics.monitoring import MonitorReference
from phoenix_pipeline.optimization.work import ClientTask, LocalResult, LocalWork
from phoenix_pipeline.seeding import derive_seed
from phoenix_pipeline.strategies import ClientView
from phoenix_pipeline.strategies.strategy import beside

logger = logging.getLogger(__name__)


OpenSite = Callable[[Message, Context], Site]
_Answer = TypeVar("_Answer")
CallNext = Callable[[Message, Context], Message]


def build_client_app(
    open_site: OpenSite, on_error: Callable[[Message, Context, CallNext], Message] | None = None
) -> ClientApp:
    """Return an engine's ClientApp; ``on_error`` answers where it fails (None: with the text)."""
    app = ClientApp(mods=[on_error or answer_errors])
    models = ThreadModels()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        settings = read_settings(message)
        site = open_site(message, context)
        model = models.prepare(settings, site.images.device, site.own.base)
        begun = begin_round(message.content, settings, site, model)
        result = model.family.train_locally(
            model.network, begun.task, settings.model, settings.training
        )
        return Message(finish_round(begun, result), reply_to=message)

    @app.query(PERSONAL_LAYERS_QUERY)
    def upload(message: Message, context: Context) -> Message:
        return upload_personal_layers(message, open_site(message, context))

    @app.query(DESCRIBE_QUERY)
    def describe(message: Message, context: Context) -> Message:
        return introduce(message, open_site(message, context))

    return app


def upload_personal_layers(message: Message, site: Site) -> Message:
    """Reply with the layers that stayed at ``site``; raises SiteRefusal if it keeps them."""
    if not site.releases_personal_layers:
        raise SiteRefusal("not-released", "release-personal-layers is not true")
    if site.demands:
        site.demands.check_release()
    config = message.content[CONFIG]
    state = site.states.load(site.client_id, int(config["round"]) + 1)
    arrays = pack_arrays(state.personal_ema if config["weights"] == "ema" else state.personal)
    metrics = MetricRecord({"num-examples": len(site.images)})
    return Message(RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=message)


def introduce(message: Message, site: Site) -> Message:
    """Reply who ``site`` is; raises SiteRefusal for a run that it would refuse."""
    settings = read_settings(message)
    if site.demands:
        site.demands.check_settings(settings)
    if settings.base_digest:
        settings.open_network(site.own.base)
    metrics = MetricRecord(
        {
            "client-id": site.client_id,
            "num-examples": len(site.images),
            "releases": int(site.releases_personal_layers),
        }
    )
    return Message(RecordDict({METRICS: metrics}), reply_to=message)


def answer_errors(
    message: Message, context: Context, call_next: Callable[[Message, Context], _Answer]
) -> _Answer | Message:
    """Reply with the reason where a client of a simulation cannot."""
    try:
        return call_next(message, context)
    except Exception as error:
        if not isinstance(error, PhoenixError):
            logger.exception("the client of node %s failed", context.node_id)
        reason = out_of_memory(error) or f"{type(error).__name__}: {error}"
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


@dataclass(frozen=True)
class ClientRound:
    """One client between the message of a round and its reply: ``model`` is to be trained.

    ``task``: on what; the weights are the model's own.
    """

    content: RecordDict
    settings: ClientSettings
    site: Site
    model: ClientModel
    state: ClientState
    view: ClientView
    task: ClientTask


def begin_round(
    content: RecordDict, settings: ClientSettings, site: Site, model: ClientModel
) -> ClientRound:
    """Read the message, and make ``model`` the client's model."""
    config, strategies = content[CONFIG], model.strategies
    work = _plan_work(config, settings, site, frozenset(model.initial_shared))
    state = site.states.load(site.client_id, int(config["round"]))
    earlier = (state.broadcast, state.broadcast_progress)
    received = receive(
        content[ARRAYS], config, settings, state, model.initial_payload, model.initial_shared
    )
    view = ClientView(
        received.weights, work, settings.training, received.told, state.strategies, earlier
    )
    work = replace(work, corrections=strategies.corrections(view))
    if strategies.need_earlier_broadcast:
        state.keep_broadcast(received.payload, work.progress_start)
    initial = unpack_arrays(content[INITIAL_PERSONAL]) if INITIAL_PERSONAL in content else None
    model.load(received.weights, state.personal or initial)
    if site.demands:
        site.demands.check_network(settings, model.network)
        if REFERENCE in content:
            site.demands.check_score(settings)
        site.demands.begin_round(settings, work, len(site.images))
    moments = state.optimizer if settings.training.optimizer_state == "keep" else None
    task = ClientTask(site.images, work, moments, site.labels)
    return ClientRound(content, settings, site, model, state, view, task)


def finish_round(begun: ClientRound, result: LocalResult) -> RecordDict:
    """Keep what the client keeps; return its shared arrays and its report about the round."""
    content, settings, site = begun.content, begun.settings, begun.site
    model, state = begun.model, begun.state
    config, server_round = content[CONFIG], int(content[CONFIG]["round"])
    if model.personal:
        state.keep_personal(model.personal, settings.training.ema_horizon)
    trained: Mapping[str, Tensor] = join(model.shared).cpu()
    if model.strategies.chosen:
        state.strategies, sent = model.strategies.after_training(begun.view, trained)
        trained = beside(trained, sent)
    arrays = send(trained, begun.view.received, config, settings, state, site.client_id)
    oldest = int(config["oldest-checkpoint"])
    site.states.save(site.client_id, server_round, oldest, state)
    metrics = MetricRecord(
        {
            "client-id": site.client_id,
            "num-examples": len(site.images),
            "images-trained": result.images_trained,
            "seconds": result.seconds,
        }
    )
    if not (site.demands and site.demands.demands_noise):
        metrics["loss"] = result.loss
    if REFERENCE in content:
        reference = MonitorReference.from_arrays(unpack_arrays(content[REFERENCE]))
        metrics["score"] = score_own_model(reference, settings, site, model, server_round)
    return RecordDict({ARRAYS: arrays, METRICS: metrics})


def _plan_work(
    config: ConfigRecord, settings: ClientSettings, site: Site, from_server: frozenset[str]
) -> LocalWork:
    """Return what the message asks of this client, and the noise of DP-SGD where it is on."""
    training, noise, steps = settings.training, None, int(config["steps"])
    if steps < 1:
        raise FederationError(f"the message asks for {steps} steps; at least 1 is allowed")
    if training.dp_sgd.enabled:
        noise = dp_sgd_noise(
            training.dp_sgd, training.batch_size, len(site.images), int(config["run-steps"])
        )
    return LocalWork(
        steps=steps,
        progress_start=float(config["progress-start"]),
        progress_end=float(config["progress-end"]),
        seed=_seed(settings, "local_training", site.client_id, int(config["round"])),
        from_server=from_server,
        noise_multiplier=noise,
        secret_noise=settings.secret_noise and noise is not None,
    )


def _seed(settings: ClientSettings, role: str, client: int, server_round: int) -> int:
    """Return the seed of ``role``; the server does not know it where noise is secret."""
    if settings.secret_noise:
        return secrets.randbits(63)
    return derive_seed(settings.seed, role, client, server_round)


def read_settings(message: Message) -> ClientSettings:
    """Return the settings that came with ``message``; raises FederationError if none did."""
    config = message.content[CONFIG]
    if "settings" not in config:
        raise FederationError("the message has no settings")
    return ClientSettings.model_validate_json(str(config["settings"]))
