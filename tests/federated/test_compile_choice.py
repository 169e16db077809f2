"""``training.compile: auto`` becomes true or false by the number of steps."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from phoenix_pipeline.config import DpSgdConfig, LocalWorkConfig
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.server import choose_compiling, count_steps
from phoenix_pipeline.optimization.compilation import STACKED, TRAINING
from tests.federated.tiny import federate, job, same, settings


def with_work(rounds: int, unit: str, amount: float, **options: Any) -> Any:
    base = job(rounds=rounds, **options)
    work = LocalWorkConfig.model_validate({"unit": unit, "amount": amount})
    return replace(base, config=base.config.model_copy(update={"local_work": work}))


# Two clients of 12 and 36 images, batch 6.
@pytest.mark.parametrize(
    ("unit", "amount", "per_round"),
    [("steps", 5, 10), ("epochs", 1, 8), ("images_per_round", 60, 10)],
)
def test_steps_of_the_whole_run(unit: str, amount: float, per_round: int) -> None:
    assert count_steps(with_work(3, unit, amount)) == 3 * per_round


def test_half_of_the_clients_make_half_of_the_steps() -> None:
    assert count_steps(with_work(4, "steps", 5, client_fraction=0.5)) == 20
    assert count_steps(with_work(4, "images_per_round", 60, client_fraction=0.5)) == 40


@pytest.mark.parametrize(("steps", "expected"), [(7499, False), (7500, True)])
def test_auto_compiles_long_runs_and_says_so(
    steps: int, expected: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        settled = choose_compiling(with_work(1, "steps", steps))
    assert settled.settings.training.compile is expected
    assert f"auto chooses {str(expected).lower()} for {2 * steps:,} steps on cpu" in caplog.text


def test_a_step_of_several_clients_counts_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        settled = choose_compiling(with_work(1, "steps", 50_000, stacked_clients=2))
    assert settled.settings.training.compile is False
    assert (
        "auto chooses false for 50,000 steps of all clients on cpu: compiling does not pay there"
        in caplog.text
    )


def test_on_a_gpu_a_step_of_several_clients_pays_later_than_one_clients() -> None:
    assert [TRAINING.pays(steps, "cuda") for steps in (4_999, 5_000)] == [False, True]
    assert [STACKED.pays(steps, "cuda") for steps in (15_999, 16_000)] == [False, True]


@pytest.mark.parametrize("given", [True, False])
def test_what_is_set_is_kept(given: bool) -> None:
    told = with_work(1, "steps", 50_000, settings=settings(compile=given))
    assert choose_compiling(told) is told


def test_nothing_is_compiled_on_machines_that_are_not_known() -> None:
    told = with_work(1, "steps", 50_000, engine="deployment")
    assert choose_compiling(told).settings.training.compile is False


def test_auto_and_false_are_the_same_short_run(tmp_path: Path) -> None:
    auto = federate(tmp_path / "auto", settings=settings(compile="auto"))
    plain = federate(tmp_path / "plain", settings=settings(compile=False))
    assert same(auto.raw, plain.raw)


@pytest.mark.slow
def test_a_compiled_run_learns_the_same(tmp_path: Path) -> None:
    compiled = federate(tmp_path / "yes", settings=settings(compile=True), workers=1)
    plain = federate(tmp_path / "no", settings=settings(compile=False), workers=1)
    for name, tensor in plain.raw.items():
        assert (compiled.raw[name] - tensor).abs().max() < 2e-3


def test_gradients_of_single_images_are_never_compiled() -> None:
    private = settings(dp_sgd=DpSgdConfig(enabled=True, noise_multiplier=1.0))
    settled = choose_compiling(with_work(1, "steps", 50_000, settings=private))
    told = settled.settings.model_dump_json()
    # Clients validate what they are told.
    assert ClientSettings.model_validate_json(told).training.compile is False
