"""One speed of the check, uncompiled and compiled; figures are written as they come.

Several of these processes run side by side, because compiling takes most of their time. Nobody
measures before all have compiled, and whoever measures holds a lock, so that it is alone on the
device. Images are noise: values do not matter.
"""

import argparse
import fcntl
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks import stacked_clients
from benchmarks.gpu_check.report import Findings
from benchmarks.gpu_check.round_speed import prepare_round
from benchmarks.gpu_check.warnings_kept import WarningsKept
from benchmarks.harness import Options, Work, timed
from benchmarks.presets import Preset, read_preset
from phoenix_pipeline.config import SamplingConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.sampling import sample_images
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.optimization.compilation import compile_network
from phoenix_pipeline.optimization.work import LocalWork

# Figures by name, from work that has run before.
Measure = Callable[[], Mapping[str, float]]

_STEPS = 28  # of a client in a round of cifar10_h200
_CLIENT_BATCH = 13
_BATCH = 128
_DDIM_STEPS = 50
_SAMPLES = 50_000
_SAMPLING_BATCH = 500
_PEAK_SIDE = 8192
_PEAK_REPEATS = 20
_ENVIRONMENTS = {"small": "cifar10_h200", "large": "cifar10"}
_TINY_UNET = {
    "block_out_channels": (8,),
    "layers_per_block": 1,
    "attention_resolutions": (),
    "attention_head_dim": 8,
    "norm_num_groups": 4,
}
_TINY_BATCH = 4


