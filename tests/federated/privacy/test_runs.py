"""Real federations under differential privacy, and what is refused."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from phoenix_pipeline.arms.setup import check_arm
from phoenix_pipeline.config import (
    ArmSettings,
    DcganConfig,
    DifferentialPrivacyConfig,
    DpSgdConfig,
    FederationConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from phoenix_pipeline.errors import SettingsError, TrainingError
from phoenix_pipeline.federated.privacy.accountant import epsilon_spent
from phoenix_pipeline.federated.privacy.checks import check_privacy
from phoenix_pipeline.federated.privacy.client_level import ClientLevelPrivacy, privatize
from phoenix_pipeline.federated.records import LocalNoise
from phoenix_pipeline.federated.work_plan import poisson_clients
from phoenix_pipeline.gan.dcgan import build_dcgan
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.optimization import gaussian_mechanism
from tests.federated.tiny import federate, interrupt, same, settings

STEPS = {"unit": "steps", "amount": 2}


def private(**options: object) -> DifferentialPrivacyConfig:
    amount = {} if "target_epsilon" in options else {"noise_multiplier": 2.0}
    return DifferentialPrivacyConfig(**{"enabled": True, "delta": 1e-3, **amount, **options})


def plan(clients: int = 10, fraction: float = 1.0, **options: object) -> ClientLevelPrivacy:
    federation = FederationConfig(
        local_work=STEPS, client_fraction=fraction, differential_privacy=private(**options)
    )
    return ClientLevelPrivacy.of(federation, clients)


def test_a_huge_norm_without_noise_is_the_mean_with_equal_weights(tmp_path: Path) -> None:
    generous = private(clip_norm=1e6, noise_multiplier=0.0)
    result = federate(tmp_path / "dp", rounds=1, differential_privacy=generous)
    plain = [
        federate(tmp_path / f"{c}", rounds=1, client_images=only(c), settings=settings()).raw
        for c in (0, 1)
    ]
    for name, tensor in result.raw.items():
        expected = 0.5 * (plain[0][name] + plain[1][name])
        torch.testing.assert_close(tensor, expected, rtol=0.0, atol=3e-5)
    assert (result.rounds["epsilon"] == float("inf")).all()


def only(client: int) -> pd.DataFrame:
    from tests.federated.tiny import client_table

    table = client_table()
    return table[table["client_id"] == client]


def test_an_interrupted_private_run_ends_with_the_same_bits_and_epsilon(tmp_path: Path) -> None:
    options = {"rounds": 3, "client_fraction": 0.6}
    options["differential_privacy"] = private(clipping="adaptive")
    whole = federate(tmp_path / "whole", **options)

    interrupt(tmp_path / "cut", after=2, **options)
    resumed = federate(tmp_path / "cut", **options)
    assert same(resumed.raw, whole.raw)
    for row in resumed.rounds.itertuples():
        assert row.epsilon == pytest.approx(epsilon_spent(2.0, 0.6, row.round, 1e-3))


def test_a_round_that_nobody_is_drawn_for_still_gets_its_noise(tmp_path: Path) -> None:
    drawn = [poisson_clients({0: 12, 1: 36}, 0.1, seed=5, server_round=r) for r in (1, 2)]
    assert drawn == [[], []]  # of the seed of tiny.settings()
    seen: dict[int, dict[str, float]] = {}
    result = federate(
        tmp_path,
        client_fraction=0.1,
        differential_privacy=private(),
        on_round=lambda r, means: seen.update({r: dict(means)}),
    )
    start = settings().build_network().state_dict()
    assert result.rounds.empty and seen[2]["clients"] == 0.0
    assert math.isnan(seen[2]["loss"])
    assert not torch.equal(result.raw["conv_out.weight"], start["conv_out.weight"])


def test_absent_clients_do_not_make_a_round_of_nobody_a_failure(tmp_path: Path) -> None:
    result = federate(
        tmp_path, client_fraction=0.1, differential_privacy=private(), attendance={1: "9"}
    )
    assert result.rounds["status"].tolist() == ["absent"] * 2


def test_epsilon_counts_rounds_of_nobody_at_the_end(tmp_path: Path) -> None:
    drawn = [poisson_clients({0: 12, 1: 36}, 0.35, seed=5, server_round=r) for r in range(1, 40)]
    last = next(r for r in range(2, 40) if drawn[r - 2] and not drawn[r - 1])
    options = {"rounds": last, "client_fraction": 0.35, "differential_privacy": private()}
    result = federate(tmp_path, **options)
    assert result.rounds["round"].max() == last - 1
    expected = epsilon_spent(2.0, 0.35, last, 1e-3)
    assert result.rounds["epsilon"].max() == pytest.approx(expected)
    assert same(result.raw, federate(tmp_path, **options).raw)


def test_local_noise_reaches_the_server_and_epsilon_counts_each_client(tmp_path: Path) -> None:
    quiet = federate(
        tmp_path / "quiet",
        differential_privacy=private(placement="local", noise_multiplier=0.0, clip_norm=1e6),
    )
    plain = federate(tmp_path / "plain")
    for name, tensor in plain.raw.items():
        torch.testing.assert_close(quiet.raw[name], tensor, rtol=0.0, atol=3e-5)
    loud = federate(tmp_path / "loud", differential_privacy=private(placement="local"))
    assert (loud.raw["conv_out.weight"] - plain.raw["conv_out.weight"]).std() > 0.5
    for row in loud.rounds.itertuples():
        # Against replacing a client's update: the sensitivity is twice the norm.
        assert row.epsilon == pytest.approx(epsilon_spent(1.0, 1.0, row.round, 1e-3))


def test_local_update_is_clipped_before_the_noise() -> None:
    received = {"w": torch.zeros(10_000)}
    trained = {"w": torch.full((10_000,), 5.0)}
    silent = privatize(trained, received, LocalNoise(clip_norm=2.0, noise_multiplier=0.0), seed=1)
    assert silent["w"].norm().item() == pytest.approx(2.0, rel=1e-4)
    noisy = privatize(trained, received, LocalNoise(clip_norm=2.0, noise_multiplier=3.0), seed=1)
    assert noisy["w"].std().item() == pytest.approx(6.0, rel=0.05)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("seed", [None, 3])
def test_an_update_without_a_norm_is_not_sent(value: float, seed: int | None) -> None:
    """Unclipped, its finite values would leave with far too little noise."""
    received = {"a": torch.zeros(2), "b": torch.zeros(3)}
    trained = {"a": torch.tensor([1.0, value]), "b": torch.full((3,), 1e6)}
    with pytest.raises(TrainingError, match="the norm of the update is"):
        privatize(trained, received, LocalNoise(clip_norm=1.0, noise_multiplier=1.0), seed)


def test_secret_local_noise_is_clipped_and_is_not_found_by_the_seeds(tmp_path: Path) -> None:
    received, trained = {"w": torch.ones(10_000)}, {"w": torch.full((10_000,), 6.0)}
    noise = LocalNoise(clip_norm=2.0, noise_multiplier=3.0)
    noisy = privatize(trained, received, noise, None)["w"] - 1.0
    assert noisy.std().item() == pytest.approx(6.0, rel=0.05)
    for seed in range(50):
        silent = privatize(received, {"w": torch.zeros(10_000)}, noise, seed)["w"]
        assert (noisy - silent).norm() > 100.0
    quiet = LocalNoise(clip_norm=2.0, noise_multiplier=1e-6)
    left = privatize(trained, received, quiet, None)["w"] - 1.0
    assert left.norm().item() == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("placement", ["central", "local"])
def test_secret_runs_draw_no_noise_from_torch(
    placement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("noise of a seed")

    monkeypatch.setattr(gaussian_mechanism.SeededGaussian, "release", refuse)
    result = federate(
        tmp_path, rounds=1, differential_privacy=private(placement=placement), secret_noise=True
    )
    assert (result.rounds["status"] == "ok").all()


def test_secret_dp_sgd_takes_batches_and_noise_from_no_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("noise of a seed")

    told = settings(dp_sgd=DpSgdConfig(enabled=True, noise_multiplier=1.5, delta=1e-3))
    monkeypatch.setattr(gaussian_mechanism.SeededGaussian, "release", refuse)
    monkeypatch.setattr("phoenix_pipeline.optimization.work.draw_uniform", np.zeros)
    result = federate(tmp_path, rounds=1, settings=told, secret_noise=True)
    # A draw of 0 is below every rate: whole sets are batches, and the loss is near 1.
    assert (result.rounds["status"] == "ok").all()
    assert result.rounds["loss"].tolist()[1] > 3.0


def test_dp_sgd_accounts_for_each_clients_images_and_steps(tmp_path: Path) -> None:
    told = settings(dp_sgd=DpSgdConfig(enabled=True, noise_multiplier=1.5, delta=1e-3))
    rounds = federate(tmp_path, settings=told).rounds
    assert rounds["steps"].tolist() == [2] * 4
    for row in rounds.itertuples():
        expected = epsilon_spent(1.5, 6 / row.num_examples, 2 * row.round, 1e-3)
        assert row.epsilon == pytest.approx(expected)


def test_dp_sgd_reaches_its_target_at_every_client_after_the_last_round(tmp_path: Path) -> None:
    told = settings(dp_sgd=DpSgdConfig(enabled=True, target_epsilon=3.0, delta=1e-3))
    rounds = federate(tmp_path, settings=told).rounds
    last = rounds[rounds["round"] == 2]
    assert last["epsilon"].between(2.9, 3.0).all()


def test_without_privacy_epsilon_is_not_a_number(tmp_path: Path) -> None:
    assert federate(tmp_path, rounds=1).rounds["epsilon"].isna().all()


def test_secret_noise_does_not_follow_the_seed(tmp_path: Path) -> None:
    runs = [
        federate(tmp_path / str(i), rounds=1, differential_privacy=private(), secret_noise=True)
        for i in range(2)
    ]
    assert not same(runs[0].raw, runs[1].raw)
    assert FederationConfig(engine="deployment").has_secret_noise
    assert not FederationConfig().has_secret_noise


@pytest.mark.parametrize("seed", [7, None])
def test_poisson_selection_has_the_stated_rate(seed: int | None) -> None:
    sizes = dict.fromkeys(range(50), 1)
    counts = [len(poisson_clients(sizes, 0.3, seed, r)) for r in range(60)]
    assert sum(counts) / (50 * 60) == pytest.approx(0.3, abs=0.03)
    assert len(set(counts)) > 5
    assert poisson_clients(sizes, 1.0, 7, 1) == sorted(sizes)


def test_target_and_clients_give_the_noise() -> None:
    found = plan(clients=40, fraction=0.25, target_epsilon=4.0)
    assert found.epsilon(12) == pytest.approx(4.0, rel=1e-3)
    assert found.expected_clients == 10.0


@pytest.mark.parametrize("fraction", [0.1, 1.0])
def test_local_noise_is_not_amplified_by_sampling(fraction: float) -> None:
    # Whoever reads the messages sees who sent them; a replaced update moves by twice the norm.
    found = plan(clients=40, fraction=fraction, placement="local", noise_multiplier=3.0)
    assert (found.sampling_rate, found.accounted, found.noise_multiplier) == (1.0, 1.5, 3.0)
    assert found.epsilon(12) == epsilon_spent(1.5, 1.0, 12, 1e-3)
    solved = plan(clients=40, fraction=fraction, placement="local", target_epsilon=4.0)
    assert solved.epsilon(FederationConfig().num_rounds) == pytest.approx(4.0, rel=1e-3)
    assert solved.noise_multiplier == 2.0 * solved.accounted


def test_noise_on_the_count_is_paid_for_by_more_noise_on_the_update() -> None:
    found = plan(clipping="adaptive")
    assert found.count_noise == 2.0  # no less than the noise multiplier
    assert found.noise_multiplier**-2 + (2 * found.count_noise) ** -2 == pytest.approx(2.0**-2)
    with pytest.raises(SettingsError, match=r"count_noise is 0\.5.*more than 1 is needed"):
        plan(clipping="adaptive", adaptive={"count_noise": 0.5})


@pytest.mark.parametrize(
    ("federation", "said"),
    [
        ({"pooled": True}, "one client with all data"),
        ({"local_work": {"unit": "images_per_round"}}, "steps or epochs"),
        ({"aggregation": {"rule": "median"}}, "aggregation of its own"),
        ({"aggregation": {"clip_norm": {"bound": 1.0}}}, "aggregation of its own"),
    ],
)
def test_senseless_federations_are_refused(federation: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        FederationConfig(**{"local_work": STEPS, "differential_privacy": private(), **federation})


@pytest.mark.parametrize("amounts", [{}, {"noise_multiplier": 1.0, "target_epsilon": 1.0}])
@pytest.mark.parametrize("group", [DifferentialPrivacyConfig, DpSgdConfig])
def test_exactly_one_amount_of_noise_is_given(group: type, amounts: dict) -> None:
    group(**amounts)
    with pytest.raises(ValidationError, match="exactly one"):
        group(enabled=True, **amounts)


def test_local_noise_goes_with_a_robust_rule_and_not_with_adaptive_clipping() -> None:
    local = private(placement="local")
    FederationConfig(local_work=STEPS, differential_privacy=local, aggregation={"rule": "median"})
    with pytest.raises(ValidationError, match="needs placement central"):
        private(placement="local", clipping="adaptive")


def test_what_epsilon_does_not_cover_is_refused() -> None:
    federation = FederationConfig(local_work=STEPS, differential_privacy=private())
    network, training = settings().build_network(), TrainingConfig()
    check_privacy(federation, training, network)
    for option in ("filters_clients", "uploads_personal", "shares_images"):
        with pytest.raises(SettingsError, match="does not cover"):
            check_privacy(federation, training, network, **{option: True})
    of_images = TrainingConfig(dp_sgd=DpSgdConfig(enabled=True, target_epsilon=1.0))
    with pytest.raises(SettingsError, match="both enabled"):
        check_privacy(federation, of_images, network)
    with pytest.raises(SettingsError, match="they depend on who takes part"):
        check_privacy(FederationConfig(), of_images, network)
    secret = federation.model_copy(update={"secret_noise": True, "checkpoint_every": 2})
    with pytest.raises(SettingsError, match="checkpoint_every is 2"):
        check_privacy(secret, training, network)


def test_the_dcgan_is_refused_by_the_name_of_its_layer(tmp_path: Path) -> None:
    network = build_dcgan(DcganConfig(), 1, 32, seed=0)
    of_images = TrainingConfig(dp_sgd=DpSgdConfig(enabled=True, noise_multiplier=1.0))
    with pytest.raises(SettingsError, match=r"layer generator\.\S+ \(BatchNorm2d\)"):
        check_privacy(FederationConfig(), of_images, network)
    federation = FederationConfig(local_work=STEPS, differential_privacy=private())
    asked = ArmSettings(model=ModelConfig(family="dcgan"), federation=federation)
    images = ImageSet(np.zeros((2, 1, 32, 32), np.uint8))
    with pytest.raises(SettingsError, match="differential_privacy does not work with layer"):
        check_arm(images, images, asked, RunConfig(device="cpu"), tmp_path)
