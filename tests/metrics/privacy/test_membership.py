from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from phoenix_pipeline.config import ModelConfig, NoiseConfig, PrivacyAuditConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.gan.dcgan import build_dcgan
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.privacy.attack import judge_attack
from phoenix_pipeline.metrics.privacy.membership import (
    denoising_loss,
    loss_timesteps,
    membership_scores,
    pia_distance,
    predictor,
    secmi_error,
    secmi_timesteps,
)

AUDIT = PrivacyAuditConfig(batch_size=64, timesteps=5)


def test_a_memorised_set_is_found(
    memorised: tuple[np.ndarray, nn.Module],
    digits: tuple[ImageSet, ImageSet],
    model: ModelConfig,
) -> None:
    images, network = memorised
    members = membership_scores(network, model, images, AUDIT, seed=0)
    held_out = membership_scores(network, model, digits[1].images, AUDIT, seed=0)
    assert members.keys() == {"loss", "pia", "secmi"}
    for attack in ("loss", "pia"):
        result = judge_attack(members[attack], held_out[attack])
        assert result.auc > 0.9, attack
        assert result.tpr_at_1_percent_fpr > 0.3, attack
    # SecMI, the weakest of them on small networks, does better than chance already.
    assert judge_attack(members["secmi"], held_out["secmi"]).auc_p_value < 0.02


@pytest.mark.slow
def test_secmi_finds_what_is_known_by_heart_and_nothing_else(
    train_by_heart: Callable[..., nn.Module],
    digits: tuple[ImageSet, ImageSet],
    model: ModelConfig,
) -> None:
    images = digits[0].images
    network = train_by_heart(images[:16], 0, steps=800)
    parts = (images[:16], images[16:316], digits[1].images)
    known, other, held_out = (
        membership_scores(network, model, part, AUDIT, seed=0)["secmi"] for part in parts
    )
    found, wrong = judge_attack(known, held_out), judge_attack(other, held_out)
    assert found.auc > 0.9 and found.tpr_at_1_percent_fpr > 0.3
    assert abs(wrong.auc - 0.5) < 3 * wrong.auc_standard_error


def test_no_wolf_is_cried_over_images_that_the_model_never_saw(
    memorised: tuple[np.ndarray, nn.Module],
    untrained: nn.Module,
    digits: tuple[ImageSet, ImageSet],
    model: ModelConfig,
) -> None:
    unseen, held_out = digits[0].images[16:316], digits[1].images
    for network in (memorised[1], untrained):
        a = membership_scores(network, model, unseen, AUDIT, seed=0)
        b = membership_scores(network, model, held_out, AUDIT, seed=0)
        for attack in a:
            result = judge_attack(a[attack], b[attack])
            assert abs(result.auc - 0.5) < 3 * result.auc_standard_error, attack
            assert result.tpr_at_1_percent_fpr < 0.05


def test_false_alarms_are_as_rare_as_they_should_be(
    memorised: tuple[np.ndarray, nn.Module],
    digits: tuple[ImageSet, ImageSet],
    model: ModelConfig,
) -> None:
    unseen = np.concatenate([digits[0].images[16:], digits[1].images])
    scores = membership_scores(memorised[1], model, unseen, AUDIT, seed=0)
    for attack, values in scores.items():
        alarms = np.zeros(2)
        for seed in range(100):
            order = np.random.default_rng(seed).permutation(values)
            result = judge_attack(order[:144], order[144:444])
            alarms += result.auc_p_value < 0.05, result.tpr_p_value < 0.05
        # Of 100 alarms at 5 %, 12 or more have a probability below 0.005.
        assert (alarms < 12).all(), (attack, alarms)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_whatever_was_memorised_is_found_and_nothing_else(
    seed: int,
    train_by_heart: Callable[[np.ndarray, int], nn.Module],
    digits: tuple[ImageSet, ImageSet],
    model: ModelConfig,
) -> None:
    images = digits[0].images[16 * seed :]
    network = train_by_heart(images[:16], seed)
    parts = (images[:16], images[16:316], digits[1].images)
    known, other, held_out = (
        membership_scores(network, model, part, AUDIT, seed=seed) for part in parts
    )
    for attack in known:
        found = judge_attack(known[attack], held_out[attack])
        wrong = judge_attack(other[attack], held_out[attack])
        if attack != "secmi":
            assert found.auc_low > 0.8, attack
            assert found.auc_p_value < 1e-4 and found.tpr_p_value < 0.01, attack
        # Twenty-four alarms are possible over the seeds; 0.05 / 24.
        assert min(wrong.auc_p_value, wrong.tpr_p_value) > 0.002, attack


def test_a_score_depends_on_its_image_alone(
    untrained: nn.Module, digits: tuple[ImageSet, ImageSet], model: ModelConfig
) -> None:
    images = digits[0].images[:40]
    untrained.train()
    one = membership_scores(untrained, model, images, AUDIT, seed=0)
    small = AUDIT.model_copy(update={"batch_size": 7})
    other = membership_scores(untrained, model, images[::-1], small, seed=0)
    assert untrained.training
    for attack in one:
        np.testing.assert_allclose(one[attack], other[attack][::-1], rtol=1e-4)


