"""Local training against how it is usually written for a simulated federation.

The habits: clients one after another, each with all threads that torch takes by itself, and for
each a new model and a new ``DataLoader`` with workers that decode with PIL, weights through NumPy
in both directions, ``loss.item()`` in every step, fp32, diffusers' ``add_noise``. This project: as
many clients at a time as there are cores, one thread each; on a GPU one. Both train the same
clients, the same U-Net and the same number of batches.
"""

import io
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.harness import Options, Row, Work, compare, side_by_side
from benchmarks.presets import Preset, presets
from phoenix_pipeline.diffusion.noise import NoiseSchedule, build_scheduler
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.hardware import available_cores
from phoenix_pipeline.images import encode_png
from phoenix_pipeline.optimization.work import LocalWork

_GOALS = {"cpu": 1.3, "cuda": 2.0}
_IMAGES = 1000
_LOADER_WORKERS = 2


class EncodedImages(Dataset[Tensor]):
    """Encoded images, decoded one by one, as data-set libraries hand them out."""

    def __init__(self, files: Sequence[bytes], channels: int) -> None:
        self._files = files
        self._mode = "L" if channels == 1 else "RGB"
        middle = [0.5] * channels
        self._transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(middle, middle)]
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> Tensor:
        """Return image ``index``, float32 [C, H, W] in [-1, 1]."""
        with Image.open(io.BytesIO(self._files[index])) as image:
            decoded: Tensor = self._transform(image.convert(self._mode))
        return decoded


def run(options: Options) -> list[Row]:
    """Compare clients' shares of a round, from the server's weights to the clients' replies."""
    goal = _GOALS["cuda" if options.device.startswith("cuda") else "cpu"]
    rows = []
    for preset in presets(options):
        pixels = preset.images(_IMAGES // (10 if options.quick else 1))
        clients = available_cores() if options.device == "cpu" else 1
        ours = _ours(preset, pixels, clients, options)
        habits = _habits(preset, pixels, clients, options)
        rows.append(
            compare(
                f"field_habits_{preset.name}",
                f"{clients} client(s) side by side against one after another with DataLoader, PIL "
                "and workers, a new model each, NumPy weights, loss.item()",
                ours,
                habits,
                options,
                goal,
                images=clients * preset.steps * preset.training.batch_size,
                loader_workers=_LOADER_WORKERS,
                threads=torch.get_num_threads(),
            )
        )
    return rows


def _ours(preset: Preset, pixels: Tensor, clients: int, options: Options) -> Work:
    """Return the clients' round as the engine ``in_process`` makes it."""
    images = pixels.to(options.device)
    tables = NoiseSchedule.from_config(preset.model.noise, options.device)
    work = LocalWork(preset.steps, 0.0, 1.0, seed=0)
    networks = [preset.network(options.device) for _ in range(clients)]
    weights = {name: tensor.cpu().clone() for name, tensor in networks[0].state_dict().items()}
    if preset.training.compile is True:
        networks[0].compile()

    def client(network: nn.Module) -> dict[str, Tensor]:
        network.load_state_dict(weights)
        train_locally(network, images, work, tables, preset.training)
        return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}

    return partial(side_by_side, client, networks)


def _habits(preset: Preset, pixels: Tensor, clients: int, options: Options) -> Work:
    """Return the clients' round as tutorials write it."""
    data = EncodedImages([encode_png(image) for image in pixels.numpy()], preset.channels)
    weights = [value.cpu().numpy() for value in preset.network("cpu").state_dict().values()]
    device = torch.device(options.device)
    return lambda: [_client_by_habit(preset, data, weights, device) for _ in range(clients)]


def _client_by_habit(
    preset: Preset, data: EncodedImages, weights: Sequence[np.ndarray], device: torch.device
) -> list[np.ndarray]:
    config = preset.training
    unet = build_unet(preset.model.unet, preset.channels, preset.image_size, seed=0)
    named = zip(unet.state_dict(), weights, strict=True)
    unet.load_state_dict({name: torch.tensor(value) for name, value in named})
    unet.to(device).train()
    noise_scheduler = build_scheduler(preset.model.noise)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.learning_rate)
    loader = DataLoader(
        data, config.batch_size, shuffle=True, num_workers=_LOADER_WORKERS, drop_last=True
    )
    losses: list[float] = []
    while len(losses) < preset.steps:
        for batch in loader:
            x_0 = batch.to(device)
            epsilon = torch.randn_like(x_0)
            last = noise_scheduler.config.num_train_timesteps
            t = torch.randint(0, last, (len(x_0),), device=device)
            target = epsilon
            if preset.model.noise.prediction_type == "v_prediction":
                target = noise_scheduler.get_velocity(x_0, epsilon, t)
            predicted = unet(noise_scheduler.add_noise(x_0, epsilon, t), t).sample
            loss = nn.functional.mse_loss(predicted, target)
            optimizer.zero_grad()
            loss.backward()
            if config.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(unet.parameters(), config.max_grad_norm)
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == preset.steps:
                break
    return [value.cpu().numpy() for value in unet.state_dict().values()]
