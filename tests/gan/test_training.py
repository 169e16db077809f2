"""Local training agrees with a plain loop, repeats bit for bit, and continues from kept state."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from phoenix_pipeline.config import DcganConfig, ImagesConfig, ModelConfig, TrainingConfig
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.families.dcgan import DcganFamily
from phoenix_pipeline.gan.dcgan import Dcgan, build_dcgan
from phoenix_pipeline.gan.sampling import sample_images
from phoenix_pipeline.gan.training import train_locally
from phoenix_pipeline.images import read_images
from phoenix_pipeline.optimization.work import ClientTask, LocalResult, LocalWork, draw_batches

NewGan = Callable[..., Dcgan]
CONFIG = DcganConfig(latent_dim=5, base_channels=4)
RATE = 2e-3
DIGITS = Path(__file__).parents[2] / "data" / "01_raw" / "digits" / "train.parquet"


def work(steps: int, seed: int = 0) -> LocalWork:
    return LocalWork(steps, progress_start=0.0, progress_end=1.0, seed=seed)


def settings(**options: Any) -> TrainingConfig:
    plain: dict[str, Any] = {
        "batch_size": 4,
        "lr_schedule": "constant",
        "lr_warmup": 0.0,
        "max_grad_norm": None,
    }
    plain["learning_rate"] = RATE
    return TrainingConfig.model_validate({**plain, "learning_rate": RATE, **options})


def train(
    gan: Dcgan,
    images: Tensor,
    job: LocalWork,
    state: dict[str, Tensor] | None = None,
    **options: Any,
) -> LocalResult:
    return train_locally(gan, images, job, CONFIG, settings(**options), state)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


def reference_rounds(gan: Dcgan, images: Tensor, jobs: Iterable[LocalWork]) -> list[float]:
    """Train as the paper's algorithm is usually written, with one Adam for all rounds."""
    adams = [
        torch.optim.Adam(network.parameters(), lr=RATE, betas=(0.5, 0.999))
        for network in (gan.generator, gan.discriminator)
    ]
    means = []
    for job in jobs:
        losses, random = [], torch.Generator().manual_seed(job.seed)
        for indices in draw_batches(len(images), 4, job.steps, random):
            real = images[indices] / 127.5 - 1.0
            fake = gan.generator(torch.randn(4, 5, 1, 1, generator=random))
            gan.discriminator.zero_grad()
            cross_entropy(gan.discriminator(real), torch.ones(4)).backward()
            cross_entropy(gan.discriminator(fake.detach()), torch.zeros(4)).backward()
            adams[1].step()
            gan.generator.zero_grad()
            loss = cross_entropy(gan.discriminator(fake), torch.ones(4))
            loss.backward()
            adams[0].step()
            losses.append(loss.item())
        means.append(float(np.mean(losses)))
    return means


