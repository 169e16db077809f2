"""Local training against the bare loop; on a GPU also the share of its matrix peak."""

from functools import partial

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bare_loop import train_bare
from benchmarks.harness import Options, Row, compare, machine, timed
from benchmarks.presets import Preset, presets
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.optimization.work import LocalWork

GOAL = 0.97
_IMAGES = 500
_PEAK_SIDE = 8192
_PEAK_REPEATS = 20


def run(options: Options) -> list[Row]:
    """Compare ``train_locally`` with the bare loop, both with one network that is kept."""
    rows = []
    for preset in presets(options):
        ours, bare = (preset.network(options.device) for _ in range(2))
        if preset.training.compile is True:
            ours.compile()
            bare.compile()
        images = preset.images(_IMAGES).to(options.device)
        tables = NoiseSchedule.from_config(preset.model.noise, options.device)
        work = LocalWork(preset.steps, 0.0, 1.0, seed=0)
        row = compare(
            f"local_training_{preset.name}",
            "train_locally against the tightest bare loop, same U-Net, batch and precision",
            partial(train_locally, ours, images, work, tables, preset.training),
            partial(train_bare, bare, images, preset, tables),
            options,
            GOAL,
            images=preset.steps * preset.training.batch_size,
        )
        rows.append(row)
        if options.device.startswith("cuda"):
            rows.append(_matrix_share(preset, row, options))
    return rows


def _matrix_share(preset: Preset, row: Row, options: Options) -> Row:
    """Return the share of the card's bf16 matrix peak, which a large product measures."""
    throughput = row.details["images"] / row.details["seconds"]
    flops = flops_per_image(preset.network(options.device), preset)
    a = torch.randn(_PEAK_SIDE, _PEAK_SIDE, device=options.device, dtype=torch.bfloat16)

    def multiply() -> None:
        for _ in range(_PEAK_REPEATS):
            torch.mm(a, a)

    multiply()
    peak = 2 * _PEAK_SIDE**3 * _PEAK_REPEATS / timed(multiply, options)
    return Row(
        f"matrix_peak_share_{preset.name}",
        f"training's multiply-adds per second over those of a {_PEAK_SIDE} x {_PEAK_SIDE} bf16 "
        "product on this card",
        throughput * flops / peak,
        machine=machine(options.device),
        details={
            "images_per_second": throughput,
            "flops_per_image": flops,
            "peak_flops_per_second": peak,
        },
    )


def flops_per_image(unet: nn.Module, preset: Preset) -> float:
    """Return the floating-point operations of one training step per image, forward and back."""
    device = next(unet.parameters()).device
    x_t = torch.randn(2, *preset.image_shape, device=device)
    t = torch.zeros(2, dtype=torch.int64, device=device)
    with FlopCounterMode(display=False) as counter:
        unet(x_t, t, return_dict=False)[0].square().mean().backward()
    return counter.get_total_flops() / 2
