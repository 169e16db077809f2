"""Training messages of several clients, answered by one program; and how many at a time."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from flwr.app import Context, Message
from torch import nn

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.families import family_of
from phoenix_pipeline.federated.client_app import (
    ClientRound,
    OpenSite,
    answer_errors,
    begin_round,
    finish_round,
    read_settings,
)
from phoenix_pipeline.federated.client_model import ThreadModels
from phoenix_pipeline.federated.records import REFERENCE, ClientSettings
from phoenix_pipeline.hardware import available_memory
from phoenix_pipeline.optimization.work import LocalResult

logger = logging.getLogger(__name__)

# Values in the largest feature maps of a client's step from which on one client keeps the device
# busy. cpu: measured with benchmarks/stacked_clients.py. cuda: between batches of 13, where
# stacking wins, and of 128, where grouped convolutions take twice the time (docs/speed.md).
_BUSY_VALUES = {"cpu": 70_000, "cuda": 2_000_000}
_BUSY = {"cpu": "a CPU core", "cuda": "a GPU"}
# Copies of a client's weights that training holds: weights, gradients, two moments, what is kept.
_COPIES = 6
_MEMORY_SHARE = 0.5


class StackedClients:
    """Answers several training messages at once; ``threads`` read and write beside it."""

    def __init__(self, open_site: OpenSite, threads: int = 1) -> None:
        self._open_site = open_site
        self._models = ThreadModels(compiles=False)
        self._threads = threads
        # As many as memory was enough for so far.
        self._most: float = math.inf

    def __call__(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Return a reply to each message, in order: a client that cannot gives its reason."""
        count = len(messages)
        if count <= self._most:
            try:
                return self._answer(messages, contexts)
            except torch.OutOfMemoryError:
                if count == 1:
                    raise
            # Not inside the handler: the error holds on to the memory of the frames that it went
            # through.
            logger.warning("%s clients at a time are too many for the memory", count)
            torch.cuda.empty_cache()
            self._most = math.ceil(count / 2)
        parts = (slice(None, count // 2), slice(count // 2, None))
        return [reply for part in parts for reply in self(messages[part], contexts[part])]

    def _answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        def open_site(message: Message, context: Context, slot: int) -> tuple[Any, ...]:
            settings, site = read_settings(message), self._open_site(message, context)
            slots = (settings, site.images.device, len(messages), site.own.base)
            return settings, site, self._models.prepare_slots(*slots)[slot]

        def begin(message: Message, context: Context, opened: Any) -> ClientRound | Message:
            if isinstance(opened, Message):
                return opened
            return answer_errors(message, context, lambda m, _: begin_round(m.content, *opened))

        def finish(message: Message, context: Context, begun: Any, result: Any) -> Message:
            def reply(message: Message, context: Context) -> Message:
                if not isinstance(result, LocalResult):
                    raise result or TrainingError("the client was not trained")
                return Message(finish_round(begun, result), reply_to=message)

            is_answer = isinstance(begun, Message)
            return begun if is_answer else answer_errors(message, context, reply)

        opened = [
            answer_errors(message, context, partial(open_site, slot=slot))
            for slot, (message, context) in enumerate(zip(messages, contexts, strict=True))
        ]
        with self._each_in_a_thread(messages) as each:
            begun = list(each(begin, messages, contexts, opened))
            results = iter(_train([one for one in begun if isinstance(one, ClientRound)]))
            trained = [next(results) if isinstance(one, ClientRound) else None for one in begun]
            return list(each(finish, messages, contexts, begun, trained))

    @contextmanager
    def _each_in_a_thread(
        self, messages: Sequence[Message]
    ) -> Iterator[Callable[..., Iterable[Any]]]:
        """Yield a ``map`` over the threads, on this thread's stream; scores come one by one."""
        if self._threads == 1 or any(REFERENCE in message.content for message in messages):
            yield map
            return
        stream = torch.cuda.current_stream() if torch.cuda.is_available() else None

        def prepare() -> None:
            torch.set_num_threads(1)
            if stream is not None:
                torch.cuda.set_stream(stream)

        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(self._threads, "client_files", prepare) as pool:
                yield pool.map
        finally:
            # Threads that start later, and MKL, go by the number that was set last.
            torch.set_num_threads(threads)


def _train(begun: Sequence[ClientRound]) -> list[LocalResult | TrainingError]:
    if not begun:
        return []
    tasks = [replace(own.task, weights={**own.model.shared, **own.model.personal}) for own in begun]
    model, settings = begun[0].model, begun[0].settings
    return model.family.train_stacked(model.network, tasks, settings.model, settings.training)


def clients_at_a_time(
    config: FederationConfig, settings: ClientSettings, device: torch.device, num_clients: int
) -> int:
    """Return how many of a round's ``num_clients`` a worker trains as one program, and log why."""
    count, reason = choose_clients_at_a_time(config, settings, device, num_clients)
    if reason:
        logger.info("each worker trains its clients one after another: %s", reason)
    if count > 1:
        logger.info("up to %s clients train as one program", count)
    return count


def choose_clients_at_a_time(
    config: FederationConfig, settings: ClientSettings, device: torch.device, num_clients: int
) -> tuple[int, str | None]:
    """Return how many clients a worker trains as one program, and what keeps it from more."""
    asked = config.stacked_clients
    if asked == 1 or num_clients == 1:
        return 1, None
    reason = family_of(settings.model).why_not_stacked(settings.training)
    if asked == "auto" and reason is None and _keeps_busy(settings, device):
        reason = f"one client's batch keeps {_BUSY[device.type]} busy"
    if reason:
        return 1, reason
    most = _that_fit(settings, device) if asked == "auto" else asked
    return max(1, min(most, num_clients)), None


def _keeps_busy(settings: ClientSettings, device: torch.device) -> bool:
    channels = settings.model.unet.block_out_channels[0]
    values = settings.training.batch_size * settings.trained_shape[1] ** 2 * channels
    return device.type in _BUSY_VALUES and values > _BUSY_VALUES[device.type]


def _that_fit(settings: ClientSettings, device: torch.device) -> int:
    """Return how many clients leave half of the free memory free."""
    with torch.device("meta"):
        network = settings.build_network()
    weights = sum(parameter.numel() for parameter in network.parameters())
    values = _COPIES * weights + settings.training.batch_size * _activations(network, settings)
    return max(1, int(_MEMORY_SHARE * available_memory(device) / (4 * values)))


def _activations(network: nn.Module, settings: ClientSettings) -> int:
    """Return the values that all layers put out for one image, which the backward pass needs."""
    counted = 0

    def count(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal counted
        counted += output.numel() if isinstance(output, torch.Tensor) else 0

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    shape = (1, *settings.trained_shape)
    with torch.no_grad():
        timestep = torch.zeros(1, device="meta", dtype=torch.int64)
        classes = (timestep,) if settings.class_names else ()
        network(torch.empty(shape, device="meta"), timestep, *classes)
    return counted
