"""Flow matching: straight paths, their velocity, and the solvers that follow it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, FlowMatchEulerDiscreteScheduler, UNet2DModel
from pydantic import ValidationError
from torch import Tensor

from phoenix_pipeline.config import DpSgdConfig, NoiseConfig, SamplingConfig, TrainingConfig
from phoenix_pipeline.diffusion.export import export_pipeline
from phoenix_pipeline.diffusion.graphed import graphed_steps
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.samplers import SAMPLERS
from phoenix_pipeline.diffusion.sampling import sample_images
from phoenix_pipeline.diffusion.schedulers import prepare_scheduler
from phoenix_pipeline.diffusion.stacked import train_stacked
from phoenix_pipeline.diffusion.training import descend, train_locally
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.optimization.work import ClientTask, LocalWork

FLOW = NoiseConfig(prediction_type="flow")
NewUnet = Callable[..., UNet2DModel]
Velocity = Callable[[Tensor, float], Tensor]


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def follow(velocity: Velocity, sampler: str, evaluations: int, noise: Tensor) -> Tensor:
    """Return where ``noise`` comes to, asked at times t of 1..0 as a network is."""
    config = SamplingConfig.model_validate({"sampler": sampler})
    scheduler = prepare_scheduler(FLOW, config, evaluations)
    assert len(scheduler.timesteps) == evaluations
    take_step, x = SAMPLERS[sampler].new_steps(scheduler, config)([]), noise.clone()
    for index, t in enumerate(scheduler.timesteps.tolist()):
        x = take_step(x, velocity(x, t / FLOW.num_train_timesteps), index)
    return x


def test_paths_are_straight_lines_from_images_to_noise() -> None:
    schedule = NoiseSchedule.from_config(
        NoiseConfig(prediction_type="flow", num_train_timesteps=4), "cpu"
    )
    x_0, epsilon = torch.full((5, 1, 2, 2), 3.0), torch.full((5, 1, 2, 2), -1.0)
    t = torch.arange(5)
    assert schedule.diffuse(x_0, t, epsilon)[:, 0, 0, 0].tolist() == [3.0, 2.0, 1.0, 0.0, -1.0]
    assert (schedule.target(x_0, t, epsilon) == -4.0).all()
    assert schedule.num_timesteps == 4


def test_the_velocity_to_one_image_is_known() -> None:
    # Of one image all paths end at it, so that x_t says which path it is on.
    schedule, t = NoiseSchedule.from_config(FLOW, "cpu"), torch.tensor([1, 250, 1000])
    x_0, epsilon = random(0, 1, 1, 4, 4).float().expand(3, 1, 4, 4), random(1, 3, 1, 4, 4).float()
    x_t = schedule.diffuse(x_0, t, epsilon)
    optimal = (x_t - x_0) / (t / 1000).view(-1, 1, 1, 1)
    target = schedule.target(x_0, t, epsilon)
    torch.testing.assert_close(target, optimal, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(schedule.predicted_noise(x_t, t, target), epsilon)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("evaluations", [1, 2, 3, 6, 20])
def test_a_straight_path_leads_to_its_image_in_any_number_of_steps(
    sampler: str, evaluations: int
) -> None:
    x_0, noise = random(0, 2, 1, 4, 4), random(1, 2, 1, 4, 4)
    reached = follow(lambda x, t: (x - x_0) / t, sampler, evaluations, noise)
    torch.testing.assert_close(reached, x_0, rtol=1e-5, atol=1e-5)


MEAN, STD = 0.3, 0.6


def of_one_gaussian(x: Tensor, t: float) -> Tensor:
    """Return E[epsilon - x_0 | x_t = x] where images are N(MEAN, STD^2)."""
    centred, variance = x - (1 - t) * MEAN, (1 - t) ** 2 * STD**2 + t**2
    return (t - (1 - t) * STD**2) / variance * centred - MEAN


def missed(sampler: str, evaluations: int) -> float:
    noise = random(0, 100)
    reached = follow(of_one_gaussian, sampler, evaluations, noise)
    return float((reached - (MEAN + STD * noise)).abs().max())


@pytest.mark.parametrize(
    ("sampler", "few", "many", "order"),
    [
        # Evaluations of 20 and 40 steps; of Heun each step but the last has two.
        ("euler", 20, 40, 2.0),
        ("heun", 39, 79, 4.0),
        # An even number: the first step has one evaluation, too.
        ("heun", 38, 78, 4.0),
    ],
)
def test_errors_fall_with_the_order_of_the_solver(
    sampler: str, few: int, many: int, order: float
) -> None:
    assert missed(sampler, few) / missed(sampler, many) == pytest.approx(order, rel=0.12)


def test_euler_takes_the_steps_of_diffusers() -> None:
    config = SamplingConfig(sampler="euler")
    theirs = FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    ours = prepare_scheduler(FLOW, config, 4)
    assert ours.timesteps.tolist() == [1000.0, 750.0, 500.0, 250.0]
    take_step, x = SAMPLERS["euler"].new_steps(ours, config)([]), random(0, 2, 1, 4, 4).float()
    expected = x.clone()
    for index, t in enumerate(theirs.timesteps):
        prediction = random(index, 2, 1, 4, 4).float()
        x = take_step(x, prediction, index)
        expected = theirs.step(prediction, t, expected, return_dict=False)[0]
    torch.testing.assert_close(x, expected)


@pytest.mark.parametrize(
    ("kind", "sampler", "allowed"),
    [
        ("flow", "ddim", "flow; allowed are euler, heun"),
        ("flow", "dpm_solver++", "flow; allowed are euler, heun"),
        ("v_prediction", "euler", r"v_prediction; allowed are ddpm, ddim, dpm_solver\+\+, unipc"),
        ("epsilon", "heun", r"epsilon; allowed are ddpm, ddim, dpm_solver\+\+, unipc"),
    ],
)
def test_samplers_of_other_models_are_refused(kind: Any, sampler: str, allowed: str) -> None:
    config = SamplingConfig.model_validate({"sampler": sampler})
    with pytest.raises(SettingsError, match=allowed):
        prepare_scheduler(NoiseConfig(prediction_type=kind), config, 20)


def test_other_spacings_and_weights_of_a_flow_are_refused() -> None:
    config = SamplingConfig(sampler="euler", timestep_spacing="leading")
    with pytest.raises(SettingsError, match=r"set sampling\.timestep_spacing: trailing"):
        prepare_scheduler(FLOW, config, 20)
    with pytest.raises(SettingsError, match=r"flow has no min-SNR weights"):
        NoiseSchedule.from_config(FLOW, "cpu").min_snr_weights(torch.tensor([1]), 5.0)
    with pytest.raises(ValidationError, match=r"zero_terminal_snr: false"):
        NoiseConfig(prediction_type="flow", zero_terminal_snr=True)


def test_all_timesteps_with_noise_are_drawn_and_no_other() -> None:
    schedule = NoiseSchedule.from_config(
        NoiseConfig(prediction_type="flow", num_train_timesteps=4), "cpu"
    )
    for distribution in ("uniform", "logit_normal"):
        drawn = schedule.draw_timesteps(500, distribution, torch.Generator().manual_seed(0))
        assert drawn.unique().tolist() == [1, 2, 3, 4]


def test_the_logits_of_timesteps_are_standard_normal() -> None:
    for noise, first in ((FLOW, 1), (NoiseConfig(), 0)):
        schedule = NoiseSchedule.from_config(noise, "cpu")
        generator = torch.Generator().manual_seed(0)
        drawn = schedule.draw_timesteps(100_000, "logit_normal", generator) - first
        assert 0 <= drawn.min() and drawn.max() <= 999
        logits = ((drawn.double() + 0.5) / 1000).logit()
        assert float(logits.mean()) == pytest.approx(0.0, abs=0.01)
        assert float(logits.std()) == pytest.approx(1.0, abs=0.01)


def test_a_network_learns_the_velocity_of_one_image(new_unet: NewUnet, images: Tensor) -> None:
    unet, one = new_unet(), images[:1]
    schedule = NoiseSchedule.from_config(FLOW, "cpu")
    config = TrainingConfig(batch_size=16, learning_rate=5e-3, lr_schedule="constant")
    losses = [
        train_locally(
            unet, one.expand(16, 1, 8, 8), LocalWork(60, 0, 1, seed), schedule, config
        ).loss
        for seed in range(3)
    ]
    assert losses[2] < 0.5 * losses[0]
    sampling = SamplingConfig(sampler="heun", num_steps=9)
    (drawn,) = sample_images(unet, FLOW, sampling, (1, 8, 8), [1, 2], "cpu")
    apart = (torch.from_numpy(drawn).float() - one.float()).abs().mean()
    others = (images[1:].float() - one.float()).abs().mean()
    assert apart < 0.5 * others


def test_stacked_clients_and_private_steps_take_the_paths(
    new_unet: NewUnet, images: Tensor
) -> None:
    schedule, unet = NoiseSchedule.from_config(FLOW, "cpu"), new_unet()
    config = TrainingConfig(batch_size=4, timestep_distribution="logit_normal")
    tasks = [
        ClientTask(
            images,
            LocalWork(2, 0, 1, seed),
            weights={n: p.detach().clone() for n, p in unet.named_parameters()},
        )
        for seed in (1, 2)
    ]
    results = train_stacked(unet, tasks, schedule, config)
    for task, result in zip(tasks, results, strict=True):
        alone = new_unet()
        expected = train_locally(alone, images, task.work, schedule, config)
        assert getattr(result, "loss", None) == pytest.approx(expected.loss, rel=1e-4)
    private = config.model_copy(
        update={"dp_sgd": DpSgdConfig(enabled=True, clip_norm=1e6, noise_multiplier=1.0)}
    )
    work = LocalWork(1, 0, 1, 1, noise_multiplier=0.0)
    assert train_locally(new_unet(), images, work, schedule, private).loss > 0


def test_diffusers_draws_from_an_exported_flow(tmp_path: Path, new_unet: NewUnet) -> None:
    export_pipeline(tmp_path / "flow", new_unet(), FLOW, {})
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "flow", local_files_only=True)
    assert isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(2, num_inference_steps=3, output_type="np").images
    assert made.shape == (2, 8, 8, 1)


def test_steps_at_fixed_places_take_the_same_paths(new_unet: NewUnet, images: Tensor) -> None:
    schedule, unet, alone = NoiseSchedule.from_config(FLOW, "cpu"), new_unet(), new_unet()
    config = TrainingConfig(batch_size=4, timestep_distribution="logit_normal")
    work = LocalWork(3, 0, 1, seed=1)
    steps = graphed_steps(unet, images, schedule, config, None)
    steps.begin(images, None, None, work.seed)
    losses = descend(steps, {}, work, config, images)
    expected = train_locally(alone, images, work, schedule, config)
    assert float(losses.mean()) == pytest.approx(expected.loss, rel=1e-4)
