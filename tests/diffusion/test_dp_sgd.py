import pytest
import torch
from torch import Tensor, nn

from phoenix_pipeline.config import DpSgdConfig, NoiseConfig, TrainingConfig, UNetConfig
from phoenix_pipeline.diffusion.dp_sgd import per_image_gradients, set_private_gradients
from phoenix_pipeline.diffusion.noise import Batch, NoiseSchedule
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.optimization.work import LocalWork

# Attention leaves its output in NHWC layout, which per-sample gradients must bear.
UNET = UNetConfig(block_out_channels=(8, 8), attention_resolutions=(4,), norm_num_groups=4)
BATCH = 3


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return build_unet(UNET, 1, 8, seed=0).train()


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, target = torch.randn(2, BATCH, 1, 8, 8, generator=generator)
    return x, torch.tensor([3, 500, 999]), target


def config(clip_norm: float = 1e9, **options: object) -> TrainingConfig:
    private = DpSgdConfig(enabled=True, clip_norm=clip_norm, noise_multiplier=0.0)
    return TrainingConfig(**{"batch_size": BATCH, "dp_sgd": private, **options})


def ordinary_gradients(unet: nn.Module, x: Tensor, t: Tensor, target: Tensor) -> dict[str, Tensor]:
    unet.zero_grad(set_to_none=True)
    nn.functional.mse_loss(unet(x, t, return_dict=False)[0], target).backward()
    return {name: p.grad.clone() for name, p in unet.named_parameters()}


def norm_of(gradients: dict[str, Tensor]) -> float:
    return torch.cat([g.flatten() for g in gradients.values()]).norm().item()


def private_gradients(
    unet: nn.Module, batch: tuple[Tensor, ...], clip_norm: float, noise: float, expected: float
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    set_private_gradients(unet, Batch(*batch), config(clip_norm), noise, expected, generator)
    return {name: p.grad.clone() for name, p in unet.named_parameters()}


def test_gradients_of_each_image_are_those_of_a_batch_of_one(unet: nn.Module, batch: tuple) -> None:
    gradients, losses = per_image_gradients(unet, Batch(*batch), config())
    for i in range(BATCH):
        alone = ordinary_gradients(unet, *(part[i : i + 1] for part in batch))
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient[i], alone[name], rtol=1e-3, atol=1e-5)
    assert losses.shape == (BATCH,)


def test_a_huge_norm_without_noise_is_the_ordinary_gradient(unet: nn.Module, batch: tuple) -> None:
    private = private_gradients(unet, batch, 1e9, 0.0, BATCH)
    for name, gradient in ordinary_gradients(unet, *batch).items():
        torch.testing.assert_close(private[name], gradient, rtol=1e-3, atol=1e-5)


def test_the_loss_is_the_sum_over_the_images_by_the_expected_number(
    unet: nn.Module, batch: tuple
) -> None:
    _, losses = per_image_gradients(unet, Batch(*batch), config())
    generator = torch.Generator().manual_seed(2)
    loss = set_private_gradients(unet, Batch(*batch), config(), 1.0, 7, generator)
    torch.testing.assert_close(loss, losses.sum() / 7)


def test_one_image_moves_the_sum_by_the_norm_at_most(unet: nn.Module, batch: tuple) -> None:
    x, t, target = batch
    hostile = (torch.cat([x, 1e3 * x[:1]]), torch.cat([t, t[:1]]), torch.cat([target, 1e6 * x[:1]]))
    without = private_gradients(unet, batch, 0.01, 1.5, expected=7)
    with_it = private_gradients(unet, hostile, 0.01, 1.5, expected=7)
    change = {name: with_it[name] - without[name] for name in without}
    assert norm_of(change) == pytest.approx(0.01 / 7, rel=1e-3)


def test_an_empty_batch_is_noise_of_the_stated_deviation(unet: nn.Module, batch: tuple) -> None:
    empty = tuple(part[:0] for part in batch)
    noise = torch.cat([g.flatten() for g in private_gradients(unet, empty, 2.0, 3.0, 4).values()])
    assert noise.std().item() == pytest.approx(2.0 * 3.0 / 4, rel=0.05)


def test_gradients_are_taken_in_parts_with_the_same_sum(
    unet: nn.Module, batch: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = private_gradients(unet, batch, 0.1, 1.0, BATCH)
    monkeypatch.setattr("phoenix_pipeline.diffusion.dp_sgd._GRADIENT_VALUES", 1)
    parts = private_gradients(unet, batch, 0.1, 1.0, BATCH)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_training_is_seeded_and_counts_expected_images(dropout: float) -> None:
    told = config(1.0, batch_size=4, lr_warmup=0.0)
    images = torch.randint(256, (10, 1, 8, 8), dtype=torch.uint8)
    schedule = NoiseSchedule.from_config(NoiseConfig(), "cpu")
    ends = []
    for seed in (5, 5, 6):
        small = UNetConfig(
            block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4, dropout=dropout
        )
        network = build_unet(small, 1, 8, seed=0)
        work = LocalWork(3, 0.0, 1.0, seed, noise_multiplier=1.0)
        result = train_locally(network, images, work, schedule, told)
        assert result.images_trained == 12
        ends.append(network.conv_out.weight.detach().clone())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_training_without_a_noise_multiplier_is_refused(unet: nn.Module) -> None:
    schedule = NoiseSchedule.from_config(NoiseConfig(), "cpu")
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(SettingsError, match="no noise multiplier"):
        train_locally(unet, images, LocalWork(1, 0.0, 1.0, 1), schedule, config())
