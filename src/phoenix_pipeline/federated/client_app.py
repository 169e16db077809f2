"""The ClientApp: translates messages; learning is :func:`diffusion.training.train_locally`."""

import threading
from collections.abc import Callable

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.federated.records import (
    ARRAYS,
    CONFIG,
    METRICS,
    ClientSettings,
    pack_arrays,
    unpack_arrays,
)
from phoenix_pipeline.federated.sites import Site
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.seeding import derive_seed


class Workbench(threading.local):
    """One network per worker thread, built once; weights are swapped in place for each client."""

    def __init__(self) -> None:
        self._key: tuple[ClientSettings, torch.device] | None = None
        self._tools: tuple[nn.Module, NoiseSchedule] | None = None

    def prepare(
        self, settings: ClientSettings, device: torch.device
    ) -> tuple[nn.Module, NoiseSchedule]:
        """Return the network and forward process of ``settings`` on ``device``."""
        if self._tools is None or self._key != (settings, device):
            unet: nn.Module = build_unet(
                settings.model.unet, settings.channels, settings.image_size, settings.seed
            ).to(device)
            if settings.training.channels_last:
                unet.to(memory_format=torch.channels_last)
            if settings.training.compile:
                unet.compile()
            self._tools = (unet, NoiseSchedule.from_config(settings.model.noise, device))
            self._key = (settings, device)
        return self._tools


def build_client_app(open_site: Callable[[Context], Site]) -> ClientApp:
    """Return the ClientApp for an engine; ``open_site`` says what the addressed node owns."""
    app = ClientApp()
    workbench = Workbench()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config = message.content[CONFIG]
        settings = ClientSettings.model_validate_json(str(config["settings"]))
        site = open_site(context)
        unet, schedule = workbench.prepare(settings, site.images.device)
        unet.load_state_dict(unpack_arrays(message.content[ARRAYS]))
        work = _read_work(config, settings.seed, site.client_id)
        server_round = int(config["round"])
        keeps_state = settings.training.optimizer_state == "keep"
        state = site.load_state(server_round) if keeps_state else None
        result = train_locally(unet, site.images, work, schedule, settings.training, state)
        if state is not None:
            site.save_state(server_round, int(config["checkpointed-round"]), state)
        metrics = MetricRecord(
            {
                "client-id": site.client_id,
                "num-examples": len(site.images),
                "images-trained": result.images_trained,
                "loss": result.loss,
                "seconds": result.seconds,
            }
        )
        reply = RecordDict({ARRAYS: pack_arrays(unet.state_dict()), METRICS: metrics})
        return Message(reply, reply_to=message)

    return app


def _read_work(config: ConfigRecord, seed: int, client_id: int) -> LocalWork:
    """Return this client's share of the round; its random stream depends on client and round."""
    return LocalWork(
        steps=int(config["steps"]),
        progress_start=float(config["progress-start"]),
        progress_end=float(config["progress-end"]),
        seed=derive_seed(seed, "local_training", client_id, int(config["round"])),
    )
