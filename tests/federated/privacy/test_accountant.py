"""Against published values, other implementations and closed forms.

Opacus 1.6.0's own functions (`opacus.accountants`), torch 2.15, made the reference values below.
"""

import math

import pytest
from scipy.stats import norm

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.federated.privacy.accountant import (
    epsilon_spent,
    gaussian_epsilon,
    noise_multiplier_for,
    sampled_gaussian_rdp,
)

# sampling rate, noise multiplier, order, opacus.accountants.analysis.rdp._compute_rdp
OPACUS_RDP = [
    (0.01, 1.0, 2, 0.00017181342207453428),
    (0.01, 1.0, 8, 0.0008936439076060279),
    (0.5, 1.0, 2.1, 0.38539847250728626),
    (0.5, 1.0, 32, 15.284493232970414),
    (0.1, 0.5, 1.5, 0.14592708968069065),
    (0.004, 1.1, 8.1, 8.73000957467218e-05),
    (0.9, 2.0, 10.9, 1.2568815578105657),
    (0.1, 20.0, 64, 0.0008123922036084477),
]


@pytest.mark.parametrize(("rate", "noise", "order", "expected"), OPACUS_RDP)
def test_renyi_divergence_agrees_with_opacus(
    rate: float, noise: float, order: float, expected: float
) -> None:
    assert sampled_gaussian_rdp(noise, rate, order) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "expected"),
    [
        (1.0, 0.01, 1000, 2.1013652716),  # opacus.accountants.RDPAccountant
        (2.0, 0.25, 50, 4.8816081645),
        # The MNIST example of TensorFlow Privacy: 60 epochs, batches of 256.
        (1.1, 256 / 60000, 14100, 2.6003429386),
    ],
)
def test_epsilon_agrees_with_opacus(noise: float, rate: float, steps: int, expected: float) -> None:
    assert epsilon_spent(noise, rate, steps, 1e-5) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "numerical", "times"),
    [
        (1.0, 0.01, 1000, 1.8384, 1.2),
        (2.0, 0.25, 50, 4.4506, 1.2),
        (0.5, 0.1, 10, 12.2746, 1.21),
        (0.5, 0.02, 50, 7.9728, 1.45),
        (0.5, 0.01, 1, 3.0274, 1.46),
        (1.0, 0.01, 10, 0.3875, 2.7),
        (2.0, 0.02, 10, 0.1440, 7.0),
        (1.5, 0.05, 1, 0.3514, 7.0),
        (1.5, 0.01, 1, 0.0581, 7.0),
    ],
)
def test_epsilon_is_an_upper_bound_of_the_numerical_accountant(
    noise: float, rate: float, steps: int, numerical: float, times: float
) -> None:
    """``numerical``: the tight opacus.accountants.PRVAccountant; ``times``: docs/privacy.md."""
    assert numerical < epsilon_spent(noise, rate, steps, 1e-5) < times * numerical


@pytest.mark.parametrize(("noise", "delta"), [(0.3, 1e-5), (1.0, 1e-2), (5.0, 1e-6)])
def test_without_sampling_epsilon_is_where_the_exact_curve_meets_delta(
    noise: float, delta: float
) -> None:
    epsilon = gaussian_epsilon(noise, delta)
    reached = norm.cdf(0.5 / noise - epsilon * noise) - math.exp(epsilon) * norm.cdf(
        -0.5 / noise - epsilon * noise
    )
    assert reached == pytest.approx(delta, rel=0.05)
    assert reached <= delta * (1 + 1e-9)
    # Four releases at twice the noise are one release.
    assert epsilon_spent(2 * noise, 1.0, 4, delta) == epsilon


def test_sampling_and_noise_lower_epsilon_and_steps_raise_it() -> None:
    base = epsilon_spent(1.0, 0.5, 10, 1e-5)
    assert epsilon_spent(1.0, 0.4, 10, 1e-5) < base < epsilon_spent(1.0, 1.0, 10, 1e-5)
    assert epsilon_spent(1.1, 0.5, 10, 1e-5) < base < epsilon_spent(1.0, 0.5, 11, 1e-5)
    assert epsilon_spent(1.0, 0.5, 0, 1e-5) == 0.0
    assert epsilon_spent(0.0, 0.5, 1, 1e-5) == math.inf


@pytest.mark.parametrize(
    ("target", "rate", "steps"), [(8.0, 1.0, 60), (1.0, 1.0, 12), (4.0, 0.2, 5)]
)
def test_noise_for_a_target_is_the_inverse(target: float, rate: float, steps: int) -> None:
    noise = noise_multiplier_for(target, 1e-5, rate, steps)
    assert epsilon_spent(noise, rate, steps, 1e-5) <= target
    assert epsilon_spent(0.999 * noise, rate, steps, 1e-5) > target


def test_a_target_out_of_reach_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot be reached in 100 steps"):
        noise_multiplier_for(1e-9, 1e-9, 1.0, 100)


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "rate", "steps"), [(0.7, 0.02, 500), (3.0, 0.6, 100)])
def test_epsilon_agrees_with_the_installed_opacus(noise: float, rate: float, steps: int) -> None:
    from opacus.accountants import RDPAccountant

    reference = RDPAccountant()
    reference.history = [(noise, rate, steps)]
    theirs = reference.get_epsilon(delta=1e-5)
    assert epsilon_spent(noise, rate, steps, 1e-5) == pytest.approx(theirs, rel=1e-3)
