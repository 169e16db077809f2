"""Ten clients trained as one program against the same ten one after another, on one CPU core.

The points around the default say from which size of a step on a core has enough to do with one
client: ``_BUSY_VALUES`` in ``federated/stacked_clients.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from benchmarks.harness import Options, Row, Work, compare
from benchmarks.presets import Preset, read_preset
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.stacked import train_stacked
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.optimization.compilation import compile_network
from phoenix_pipeline.optimization.work import ClientTask, LocalWork

GOAL = 1.8
CLIENTS = 10
_IMAGES = 50
# Images that each client trains on, at 8 pixels a side; fewer of larger ones.
_TRAINED = 192
_SIDE = 8


@dataclass(frozen=True)
class Point:
    """A size of one client's step; ``channels`` None: the preset's."""

    batch_size: int
    image_size: int = 8
    channels: tuple[int, ...] | None = None

    @property
    def steps(self) -> int:
        """Steps of each client, so that begin and end weigh as in a short round."""
        return max(2, _TRAINED * _SIDE // (self.batch_size * self.image_size))

    @property
    def name(self) -> str:
        """What tells the row from the others."""
        wide = f"_channels_{self.channels[0]}" if self.channels else ""
        return f"{self.image_size}px_batch_{self.batch_size}{wide}"


POINTS = (
    Point(16),
    Point(8),
    Point(32),
    Point(64),
    Point(8, image_size=16),
    Point(16, image_size=16),
    Point(4, image_size=32),
    Point(32, image_size=32),
    Point(16, channels=(32, 64)),
)


def run(options: Options) -> list[Row]:
    """Compare at every point on one core; on a GPU the 8.9 M network, 13 images a client."""
    if options.device.startswith("cuda"):
        preset = read_preset("cifar10_h200", "cifar10_h200", 3, 32, steps=12)
        return [_compare(with_batch(preset, 13), "cifar10_h200_batch_13", None, options)]
    digits = read_preset("digits", None, 1, _SIDE, steps=1)
    points = POINTS[:1] if options.quick else POINTS
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        return [
            _compare(at(digits, p), p.name, GOAL if p == Point(16) else None, options)
            for p in points
        ]
    finally:
        torch.set_num_threads(threads)


def _compare(preset: Preset, name: str, goal: float | None, options: Options) -> Row:
    if options.quick:
        preset = replace(preset, steps=1)
    stacked, alone = both_ways(preset, options.device)
    return compare(
        f"stacked_clients_{name}",
        f"{CLIENTS} clients as one program against one after another, batches of "
        f"{preset.training.batch_size} images of {preset.image_size} pixels a side",
        stacked,
        alone,
        options,
        goal,
        images=CLIENTS * preset.steps * preset.training.batch_size,
        values=preset.training.batch_size
        * preset.image_size**2
        * preset.model.unet.block_out_channels[0],
    )


def at(preset: Preset, point: Point) -> Preset:
    """Return ``preset`` with the sizes of ``point``; attention at the smaller of two sides."""
    update: dict[str, object] = {"attention_resolutions": (point.image_size // 2,)}
    if point.channels:
        update["block_out_channels"] = point.channels
    unet = preset.model.unet.model_copy(update=update)
    model = preset.model.model_copy(update={"unet": unet})
    sized = replace(preset, model=model, image_size=point.image_size, steps=point.steps)
    return with_batch(sized, point.batch_size)


def with_batch(preset: Preset, batch_size: int) -> Preset:
    """Return ``preset`` with so many images per step of a client."""
    training = preset.training.model_copy(update={"batch_size": batch_size})
    return replace(preset, training=training)


def both_ways(preset: Preset, device: str) -> tuple[Work, Work]:
    """Return ``preset.steps`` steps of all clients as one program, and one after another."""
    return stacked(preset, device), one_after_another(preset, device)


def stacked(preset: Preset, device: str) -> Work:
    """Return the training of all clients as one program."""
    unet, schedule = preset.network(device), NoiseSchedule.from_config(preset.model.noise, device)
    images = preset.images(_IMAGES).to(device)
    tasks = [
        ClientTask(
            images, _work(preset, i), weights={n: v.clone() for n, v in unet.state_dict().items()}
        )
        for i in range(CLIENTS)
    ]
    return partial(train_stacked, unet, tasks, schedule, preset.training)


def one_after_another(preset: Preset, device: str, clients: Sequence[int] = range(CLIENTS)) -> Work:
    """Return the training of ``clients`` with one network, as a worker does it."""
    unet, schedule = preset.network(device), NoiseSchedule.from_config(preset.model.noise, device)
    images = preset.images(_IMAGES).to(device)
    if preset.training.compile is True:
        compile_network(unet)

    def train() -> None:
        for i in clients:
            train_locally(unet, images, _work(preset, i), schedule, preset.training)

    return train


def _work(preset: Preset, client: int) -> LocalWork:
    return LocalWork(preset.steps, 0.0, 1.0, seed=client)
