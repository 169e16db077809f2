"""Local training learns, repeats bit for bit, and continues from kept state."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from phoenix_pipeline.config import NoiseConfig, TrainingConfig, UNetConfig
from phoenix_pipeline.diffusion.dropout import SeededDropout, set_dropout_generators
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.optimization.work import LocalResult, LocalWork

NewUnet = Callable[..., UNet2DModel]
SCHEDULE = NoiseSchedule.from_config(NoiseConfig(), "cpu")
PLAIN = UNetConfig(block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4)


def work(steps: int, seed: int = 0) -> LocalWork:
    return LocalWork(steps, progress_start=0.0, progress_end=1.0, seed=seed)


def train(
    unet: nn.Module, images: Tensor, job: LocalWork, options: Mapping[str, Any], **state: Any
) -> LocalResult:
    defaults = {"batch_size": 4, "lr_schedule": "constant", "lr_warmup": 0.0}
    config = TrainingConfig.model_validate({**defaults, **options})
    return train_locally(unet, images, job, SCHEDULE, config, **state)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_loss_falls_on_a_tiny_set(new_unet: NewUnet) -> None:
    unet, black = new_unet(), torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    state: dict[str, Tensor] = {}
    options = {"batch_size": 16, "learning_rate": 5e-3}
    first = train(unet, black, work(3), options, optimizer_state=state)
    train(unet, black, work(40, seed=1), options, optimizer_state=state)
    last = train(unet, black, work(3, seed=0), options, optimizer_state=state)
    assert last.loss < 0.5 * first.loss
    assert last.images_trained == 48


@pytest.mark.parametrize("options", [{}, {"horizontal_flip": True}, {"channels_last": True}])
def test_same_seed_gives_the_same_bits(
    new_unet: NewUnet, images: Tensor, options: dict[str, bool]
) -> None:
    first, again, other = new_unet(), new_unet(), new_unet()
    losses = [train(unet, images, work(3), options).loss for unet in (first, again)]
    train(other, images, work(3, seed=1), options)
    assert losses[0] == losses[1]
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_global_generator_is_left_alone(new_unet: NewUnet, images: Tensor) -> None:
    before = torch.random.get_rng_state()
    train(new_unet(), images, work(2), {"horizontal_flip": True})
    assert torch.equal(before, torch.random.get_rng_state())


def test_second_round_continues_from_kept_moments(new_unet: NewUnet, images: Tensor) -> None:
    whole, resumed, fresh = new_unet(), new_unet(), new_unet()
    kept: dict[str, Tensor] = {}
    for unet, state in ((whole, kept), (resumed, {}), (fresh, None)):
        train(unet, images, work(2), {}, optimizer_state=state)
    copied = {name: tensor.clone() for name, tensor in kept.items()}
    assert kept["step.conv_in.weight"].item() == 2
    train(whole, images, work(2, seed=1), {}, optimizer_state=kept)
    train(resumed, images, work(2, seed=1), {}, optimizer_state=copied)
    train(fresh, images, work(2, seed=1), {})
    assert kept["step.conv_in.weight"].item() == 4
    assert same_weights(whole, resumed)
    assert not same_weights(whole, fresh)


def test_steps_have_the_learning_rate_of_their_place_in_the_run(
    new_unet: NewUnet, images: Tensor
) -> None:
    options = {"lr_schedule": "cosine", "learning_rate": 0.01}
    before, ended, halfway = new_unet(), new_unet(), new_unet()
    train(ended, images, LocalWork(1, 1.0, 1.0, seed=0), options)
    assert same_weights(ended, before)  # at the end of the run the step is 0
    train(halfway, images, LocalWork(1, 0.5, 0.5, seed=0), options)
    # The first step of Adam is the learning rate, here half of the peak, for every weight.
    steps = torch.cat(
        [
            (a - b).abs().flatten()
            for a, b in zip(halfway.parameters(), before.parameters(), strict=True)
        ]
    )
    assert steps.quantile(0.9).item() == pytest.approx(0.005, rel=1e-2)


def test_weight_decay_takes_its_share_of_every_weight(new_unet: NewUnet, images: Tensor) -> None:
    before, plain, decayed = new_unet(), new_unet(), new_unet()
    options = {"learning_rate": 0.01, "max_grad_norm": None}
    train(plain, images, work(1), options)
    train(decayed, images, work(1), {**options, "weight_decay": 0.5})
    for start, without, with_decay in zip(
        before.parameters(), plain.parameters(), decayed.parameters(), strict=True
    ):
        # AdamW takes lr x decay of the weight itself, beside the step of the gradient.
        torch.testing.assert_close(without - with_decay, 0.01 * 0.5 * start, rtol=1e-3, atol=1e-6)


def test_dropout_zeroes_its_share_and_scales_the_rest() -> None:
    layer, ones = SeededDropout(0.25), torch.ones(20_000)
    set_dropout_generators(layer, [torch.Generator().manual_seed(0)])
    dropped = layer(ones)
    again = SeededDropout(0.25)
    set_dropout_generators(again, [torch.Generator().manual_seed(0)])
    assert torch.equal(again(ones), dropped)
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.015)
    assert torch.equal(layer.eval()(ones), ones)
    set_dropout_generators(layer, [])
    assert layer.train()(ones).unique().tolist() == pytest.approx([0.0, 4 / 3])


def test_dropout_draws_from_the_clients_stream(images: Tensor) -> None:
    config = UNetConfig(
        block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4, dropout=0.5
    )
    first, again, without = (build_unet(c, 1, 8, 0) for c in (config, config, PLAIN))
    before = torch.random.get_rng_state()
    train(first, images, work(3), {})
    torch.randn(7)  # whatever else draws in this process
    train(again, images, work(3), {})
    train(without, images, work(3), {})
    assert same_weights(first, again)
    assert not same_weights(first, without)
    torch.random.set_rng_state(before)


def test_non_finite_loss_names_the_step(new_unet: NewUnet, images: Tensor) -> None:
    unet = new_unet()
    with torch.no_grad():
        unet.conv_in.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="became nan at step 1 of 2; lower training"):
        train(unet, images, work(2), {})


def test_divergence_is_found_at_a_later_step(new_unet: NewUnet, images: Tensor) -> None:
    options = {"learning_rate": 1e30, "max_grad_norm": None}
    with pytest.raises(TrainingError, match="at step 2 of 3"):
        train(new_unet(), images, work(3), options)


def test_bf16_autocast_stays_close_to_fp32(new_unet: NewUnet, images: Tensor) -> None:
    full, half = new_unet(), new_unet()
    expected = train(full, images, work(2), {"precision": "fp32"}).loss
    assert train(half, images, work(2), {"precision": "bf16"}).loss == pytest.approx(
        expected, rel=0.05
    )
    assert not same_weights(full, half)
    assert all(parameter.dtype == torch.float32 for parameter in half.parameters())
