"""``sampling.compile``: by the network passes of the whole plan."""

from pathlib import Path
from typing import Any

import pytest
import torch

from phoenix_pipeline.arms.sampling import Drawing
from phoenix_pipeline.config import SamplingConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def compiles(
    plan: dict[int, int], device: torch.device, family: str = "diffusion", **at: Any
) -> bool:
    sampling = SamplingConfig.model_validate({"num_steps": 50, "batch_size": 500, **at})
    metadata: Any = {"settings": {"model": {"family": family}}}
    return Drawing(Path(), metadata, sampling, plan, [], None, device).compiles()


@pytest.mark.parametrize(
    ("plan", "device", "family", "expected"),
    [
        ({-1: 10_000}, CUDA, "diffusion", True),  # 20 batches x 50 steps
        ({-1: 9_500}, CUDA, "diffusion", False),
        ({0: 4_501, 1: 4_501}, CUDA, "diffusion", True),  # 10 batches each
        ({-1: 10_000_000}, CPU, "diffusion", False),
        ({-1: 10_000_000}, CUDA, "dcgan", False),
    ],
)
def test_auto(plan: dict[int, int], device: torch.device, family: str, expected: bool) -> None:
    assert compiles(plan, device, family) is expected


@pytest.mark.parametrize("given", [True, False])
def test_what_is_set_is_kept(given: bool) -> None:
    assert compiles({-1: 1}, CPU, compile=given) is given