def test_rounds_with_kept_state_equal_a_plain_uninterrupted_loop(
    new_gan: NewGan, images: Tensor
) -> None:
    gan, plain, state = new_gan(), new_gan(), {}
    jobs = [work(3, seed=7), work(2, seed=8)]
    results = [train(gan, images, job, state) for job in jobs]
    assert [r.loss for r in results] == pytest.approx(
        reference_rounds(plain, images, jobs), rel=1e-4
    )
    assert [r.images_trained for r in results] == [12, 8]
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(gan.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


def test_state_is_named_after_both_networks(new_gan: NewGan, images: Tensor) -> None:
    gan, state = new_gan(), {}
    train(gan, images, work(3), state)
    names = [name for name, _ in gan.named_parameters()]
    moments = ("exp_avg", "exp_avg_sq", "step")
    assert state.keys() == {f"{moment}.{name}" for name in names for moment in moments}
    assert {state[f"step.{name}"].item() for name in names} == {3.0}


def test_kept_state_differs_from_a_reset_one(new_gan: NewGan, images: Tensor) -> None:
    kept, copied, reset = new_gan(), new_gan(), new_gan()
    state: dict[str, Tensor] = {}
    train(kept, images, work(3), state)
    for gan in (copied, reset):
        gan.load_state_dict(kept.state_dict())
    copy = {name: tensor.clone() for name, tensor in state.items()}
    for gan, moments in ((kept, state), (copied, copy), (reset, None)):
        train(gan, images, work(2, seed=1), moments)
    assert same_weights(kept, copied)
    for network in ("generator", "discriminator"):
        assert not same_weights(kept.get_submodule(network), reset.get_submodule(network))


OPTIONS: list[dict[str, Any]] = [
    {"horizontal_flip": True},
    {"weight_decay": 0.5},
    {"max_grad_norm": 1e-3, "batch_size": 3},
    {"precision": "bf16"},
    {"lr_schedule": "cosine"},
    {"lr_warmup": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_setting_is_honoured_and_repeats(
    new_gan: NewGan, images: Tensor, options: dict[str, Any]
) -> None:
    first, again, without, other = new_gan(), new_gan(), new_gan(), new_gan()
    without_options = {key: value for key, value in options.items() if key == "batch_size"}
    losses = [train(gan, images, work(3), **options).loss for gan in (first, again)]
    train(without, images, work(3), **without_options)
    train(other, images, work(3, seed=1), **options)
    assert losses[0] == losses[1]
    assert same_weights(first, again)
    for network in ("generator", "discriminator"):
        trained = first.get_submodule(network)
        assert not same_weights(trained, without.get_submodule(network))
        assert not same_weights(trained, other.get_submodule(network))
        assert all(p.dtype == torch.float32 for p in trained.parameters())


def test_channels_last_changes_the_layout_only(new_gan: NewGan, images: Tensor) -> None:
    rows, columns = new_gan(), new_gan().to(memory_format=torch.channels_last)
    expected = train(rows, images, work(3)).loss
    assert train(columns, images, work(3), channels_last=True).loss == pytest.approx(expected, 1e-4)


def test_each_network_descends_its_own_loss_only(new_gan: NewGan, images: Tensor) -> None:
    before, frozen, moved = new_gan(), new_gan(), new_gan()
    done = LocalWork(2, progress_start=1.0, progress_end=1.0, seed=0)
    train(frozen, images, done, lr_schedule="cosine")  # the learning rate is 0 at the end
    train(moved, images, work(2))
    for name, parameter in before.named_parameters():
        torch.testing.assert_close(frozen.get_parameter(name), parameter, atol=1e-9, rtol=0.0)
        assert not torch.equal(moved.get_parameter(name), parameter), name


def test_global_generator_is_left_alone(new_gan: NewGan, images: Tensor) -> None:
    before = torch.random.get_rng_state()
    train(new_gan(), images, work(2), horizontal_flip=True)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_non_finite_loss_names_network_and_step(
    new_gan: NewGan, images: Tensor, network: str
) -> None:
    gan = new_gan()
    with torch.no_grad():
        next(gan.get_submodule(network).parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"loss became nan at step 1 of 2; lower training"):
        train(gan, images, work(2))


def test_divergence_is_found_at_a_later_step(new_gan: NewGan, images: Tensor) -> None:
    with pytest.raises(TrainingError, match="loss became nan at step 2 of 3; lower"):
        train(new_gan(), images, work(3), learning_rate=1e30)


def test_a_short_run_moves_towards_the_digits() -> None:
    digits = read_images(DIGITS, ImagesConfig()).images
    model = ModelConfig(family="dcgan", dcgan=DcganConfig(latent_dim=16, base_channels=16))
    gan = build_dcgan(model.dcgan, 1, 8, seed=0)

    def distance_of_means() -> float:
        drawn = np.concatenate(list(sample_images(gan, 200, range(200), "cpu")))
        return float(np.abs(drawn.mean(0) - digits.mean(0)).mean())

    untrained = distance_of_means()
    job, training = work(150), TrainingConfig(batch_size=32, lr_schedule="constant")
    DcganFamily().train_locally(gan, ClientTask(torch.from_numpy(digits), job), model, training)
    assert distance_of_means() < 0.35 * untrained
