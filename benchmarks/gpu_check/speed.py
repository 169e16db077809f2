"""One speed of the check, eager first and then compiled; figures are written as they come.

Several of these processes run side by side, because compiling takes most of their time. Whoever
measures holds a lock, so that no two measure at once. Images are noise: values do not matter.
"""

import argparse
import fcntl
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks import stacked_clients
from benchmarks.gpu_check.report import Findings
from benchmarks.gpu_check.round_speed import measure_round
from benchmarks.gpu_check.warnings_kept import WarningsKept
from benchmarks.harness import Options, Work, timed
from benchmarks.presets import Preset, read_preset
from phoenix_pipeline.config import SamplingConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.sampling import sample_images
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.optimization.compilation import compile_network
from phoenix_pipeline.optimization.work import LocalWork

_STEPS = 28  # of a client in a round of cifar10_h200
_CLIENT_BATCH = 13
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
class Bench:
    """Where and what is measured; ``variants``: ``eager``, and ``compiled`` where that is asked."""

    device: str
    tiny: bool
    variants: tuple[str, ...]
    findings: Findings
    lock: Path

    def preset(self, network: str, batch_size: int | None = None) -> Preset:
        """Return the small (8.9 M) or the large (35.7 M) network's preset."""
        preset = read_preset(network, _ENVIRONMENTS[network], 3, 32, _STEPS)
        if self.tiny:
            unet = preset.model.unet.model_copy(update=_TINY_UNET)
            model = preset.model.model_copy(update={"unet": unet})
            preset = replace(preset, model=model, image_size=8, steps=2)
            batch_size = min(batch_size or _TINY_BATCH, _TINY_BATCH)
        return stacked_clients.with_batch(preset, batch_size) if batch_size else preset

    def seconds(self, work: Work) -> float:
        """Return the shorter of two runs of ``work``, which has run before, alone on the device."""
        with self.alone():
            return min(timed(work, Options(device=self.device)) for _ in range(2))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of all who measure."""
        with self.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def add(self, key: str, variant: str, value: float) -> None:
        """Write a figure down."""
        self.findings.add(f"{key}.{variant}", value=value)


def matrix_peak(bench: Bench) -> None:
    """Measure what the card can do at best."""
    side = 64 if bench.tiny else _PEAK_SIDE
    a = torch.randn(side, side, device=bench.device, dtype=torch.bfloat16)

    def multiply() -> None:
        for _ in range(_PEAK_REPEATS):
            torch.mm(a, a)

    multiply()
    seconds = bench.seconds(multiply)
    bench.add("matrix_peak", "eager", 2e-12 * side**3 * _PEAK_REPEATS / seconds)


def training(network: str, bench: Bench) -> None:
    """Measure ``train_locally`` at the preset's batch, with everything that a step has."""
    preset = bench.preset(network)
    images = preset.images(1000).to(bench.device)
    schedule = NoiseSchedule.from_config(preset.model.noise, bench.device)
    for variant in bench.variants:
        unet = preset.network(bench.device)
        if variant == "compiled":
            compile_network(unet)
        settings = compiled(preset, variant).training
        train = partial(train_locally, unet, images, schedule=schedule, config=settings)
        train(work=LocalWork(2, 0.0, 1.0, seed=0))
        seconds = bench.seconds(partial(train, work=LocalWork(preset.steps, 0.0, 1.0, seed=1)))
        bench.add(f"training_{network}", variant, preset.steps * settings.batch_size / seconds)


def clients(bench: Bench) -> None:
    """Measure ten clients with a tenth of a batch each: as one program, and one by one."""
    for variant in bench.variants:
        preset = compiled(bench.preset("small", _CLIENT_BATCH), variant)
        images = stacked_clients.CLIENTS * preset.steps * preset.training.batch_size
        work = stacked_clients.stacked(preset, bench.device)
        work()
        bench.add("clients_stacked", variant, images / bench.seconds(work))
        if variant == "eager":
            work = stacked_clients.one_after_another(preset, bench.device)
            work()
            bench.add("clients_alone", variant, images / bench.seconds(work))


def sampling(network: str, bench: Bench) -> None:
    """Measure DDIM in bf16; fifty thousand images are extrapolated."""
    preset = bench.preset(network)
    batch, steps = (4, 2) if bench.tiny else (_SAMPLING_BATCH, _DDIM_STEPS)
    config = SamplingConfig.model_validate(
        {"sampler": "ddim", "num_steps": steps, "batch_size": batch, "precision": "bf16"}
    )
    for variant in bench.variants:
        unet = preset.network(bench.device)
        if variant == "compiled":
            compile_network(unet)

        def draw(unet: torch.nn.Module = unet) -> None:
            shape, seeds = preset.image_shape, range(batch)
            list(sample_images(unet, preset.model.noise, config, shape, seeds, bench.device))

        draw()
        passes = batch * steps / bench.seconds(draw)
        bench.add(f"sampling_{network}", variant, passes)
        bench.add(f"samples_{network}", variant, _SAMPLES * _DDIM_STEPS / passes)


def whole_round(bench: Bench) -> None:
    """Measure a round of ten clients against one batch of the same images."""
    for variant in bench.variants:
        preset = compiled(bench.preset("small", _CLIENT_BATCH), variant)
        with tempfile.TemporaryDirectory(prefix="gpu_check_") as folder:
            ratio = measure_round(preset, bench.device, Path(folder), bench.alone)
        bench.add("round", variant, ratio)


def compiled(preset: Preset, variant: str) -> Preset:
    """Return ``preset`` with its training compiled or not."""
    update = {"compile": variant == "compiled"}
    return replace(preset, training=preset.training.model_copy(update=update))


MEASURES: dict[str, Callable[[Bench], None]] = {
    "matrix_peak": matrix_peak,
    "training_small": partial(training, "small"),
    "clients": clients,
    "sampling_large": partial(sampling, "large"),
    "training_large": partial(training, "large"),
    "round": whole_round,
    "sampling_small": partial(sampling, "small"),
}


def main() -> None:
    """Measure one; RuntimeError if the compiled figure is none because compiling failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--findings", type=Path, required=True)
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    variants = ("eager", "compiled") if asked.compile else ("eager",)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    bench = Bench(asked.device, asked.tiny, variants, Findings(asked.findings), asked.lock)
    with WarningsKept() as kept:
        MEASURES[asked.measure](bench)
    for line in kept.lines:
        if "torch.compile failed" in line:
            raise RuntimeError(f"what is called compiled is eager: {line}")


if __name__ == "__main__":
    main()
