"""Steps at fixed places in memory are those of one client after another; a GPU records them."""

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor

from phoenix_pipeline.config import NoiseConfig, TrainingConfig
from phoenix_pipeline.diffusion import training
from phoenix_pipeline.diffusion.batches import Condition
from phoenix_pipeline.diffusion.graphed import GraphedSteps, graphed_steps, why_not_graphed
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.optimization.work import LocalWork

NewUnet = Callable[..., UNet2DModel]
SCHEDULE = NoiseSchedule.from_config(NoiseConfig(), "cpu")
CONFIG = TrainingConfig.model_validate(
    {"batch_size": 4, "horizontal_flip": True, "channels_last": True, "weight_decay": 0.1}
)


def round_of(unet: UNet2DModel, images: Tensor, seed: int, state: dict[str, Tensor]) -> float:
    work = LocalWork(3, 0.1, 0.4, seed=seed)
    return training.train_locally(unet, images, work, SCHEDULE, CONFIG, state).loss


@pytest.fixture
def at_fixed_places(monkeypatch: pytest.MonkeyPatch) -> list[GraphedSteps]:
    """Let training take the steps that a GPU records; return those that it took."""
    taken: list[GraphedSteps] = []

    def steps_of(
        unet: UNet2DModel,
        images: Tensor,
        work: LocalWork,
        schedule: NoiseSchedule,
        config: TrainingConfig,
        condition: Condition | None,
        moments: dict[str, Tensor] | None,
    ) -> GraphedSteps:
        steps = graphed_steps(unet, images, schedule, config, condition)
        steps.begin(images, condition, moments, work.seed)
        taken.append(steps)
        return steps

    monkeypatch.setattr(training, "_steps_of", steps_of)
    return taken


def test_clients_in_turn_end_as_with_steps_of_their_own(
    new_unet: NewUnet, images: Tensor, request: pytest.FixtureRequest
) -> None:
    """Three clients through one network: moments, images and random numbers do not mix."""
    parts = [images[:9], images[9:20], images[5:11]]
    results = []
    for fixed in (False, True):
        taken = request.getfixturevalue("at_fixed_places") if fixed else []
        unet = new_unet().to(memory_format=torch.channels_last)
        start = {name: value.clone() for name, value in unet.state_dict().items()}
        states: list[dict[str, Tensor]] = [{} for _ in parts]
        found: list[object] = []
        for _ in range(3):
            for client, (part, state) in enumerate(zip(parts, states, strict=True)):
                unet.load_state_dict(start)
                found.append(round_of(unet, part, client, state))
                found.append({name: value.clone() for name, value in unet.state_dict().items()})
        results.append((found, states))
        assert len({id(steps) for steps in taken}) <= 1
        assert len(taken) == (9 if fixed else 0)
    # The learning rate is a float32 there; Adam makes much of the rounding where gradients are 0.
    torch.testing.assert_close(*results, rtol=1e-4, atol=2e-5)


@pytest.mark.usefixtures("at_fixed_places")
def test_moments_that_are_kept_are_not_written_over_by_the_next_client(
    new_unet: NewUnet, images: Tensor
) -> None:
    unet, first, second = new_unet(), dict[str, Tensor](), dict[str, Tensor]()
    round_of(unet, images, 0, first)
    kept = {name: value.clone() for name, value in first.items()}
    round_of(unet, images, 1, second)
    torch.testing.assert_close(first, kept, rtol=0, atol=0)
    assert second["step.conv_in.weight"].item() == 3


def test_other_settings_are_recorded_anew(new_unet: NewUnet, images: Tensor) -> None:
    unet, other = new_unet(), CONFIG.model_copy(update={"max_grad_norm": 0.1})
    first = graphed_steps(unet, images, SCHEDULE, CONFIG, None)
    assert graphed_steps(unet, images[:5], SCHEDULE, CONFIG, None) is first
    assert graphed_steps(unet, images, SCHEDULE, other, None) is not first
    labels = Condition(torch.zeros(len(images), dtype=torch.int64), 3, 0.1)
    assert graphed_steps(unet, images, SCHEDULE, other, labels) is not first


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, None),
        ({"precision": "fp16"}, "fp16"),
        ({"noise_assignment": "immiscible"}, "immiscible"),
        ({"dp_sgd": {"enabled": True, "noise_multiplier": 1.0}}, "dp_sgd"),
    ],
)
def test_what_needs_values_within_a_step_is_not_recorded(
    settings: dict[str, object], reason: str | None
) -> None:
    found = why_not_graphed(TrainingConfig.model_validate(settings))
    assert (found is None) if reason is None else reason in str(found)