class Constant(nn.Module):
    """Predicts the same for every image."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x_t: Tensor, t: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        return (self.value.expand_as(x_t),)


def test_losses_of_a_known_prediction() -> None:
    noise = NoiseConfig(num_train_timesteps=10, prediction_type="epsilon")
    schedule = NoiseSchedule.from_config(noise, "cpu")
    noises = [torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), 1.0)]
    loss = denoising_loss(
        predictor(Constant(1.0)), schedule, torch.zeros(5, 1, 2, 2), [1, 4], noises
    )
    # (1 - 3)^2 and (1 - 1)^2
    assert loss.tolist() == [2.0] * 5


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_pia_distance_of_a_known_prediction(kind: str) -> None:
    schedule = NoiseSchedule.from_config(
        NoiseConfig(num_train_timesteps=10, prediction_type=kind), "cpu"
    )
    x_0, step = torch.full((1, 1, 2, 2), 0.5), 6
    distance = float(pia_distance(predictor(Constant(2.0)), schedule, x_0, step).detach())
    if kind == "epsilon":
        assert distance == 0.0
        return
    if kind == "flow":
        # With velocity 2 the noise in x at time t is x + (1 - t) 2; the clean image is at 1/10.
        first = 0.5 + 0.9 * 2
        second = 0.4 * 0.5 + 0.6 * first + 0.4 * 2
        assert distance == pytest.approx(abs(first - second) * 4**0.25, rel=1e-5)
        return
    a_0, b_0 = schedule.signal[0].item(), schedule.noise[0].item()
    a_t, b_t = schedule.signal[step].item(), schedule.noise[step].item()
    first = a_0 * 2 + b_0 * 0.5
    second = a_t * 2 + b_t * (a_t * 0.5 + b_t * first)
    assert distance == pytest.approx(abs(first - second) * 4**0.25, rel=1e-5)


def test_secmi_walks_as_in_the_paper() -> None:
    paper = secmi_timesteps(NoiseConfig(num_train_timesteps=1000), 0.1, 0.01)
    assert paper == [*range(0, 101, 10), 110]
    assert secmi_timesteps(NoiseConfig(num_train_timesteps=50), 0.1, 0.01) == [0, 1, 2, 3, 4, 5, 6]
    assert secmi_timesteps(NoiseConfig(num_train_timesteps=10), 0.1, 0.01) == [0, 1, 2]
    assert secmi_timesteps(NoiseConfig(num_train_timesteps=1000), 0.1, 0.1) == [0, 100, 200]
    with pytest.raises(SettingsError, match="timestep 2 of 2"):
        secmi_timesteps(NoiseConfig(num_train_timesteps=2), 0.1, 0.01)
    with pytest.raises(ValidationError, match=r"secmi_timestep is 0\.1; allowed: secmi_int"):
        PrivacyAuditConfig(secmi_interval=0.2)


class OfOneGaussian(nn.Module):
    """Predicts the noise perfectly where images are N(0, s^2): linear in x_t, and known."""

    def __init__(self, schedule: NoiseSchedule, deviation: float) -> None:
        super().__init__()
        variance = schedule.signal**2 * deviation**2 + schedule.noise**2
        self.factor = nn.Parameter(schedule.noise / variance)

    def forward(self, x_t: Tensor, t: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        return (self.factor[t].view(-1, 1, 1, 1) * x_t,)


def test_secmi_error_of_a_known_prediction() -> None:
    schedule = NoiseSchedule.from_config(
        NoiseConfig(num_train_timesteps=50, prediction_type="epsilon"), "cpu"
    )
    network, timesteps = OfOneGaussian(schedule, 0.7), [0, 10, 20, 30]
    signal, noise, factor = (
        v.double().detach().numpy() for v in (schedule.signal, schedule.noise, network.factor)
    )

    def grows(start: int, end: int) -> float:
        epsilon = factor[start]
        x_0 = (1 - noise[start] * epsilon) / signal[start]
        return float(signal[end] * x_0 + noise[end] * epsilon)

    x_t = grows(0, 10) * grows(10, 20)
    missed = x_t * (grows(20, 30) * grows(30, 20) - 1)
    x_0 = torch.tensor([0.5, -1.0, 0.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    found = secmi_error(predictor(network), schedule, x_0, timesteps).detach()
    expected = [4 * (missed * pixel) ** 2 for pixel in (0.5, -1.0, 0.0)]
    assert found.tolist() == pytest.approx(expected, rel=1e-2)
    # What the network predicts alike on both ways is found again.
    assert secmi_error(predictor(Constant(1.0)), schedule, x_0, timesteps).max() < 1e-8


def test_a_gan_is_judged_by_its_discriminator(digits: tuple[ImageSet, ImageSet]) -> None:
    model = ModelConfig(family="dcgan", dcgan={"base_channels": 8})
    network = build_dcgan(model.dcgan, 1, 8, 0)
    scores = membership_scores(network, model, digits[0].images[:10], AUDIT, seed=0)
    assert list(scores) == ["discriminator"]
    network.eval()
    pixels = torch.from_numpy(digits[0].images[:10]).float() / 127.5 - 1
    np.testing.assert_allclose(
        scores["discriminator"], network.discriminator(pixels).detach().numpy(), rtol=1e-4
    )


def test_timesteps_are_spread_over_the_first_half() -> None:
    steps = loss_timesteps(NoiseConfig(num_train_timesteps=1001), 4)
    assert steps == [20, 180, 340, 500]


def test_a_conditional_model_is_attacked_with_the_labels_of_the_images() -> None:
    model = ModelConfig(conditioning="labels")
    network = LabelledConstant()
    config = PrivacyAuditConfig(timesteps=2, batch_size=2)
    images = np.zeros((4, 1, 8, 8), dtype=np.uint8)
    labels = np.array([0, 3, 1, 2])
    scores = membership_scores(network, model, images, config, 0, labels=labels)
    # Further from 0 with every class, so less familiar.
    assert np.argsort(-scores["loss"]).tolist() == [0, 2, 3, 1]


class LabelledConstant(nn.Module):
    """Predicts ten times the class everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor, return_dict: bool) -> tuple[Tensor]:
        return ((self.scale * labels).view(-1, 1, 1, 1).expand_as(x),)