@dataclass(frozen=True)
class Surroundings:
    """Where and what is measured; ``variants``: ``compiled`` beside ``uncompiled`` if asked for.

    ``lock`` is held by who measures. In the folder ``ready`` each of the ``expected`` processes
    leaves a file once it has compiled; at ``deadline`` (:func:`time.time`) nobody waits any more.
    """

    device: str
    tiny: bool
    variants: tuple[str, ...]
    lock: Path
    ready: Path
    expected: int
    deadline: float

    def preset(self, network: str, batch_size: int | None = None) -> Preset:
        """Return the small (8.9 M) or the large (35.7 M) network's preset."""
        preset = read_preset(network, _ENVIRONMENTS[network], 3, 32, _STEPS)
        if self.tiny:
            unet = preset.model.unet.model_copy(update=_TINY_UNET)
            model = preset.model.model_copy(update={"unet": unet})
            preset = replace(preset, model=model, image_size=8, steps=2)
            batch_size = min(batch_size or _TINY_BATCH, _TINY_BATCH)
        return stacked_clients.with_batch(preset, batch_size) if batch_size else preset

    def rate(self, name: str, work: Work, amount: float) -> Measure:
        """Return what measures ``amount`` per second of ``work``, after a run that compiles."""
        work()
        return lambda: {name: amount / self.seconds(work)}

    def seconds(self, work: Work) -> float:
        """Return the shorter of two runs of ``work``."""
        return min(timed(work, Options(device=self.device)) for _ in range(2))

    def wait_for_others(self) -> None:
        """Say that this process has compiled, and wait until all have."""
        (self.ready / str(os.getpid())).touch()
        while len(list(self.ready.iterdir())) < self.expected and time.time() < self.deadline:
            time.sleep(0.1)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of all who measure."""
        with self.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def matrix_peak(where: Surroundings) -> Iterator[Measure]:
    """Measure what the card can do at best, in TFLOP/s."""
    side = 64 if where.tiny else _PEAK_SIDE
    a = torch.randn(side, side, device=where.device, dtype=torch.bfloat16)

    def multiply() -> None:
        for _ in range(_PEAK_REPEATS):
            torch.mm(a, a)

    operations = 2e-12 * side**3 * _PEAK_REPEATS
    yield where.rate("matrix_peak.uncompiled", multiply, operations)


def training(network: str, where: Surroundings) -> Iterator[Measure]:
    """Measure ``train_locally`` on batches of 128, with everything that a step has."""
    preset = where.preset(network, _BATCH)
    images = preset.images(1000).to(where.device)
    schedule = NoiseSchedule.from_config(preset.model.noise, where.device)
    for variant in where.variants:
        unet = preset.network(where.device)
        if variant == "compiled":
            compile_network(unet)
        settings = compiled(preset, variant).training
        work = LocalWork(preset.steps, 0.0, 1.0, seed=1)
        train = partial(train_locally, unet, images, work, schedule, settings)
        amount = preset.steps * settings.batch_size
        yield where.rate(f"training_{network}.{variant}", train, amount)


def clients(where: Surroundings) -> Iterator[Measure]:
    """Measure ten clients with a tenth of a batch each, in the three ways to train them.

    Only the way that is taken is compiled as well: compiling is what the check has no time for.
    """
    for variant in where.variants:
        preset = compiled(where.preset("small", _CLIENT_BATCH), variant)
        images = stacked_clients.CLIENTS * preset.steps * preset.training.batch_size
        stacked = stacked_clients.stacked(preset, where.device)
        yield where.rate(f"clients_stacked.{variant}", stacked, images)
        if variant == "uncompiled":
            alone = stacked_clients.one_after_another(preset, where.device)
            yield where.rate(f"clients_alone.{variant}", alone, images)
            beside = side_by_side(preset, where.device)
            yield where.rate(f"clients_side_by_side.{variant}", beside, images)


def side_by_side(preset: Preset, device: str) -> Work:
    """Return the training of the same clients by a thread each, on streams of their own."""
    one_each = [
        stacked_clients.one_after_another(preset, device, clients=(client,))
        for client in range(stacked_clients.CLIENTS)
    ]

    def on_a_stream(work: Work) -> None:
        if device.startswith("cuda"):
            torch.cuda.set_stream(torch.cuda.Stream(device))
        work()

    def train() -> None:
        threads = [threading.Thread(target=on_a_stream, args=(work,)) for work in one_each]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return train


def sampling(network: str, where: Surroundings) -> Iterator[Measure]:
    """Measure DDIM in bf16; fifty thousand images are extrapolated."""
    preset = where.preset(network)
    batch, steps = (4, 2) if where.tiny else (_SAMPLING_BATCH, _DDIM_STEPS)
    config = SamplingConfig.model_validate(
        {"sampler": "ddim", "num_steps": steps, "batch_size": batch, "precision": "bf16"}
    )
    shape, seeds = preset.image_shape, range(batch)

    def measure(variant: str, work: Work) -> Mapping[str, float]:
        passes = batch * steps / where.seconds(work)
        seconds = _SAMPLES * _DDIM_STEPS / passes
        return {f"sampling_{network}.{variant}": passes, f"samples_{network}.{variant}": seconds}

    for variant in where.variants:
        unet = preset.network(where.device)
        if variant == "compiled":
            compile_network(unet)

        def draw(unet: torch.nn.Module = unet) -> None:
            list(sample_images(unet, preset.model.noise, config, shape, seeds, where.device))

        draw()
        yield partial(measure, variant, draw)


def whole_round(where: Surroundings) -> Iterator[Measure]:
    """Measure a round of ten clients against one batch of the same images."""
    for variant in where.variants:
        preset = compiled(where.preset("small", _CLIENT_BATCH), variant)
        folder = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        ratio = prepare_round(preset, where.device, folder)
        yield lambda ratio=ratio, variant=variant: {f"round.{variant}": ratio()}


def compiled(preset: Preset, variant: str) -> Preset:
    """Return ``preset`` with its training compiled or not."""
    update = {"compile": variant == "compiled"}
    return replace(preset, training=preset.training.model_copy(update=update))


MEASURES: dict[str, Callable[[Surroundings], Iterator[Measure]]] = {
    "matrix_peak": matrix_peak,
    "training_small": partial(training, "small"),
    "clients": clients,
    "sampling_large": partial(sampling, "large"),
    "training_large": partial(training, "large"),
    "round": whole_round,
    "sampling_small": partial(sampling, "small"),
}


def main() -> None:
    """Measure one; RuntimeError if a figure is not of what it is said to be of."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--findings", type=Path, required=True)
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--ready", type=Path, required=True)
    parser.add_argument("--expected", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=0.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    variants = ("uncompiled", "compiled") if asked.compile else ("uncompiled",)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    places = (asked.lock, asked.ready, asked.expected, asked.deadline)
    where = Surroundings(asked.device, asked.tiny, variants, *places)
    findings = Findings(asked.findings)
    with WarningsKept() as kept:
        try:
            prepared = list(MEASURES[asked.measure](where))
        finally:
            where.wait_for_others()
        for measure in prepared:
            with where.alone():
                found = measure()
            for name, value in found.items():
                findings.add(name, value=value)
    for line in kept.lines:
        if "torch.compile failed" in line or "kernel by kernel" in line:
            raise RuntimeError(f"not what was to be measured: {line}")


if __name__ == "__main__":
    main()
