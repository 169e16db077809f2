"""What a batch is made of: weights of its losses, and which noise goes to which image."""

from itertools import permutations
from typing import Any

import pytest
import torch

from phoenix_pipeline.config import ArmSettings, DpSgdConfig, NoiseConfig, TrainingConfig
from phoenix_pipeline.diffusion.batches import assign_noise, draw_batch
from phoenix_pipeline.diffusion.dp_sgd import per_image_gradients
from phoenix_pipeline.diffusion.noise import Batch, NoiseSchedule
from phoenix_pipeline.diffusion.stacked import train_stacked
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.optimization.work import ClientTask, LocalWork

SCHEDULE = NoiseSchedule.from_config(NoiseConfig(), "cpu")


def settings(**options: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"batch_size": 4, "lr_warmup": 0.0, **options})


def test_the_noise_of_a_batch_goes_where_the_distances_add_up_to_the_least() -> None:
    generator = torch.Generator().manual_seed(1)
    x_0, epsilon = torch.randn(2, 5, 1, 2, 2, generator=generator)

    def total(order: Any) -> float:
        return float((x_0 - epsilon[list(order)]).flatten(1).norm(dim=1).sum())

    found = assign_noise(x_0, epsilon).tolist()
    assert sorted(found) == list(range(5))
    assert total(found) == pytest.approx(min(map(total, permutations(range(5)))))


def test_noise_by_hand() -> None:
    x_0 = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    epsilon = torch.tensor([0.9, -0.8]).view(2, 1, 1, 1)
    assert assign_noise(x_0, epsilon).tolist() == [1, 0]


def draw(images: torch.Tensor, **options: Any) -> Batch:
    generator = torch.Generator().manual_seed(7)
    return draw_batch(images[:12], SCHEDULE, settings(**options), None, generator)


def test_immiscible_noise_is_the_same_set_at_the_same_timesteps(images: torch.Tensor) -> None:
    plain, near = draw(images), draw(images, noise_assignment="immiscible")
    assert torch.equal(near.t, plain.t)
    signal, noise = SCHEDULE.signal[plain.t], SCHEDULE.noise[plain.t]

    def epsilons(batch: Batch) -> torch.Tensor:
        # From v = signal epsilon - noise x_0 and x_t = signal x_0 + noise epsilon.
        return (
            signal.view(-1, 1, 1, 1) * batch.target + noise.view(-1, 1, 1, 1) * batch.x_t
        ).flatten(1)

    first, second = epsilons(plain), epsilons(near)
    distances = torch.cdist(first, second)
    assert float(distances.min(dim=1).values.max()) < 1e-3
    assert not torch.allclose(first, second, atol=1e-2)


def test_weighted_errors_are_weighted_by_image() -> None:
    predicted, target = torch.tensor([3.0, 1.0]).view(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)
    weighted = Batch(target, torch.tensor([0, 1]), target, weights=torch.tensor([0.5, 2.0]))
    assert float(weighted.mean_error(predicted)) == pytest.approx((0.5 * 9.0 + 2.0) / 2)
    assert float(weighted._replace(weights=None).mean_error(predicted)) == pytest.approx(5.0)


def test_weighted_gradients_image_by_image_are_those_of_the_weighted_loss(
    images: torch.Tensor, new_unet: Any
) -> None:
    unet, batch = new_unet(), draw(images, loss_weighting="min_snr")
    gradients, losses = per_image_gradients(unet, batch, settings())
    batch.error_of(unet).backward()
    for name, weight in unet.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(gradients[name].mean(0), weight.grad, rtol=1e-3, atol=1e-5)
    assert losses.shape == (12,)


@pytest.mark.parametrize(
    "options", [{"loss_weighting": "min_snr"}, {"noise_assignment": "immiscible"}]
)
def test_stacked_clients_end_where_they_end_alone(
    images: torch.Tensor, new_unet: Any, options: dict[str, Any]
) -> None:
    works = [LocalWork(3, 0.0, 1.0, seed) for seed in (5, 6)]
    config, plain = settings(**options), settings()
    unet = new_unet()
    tasks = [
        ClientTask(images, work, weights={n: p.clone() for n, p in unet.state_dict().items()})
        for work in works
    ]
    train_stacked(unet, tasks, SCHEDULE, config)
    for task, work in zip(tasks, works, strict=True):
        alone, without = new_unet(), new_unet()
        train_locally(alone, images, work, SCHEDULE, config)
        train_locally(without, images, work, SCHEDULE, plain)
        name = "conv_in.weight"
        expected = alone.state_dict()[name]
        torch.testing.assert_close(task.weights[name], expected, rtol=1e-3, atol=2e-4)
        assert float((without.state_dict()[name] - expected).abs().max()) > 4e-4


def test_what_does_not_apply_is_refused() -> None:
    with pytest.raises(ValueError, match=r"min_snr_gamma is 2, but loss_weighting is none"):
        settings(min_snr_gamma=2.0)
    private = DpSgdConfig(enabled=True, noise_multiplier=1.0)
    with pytest.raises(ValueError, match=r"one image changes the gradients of the others"):
        settings(noise_assignment="immiscible", dp_sgd=private)
    assert ArmSettings(training=settings(loss_weighting="min_snr", dp_sgd=private))
