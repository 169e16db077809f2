"""A memory layout changes speed, never weights: moments, gradients and layers follow the parameter.

PyTorch's fused AdamW pairs weights, gradients and moments by their place in memory. On a CPU it
does not look whether their layouts agree.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.config import (
    DcganConfig,
    DpSgdConfig,
    ModelConfig,
    TrainingConfig,
    UNetConfig,
)
from phoenix_pipeline.families import family_of
from phoenix_pipeline.optimization import adam_state
from phoenix_pipeline.optimization.work import ClientTask, LocalWork

UNET = UNetConfig(block_out_channels=(8, 16), attention_resolutions=(4,), norm_num_groups=4)
MODELS = {
    "diffusion": ModelConfig(unet=UNET),
    "dcgan": ModelConfig(family="dcgan", dcgan=DcganConfig(latent_dim=5, base_channels=4)),
}
# In float32 only the order of sums differs. Rounding to 8 bits of bf16 is not the same in both
# layouts, and AdamW turns the sign of a small gradient into a whole step: most weights must agree.
TOLERANCE = {"fp32": 1e-5, "bf16": 4e-4}


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (12, 3, 8, 8), generator=generator, dtype=torch.uint8)


def train(family: str, images: Tensor, tmp_path: Path, rounds: int, **options: Any) -> nn.Module:
    """Return the network after ``rounds`` with moments that went through a file in between."""
    model = MODELS[family]
    plain = {"batch_size": 6, "learning_rate": 1e-3, "lr_warmup": 0.0, "lr_schedule": "constant"}
    training = TrainingConfig.model_validate({**plain, **options})
    verbs = family_of(model)
    network = verbs.build(model, 3, 8, seed=1)
    if training.channels_last:
        network.to(memory_format=torch.channels_last)
    kept: dict[str, Tensor] = {}
    for number in range(rounds):
        work = LocalWork(3, 0.0, 1.0, seed=number, noise_multiplier=1.0)
        moments = kept if training.optimizer_state == "keep" else None
        verbs.train_locally(network, ClientTask(images, work, moments), model, training)
        if kept:
            save_tensors(tmp_path / "state.safetensors", kept, {})
            kept, _ = load_tensors(tmp_path / "state.safetensors")
    return network


# Nine steps of a game amplify the rounding of bf16 beyond any tolerance: the DCGAN runs in fp32.
@pytest.mark.parametrize(
    ("family", "precision"), [("diffusion", "fp32"), ("diffusion", "bf16"), ("dcgan", "fp32")]
)
@pytest.mark.parametrize("moments", ["keep", "reset"])
def test_channels_last_gives_the_weights_of_a_contiguous_run(
    family: str, precision: str, moments: str, images: Tensor, tmp_path: Path
) -> None:
    options = {"precision": precision, "optimizer_state": moments}
    rows = train(family, images, tmp_path, 3, **options).state_dict()
    columns = train(family, images, tmp_path, 3, channels_last=True, **options).state_dict()
    apart = torch.cat([(rows[n].float() - columns[n].float()).abs().flatten() for n in rows])
    # Nine steps of 1e-3: weights that were moved by another's moments are thousandths apart.
    assert apart.median().item() < TOLERANCE[precision]


def test_private_gradients_have_the_layout_of_their_weights(images: Tensor, tmp_path: Path) -> None:
    private = DpSgdConfig(enabled=True, clip_norm=1.0, noise_multiplier=1.0)
    networks = [
        train("diffusion", images, tmp_path, 1, dp_sgd=private, channels_last=channels_last)
        for channels_last in (False, True)
    ]
    for parameter in networks[1].parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()
    rows, columns = (network.state_dict() for network in networks)
    apart = torch.cat([(rows[n] - columns[n]).abs().flatten() for n in rows])
    assert apart.median().item() < TOLERANCE["fp32"]


@pytest.mark.parametrize("family", MODELS)
def test_moments_are_restored_in_the_layout_of_their_weights(
    family: str, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    like: Callable[[Tensor, Tensor], Tensor] = adam_state.laid_out_like

    def watch(parameter: Tensor, values: Tensor) -> Tensor:
        made = like(parameter, values)
        assert torch.equal(made, values)
        restored.append((made.stride(), parameter.stride()))
        return made

    monkeypatch.setattr(adam_state, "laid_out_like", watch)
    train(family, images, tmp_path, 2, channels_last=True)
    assert len(restored) == 2 * sum(
        1 for _ in family_of(MODELS[family]).build(MODELS[family], 3, 8, seed=1).parameters()
    )
    assert all(made == own for made, own in restored)
