"""Noise of a seed can be taken off by search; secret noise cannot, and sums are exact."""

import pytest
import torch

from phoenix_pipeline.optimization.discrete_gaussian import DEVIATION
from phoenix_pipeline.optimization.gaussian_mechanism import SecretGaussian, gaussian_mechanism

BOUND, DEVIATION_OF_NOISE = 1.0, 2.0


def update() -> torch.Tensor:
    values = torch.linspace(-1.0, 1.0, 500)
    return values / values.norm()


def search(released: torch.Tensor, seeds: int) -> torch.Tensor | None:
    """Return the update under the noise of the first seed that leaves one within the bound."""
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        silent = released - DEVIATION_OF_NOISE * torch.randn(500, generator=generator)
        if silent.norm() < 1.01 * BOUND:
            return silent
    return None


def test_a_search_over_seeds_finds_the_noise_of_the_old_kind_and_not_of_the_new() -> None:
    # The attacker tries the low bits alone: torch's CPU generator reads no others.
    generator = torch.Generator().manual_seed(777 + (5 << 32))
    seeded = gaussian_mechanism(DEVIATION_OF_NOISE, generator)
    found = search(seeded.release(seeded.scaled(update(), 1.0)), 1000)
    assert found is not None
    torch.testing.assert_close(found, update(), rtol=0.0, atol=1e-5)
    secret = gaussian_mechanism(DEVIATION_OF_NOISE, None)
    noisy = secret.release(secret.scaled(update(), 1.0)).float()
    assert search(noisy, 1000) is None
    assert (noisy - update()).std().item() == pytest.approx(DEVIATION_OF_NOISE, rel=0.2)


def test_contributions_are_on_the_grid_and_no_longer_than_their_bound() -> None:
    mechanism = SecretGaussian(DEVIATION_OF_NOISE)
    steps = mechanism.scaled(update(), 1.0)
    assert torch.equal(steps, steps.round())
    assert steps.norm().item() * mechanism.step <= BOUND
    assert steps.norm().item() * mechanism.step == pytest.approx(BOUND, rel=1e-3)
    assert mechanism.step == DEVIATION_OF_NOISE / DEVIATION


def test_sums_do_not_depend_on_their_order_as_those_of_floats_do() -> None:
    mechanism = SecretGaussian(DEVIATION_OF_NOISE)
    values = [update() * (-1) ** i / 3**i for i in range(20)]
    there, back = mechanism.zeros_like(update()), mechanism.zeros_like(update())
    for value in values:
        there += mechanism.scaled(value, 1.0)
    for value in reversed(values):
        back += mechanism.scaled(value, 1.0)
    assert torch.equal(there, back)


def test_a_weighted_sum_is_that_of_its_parts() -> None:
    mechanism = SecretGaussian(DEVIATION_OF_NOISE)
    values = torch.stack([update(), -0.5 * update(), update().flip(0)])
    scales = torch.tensor([1.0, 0.25, 0.5])
    parts = sum(
        mechanism.weighted_sum(v[None], s[None]) for v, s in zip(values, scales, strict=True)
    )
    whole = mechanism.weighted_sum(values, scales)
    assert torch.equal(whole, parts)
    expected = (scales[:, None] * values).sum(0)
    torch.testing.assert_close((whole * mechanism.step).float(), expected, rtol=1e-3, atol=1e-6)


def test_without_noise_nothing_is_rounded() -> None:
    exact = gaussian_mechanism(0.0, None)
    assert torch.equal(exact.release(exact.scaled(update(), 1.0)), update())
