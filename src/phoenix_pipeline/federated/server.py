"""Runs the rounds of one arm: initial weights, strategy, server-side EMA, checkpoints."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from flwr.app import ArrayRecord, MetricRecord
from torch import Tensor

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.federated.client_app import build_client_app
from phoenix_pipeline.federated.engines.in_process import InProcessGrid
from phoenix_pipeline.federated.records import ClientSettings, pack_arrays, unpack_arrays
from phoenix_pipeline.federated.run_state import find_run, save_run
from phoenix_pipeline.federated.sites import InMemorySites
from phoenix_pipeline.federated.strategy import OnReply, PhoenixStrategy, Progress
from phoenix_pipeline.hardware import available_cores, resolve_device
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.optimization.ema import ema_decay, update_ema

logger = logging.getLogger(__name__)

OnRound = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class FederatedResult:
    """The trained weights by name, their average over the run, and a row per round and client."""

    raw: dict[str, Tensor]
    ema: dict[str, Tensor]
    rounds: pd.DataFrame


class _Run:
    """The server's mutable state, saved after every round."""

    def __init__(
        self, config: FederationConfig, settings: ClientSettings, identity: str, folder: Path
    ) -> None:
        self._config = config
        self._horizon = settings.training.ema_horizon
        self._folder = folder
        work = config.model_dump(mode="json", exclude={"workers", "resume", "checkpoint_every"})
        self._settings: dict[str, Any] = {
            **{f"federation.{k}": v for k, v in work.items()},
            **settings.model_dump(mode="json"),
            "data": identity,
        }
        found = find_run(folder / "server", self._settings) if config.resume else None
        if found is None:
            shutil.rmtree(folder, ignore_errors=True)
            self.raw: dict[str, Tensor] = dict(
                build_unet(
                    settings.model.unet, settings.channels, settings.image_size, settings.seed
                ).state_dict()
            )
            self.ema = {name: tensor.clone() for name, tensor in self.raw.items()}
            self.progress = Progress(0, 0, [])
        else:
            done, state, rows = found
            logger.info("continuing after round %s of %s", done, config.num_rounds)
            self.raw, self.ema = (
                {n.removeprefix(p): t for n, t in state.items() if n.startswith(p)}
                for p in ("raw.", "ema.")
            )
            self.progress = Progress(done, done, rows)

    def finish_round(self, arrays: ArrayRecord) -> None:
        """Take over the round's mean, move the EMA, and write a checkpoint when one is due."""
        done = self.progress.rounds_done
        self.raw = unpack_arrays(arrays)
        names = list(self.ema)
        update_ema(
            [self.ema[n] for n in names],
            [self.raw[n] for n in names],
            ema_decay(done, self._horizon),
        )
        if done % self._config.checkpoint_every == 0 or done == self._config.num_rounds:
            state = {f"raw.{n}": t for n, t in self.raw.items()}
            state |= {f"ema.{n}": t for n, t in self.ema.items()}
            save_run(self._folder / "server", done, state, self.progress.rows, self._settings)
            self.progress.rounds_saved = done


def train_federated(
    images: ImageSet,
    client_images: pd.DataFrame,
    config: FederationConfig,
    settings: ClientSettings,
    device_name: str,
    folder: Path,
    on_round: OnRound | None = None,
    on_reply: OnReply | None = None,
) -> FederatedResult:
    """Train over the clients of ``client_images`` (client_id, image_index); resume if possible.

    Args:
        images: all training images; a client sees only its rows.
        client_images: which image each client trains on.
        config: rounds, work per round, engine.
        settings: what every client is told.
        device_name: ``run.device``.
        folder: checkpoints and client states of this arm.
        on_round: told each round's means, restored rounds included.
        on_reply: told every reply as it comes.

    Raises:
        FederationError: a round had too few usable replies; the last checkpoint stands.
    """
    device = resolve_device(device_name)
    sites = InMemorySites(images, client_images, device, folder / "clients")
    sizes = sites.sizes()
    cores = available_cores()
    workers = min(config.workers or (cores if device.type == "cpu" else 1), len(sizes))
    run = _Run(config, settings, _identity(images, client_images), folder)
    if on_round:
        for number in range(1, run.progress.rounds_done + 1):
            on_round(number, _round_means(run.progress.rows, number))

    def after_round(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if server_round == 0:
            return None
        run.finish_round(arrays)
        means = _round_means(run.progress.rows, run.progress.rounds_done)
        logger.info(
            "round %s/%s: loss %.4f, %s clients, %.1f s of training",
            run.progress.rounds_done,
            config.num_rounds,
            means["loss"],
            int(means["clients"]),
            means["seconds"],
        )
        if on_round:
            on_round(run.progress.rounds_done, means)
        return None

    with InProcessGrid(build_client_app(sites), sizes, workers, max(1, cores // workers)) as grid:
        strategy = PhoenixStrategy(
            config, settings, grid.clients, sizes, run.raw, run.progress, on_reply
        )
        remaining = config.num_rounds - run.progress.rounds_done
        if remaining > 0:
            strategy.start(
                grid,
                pack_arrays(run.raw),
                num_rounds=remaining,
                timeout=config.round_timeout_s,
                evaluate_fn=after_round,
            )
    return FederatedResult(run.raw, run.ema, pd.DataFrame(run.progress.rows))


def _round_means(rows: list[dict[str, Any]], number: int) -> dict[str, float]:
    """Return one round's totals and its loss, weighted by example counts."""
    table = pd.DataFrame([row for row in rows if row["round"] == number])
    usable = table[table["status"] == "ok"]
    weights = usable["num_examples"] / usable["num_examples"].sum()
    return {
        "loss": float((usable["loss"] * weights).sum()),
        "clients": float(len(usable)),
        "clients_left_out": float(len(table) - len(usable)),
        "images_trained": float(usable["images_trained"].sum()),
        "seconds": float(usable["seconds"].sum()),
        "bytes_up": float(table["bytes_up"].sum()),
        "bytes_down": float(table["bytes_down"].sum()),
    }


def _identity(images: ImageSet, client_images: pd.DataFrame) -> str:
    """Return a fingerprint of the images and of who holds them."""
    table = client_images[["client_id", "image_index"]].to_numpy(dtype="int64", copy=True)
    digest = hashlib.sha256(table.tobytes()).hexdigest()
    return json.dumps([images.fingerprint(), digest])
