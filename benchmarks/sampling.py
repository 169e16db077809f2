"""Sampling against the pipelines of diffusers, as their documentation calls them."""

from collections.abc import Callable

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline

from benchmarks.harness import Options, Row, Work, compare
from benchmarks.presets import Preset, presets
from phoenix_pipeline.config import SamplingConfig
from phoenix_pipeline.diffusion.noise import build_scheduler
from phoenix_pipeline.diffusion.sampling import sample_images

_GOALS = {"cpu": 1.3, "cuda": 2.0}
_STEPS = {"ddim": 50, "ddpm": 100}
# Fewer, spaced as in diffusers, would start where images still show.
_QUICK_STEPS = 20
_BATCH = 64
_GPU_BATCH = 500


def run(options: Options) -> list[Row]:
    """Compare DDIM and DDPM: same network, number of steps and batch; uint8 against PIL images."""
    on_gpu = options.device.startswith("cuda")
    batch = _GPU_BATCH if on_gpu else 4 if options.quick else _BATCH
    rows = []
    for preset in presets(options):
        for sampler, steps in _STEPS.items():
            used = _QUICK_STEPS if options.quick else steps
            rows.append(
                compare(
                    f"sampling_{sampler}_{preset.name}",
                    f"{used} steps of a batch of {batch} against diffusers' "
                    f"{sampler.upper()}Pipeline",
                    _ours(preset, sampler, used, batch, options),
                    _pipeline(preset, sampler, used, batch, options),
                    options,
                    _GOALS["cuda" if on_gpu else "cpu"],
                    images=batch,
                    threads=torch.get_num_threads(),
                )
            )
    return rows


def _ours(preset: Preset, sampler: str, steps: int, batch: int, options: Options) -> Work:
    config = SamplingConfig.model_validate(
        {
            "sampler": sampler,
            "num_steps": steps,
            "batch_size": batch,
            "timestep_spacing": "leading",
            "precision": preset.training.precision,
        }
    )
    network = preset.network(options.device)
    if preset.training.compile is True:
        network.compile()
    noise, shape = preset.model.noise, preset.image_shape
    return lambda: list(sample_images(network, noise, config, shape, range(batch), options.device))


def _pipeline(preset: Preset, sampler: str, steps: int, batch: int, options: Options) -> Work:
    trained_with = build_scheduler(preset.model.noise)
    build: dict[str, Callable[[], DDIMPipeline | DDPMPipeline]] = {
        "ddim": lambda: DDIMPipeline(
            preset.network("cpu"), DDIMScheduler.from_config(trained_with.config)
        ),
        "ddpm": lambda: DDPMPipeline(preset.network("cpu"), trained_with),
    }
    pipeline = build[sampler]().to(options.device)
    pipeline.set_progress_bar_config(disable=True)
    return lambda: pipeline(batch_size=batch, num_inference_steps=steps).images
