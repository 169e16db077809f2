"""Merging of groups into arms, and the lines that wrong settings give."""

from pathlib import Path
from typing import Any

import pytest
from kedro.framework.project import settings

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.config_loader import ARM_GROUPS, PhoenixConfigLoader

ARMS = ("centralized", "fedavg", "data_sharing", "personalization", "dcgan")


def load(project: Path, env: str | None = None, **runtime: Any) -> PhoenixConfigLoader:
    return PhoenixConfigLoader(project / "conf", env, runtime, **settings.CONFIG_LOADER_ARGS)


def test_every_arm_has_every_group(project: Path) -> None:
    parameters = load(project)["parameters"]
    for arm in ARMS:
        assert set(parameters[arm]) == set(ARM_GROUPS)
    assert parameters["run"] == {"seed": 7}
    assert parameters["images"] == {}


def test_an_arm_inherits_groups_and_adds_its_own(project: Path) -> None:
    parameters = load(project)["parameters"]
    shared = {"num_rounds": 5, "local_work": {"unit": "steps", "amount": 10}}
    assert parameters["fedavg"]["federation"] == shared
    assert parameters["centralized"]["federation"] == {
        **shared,
        "pooled": True,
        "checkpoint_every": 4,
    }


def test_an_environment_changes_single_settings(project: Path) -> None:
    parameters = load(project, "smoke")["parameters"]
    for arm in ARMS:
        assert parameters[arm]["federation"]["num_rounds"] == 2
        assert parameters[arm]["federation"]["local_work"] == {"unit": "steps", "amount": 10}
    assert parameters["fedavg"]["training"] == {"learning_rate": 1e-3, "batch_size": 8}
    assert parameters["centralized"]["training"] == {"learning_rate": 1e-3}
    assert parameters["centralized"]["federation"]["pooled"] is True


@pytest.mark.parametrize("env", [None, "smoke"])
def test_a_runtime_group_reaches_all_arms_and_an_arm_only_itself(
    project: Path, env: str | None
) -> None:
    runtime = {"federation": {"num_rounds": 3}, "fedavg": {"federation": {"num_rounds": 9}}}
    parameters = load(project, env, **runtime)["parameters"]
    rounds = {arm: parameters[arm]["federation"]["num_rounds"] for arm in ARMS}
    assert rounds == {arm: 9 if arm == "fedavg" else 3 for arm in ARMS}


def test_what_an_arm_sets_itself_wins_over_a_runtime_group(project: Path) -> None:
    parameters = load(project, None, federation={"checkpoint_every": 2, "pooled": False})
    rounds = {arm: parameters["parameters"][arm]["federation"] for arm in ARMS}
    assert rounds["fedavg"]["checkpoint_every"] == 2
    assert rounds["centralized"]["checkpoint_every"] == 4
    assert rounds["centralized"]["pooled"] is True


def test_other_training_images_leave_the_default_test_split(project: Path) -> None:
    assert load(project)["globals"]["test_images"] == "data/01_raw/test.parquet"
    assert load(project, "other")["globals"]["test_images"] is None
    assert load(project, "smoke")["globals"]["test_images"] == "data/01_raw/test.parquet"
    (project / "conf/local/globals.yml").write_text("train_images: photos\n")
    assert load(project)["globals"]["test_images"] is None
    assert load(project)["globals"]["data_root"] == "data"
    entry = load(project, None, train_images="mine")["catalog"]["raw_images"]
    assert entry["train"]["path"] == "mine"
    assert entry["test"]["path"] is None
    both = load(project, None, train_images="mine", test_images="its")["catalog"]["raw_images"]
    assert both["test"]["path"] == "its"


@pytest.mark.parametrize(
    ("runtime", "parts"),
    [
        (
            {"personalisation": {"x": 1}},
            ["personalisation: unknown parameter", "did you mean personalization?", "(--params)"],
        ),
        ({"fedavg": {"trainin": {}}}, ["fedavg.trainin: unknown group", "did you mean training?"]),
        ({"federation": 3}, ["federation: got 3", "block of settings"]),
        ({"fedavg": {"training": [1]}}, ["fedavg.training: got [1]", "block of settings"]),
        (
            {"federation": {"num_round": 3}},
            ["federation.num_round: unknown key", "did you mean num_rounds?"],
        ),
        (
            {"fedavg": {"training": {"batch_size": 0}}},
            ["fedavg.training.batch_size: got 0", "greater than or equal to 1", "(--params)"],
        ),
        (
            {"federation": {"local_work": {"unit": "days"}}},
            ["federation.local_work.unit: got 'days'", "'epochs', 'steps' or 'images_per_round'"],
        ),
        ({"run": {"seed": "x"}}, ["run.seed: got 'x'", "valid integer"]),
        (
            {"run": {"device": "gpu"}},
            ["run.device: got 'gpu', must be auto, cpu, cuda, cuda:N (N a number) or mps"],
        ),
        (
            {"federation": {"attendance": {0: "0-3"}}},
            ["federation.attendance.0: got '0-3', must be rounds from 1 on, such as '3-'"],
        ),
        ({"training": {"resume": None, "learning_rate": None}}, ["learning_rate: got null"]),
        (
            {"model": {"unet": {"block_out_channels": [30]}}},
            ["model.unet: block_out_channels has 30", "does not divide"],
        ),
    ],
)
def test_a_wrong_setting_gives_one_line(
    project: Path, runtime: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(project, None, **runtime)["parameters"]
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line


def test_a_wrong_group_setting_is_reported_once_with_its_file(project: Path) -> None:
    file = project / "conf/base/parameters_federation.yml"
    file.write_text("federation: {num_rounds: -1}\n")
    with pytest.raises(SettingsError) as caught:
        load(project)["parameters"]
    assert str(caught.value) == (
        "federation.num_rounds: got -1, must be greater than or equal to 1 "
        "(conf/base/parameters_federation.yml)"
    )


def test_an_environment_file_is_named_before_the_base_file(project: Path) -> None:
    (project / "conf/smoke/parameters.yml").write_text("federation: {num_rounds: 0}\n")
    with pytest.raises(SettingsError, match=r"\(conf/smoke/parameters.yml\)"):
        load(project, "smoke")["parameters"]


def test_an_unknown_environment_is_named_with_the_known_ones(project: Path) -> None:
    with pytest.raises(SettingsError, match=r"conf/smok; did you mean smoke\? .*base, local"):
        load(project, "smok")


DEPLOYED = {"federation": {"engine": "deployment"}}
SHAPE = {"images": {"image_size": 64, "channels": 3}}


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "images.image_size, images.channels, train_images"),
        (SHAPE, "but train_images"),
        ({"train_images": "mine"}, "images.image_size, images.channels not set"),
        ({"images": {"image_size": 64}, "train_images": "mine"}, "but images.channels not set"),
    ],
)
def test_a_deployment_says_what_its_images_are(
    project: Path, given: dict[str, Any], missing: str
) -> None:
    with pytest.raises(SettingsError, match=r"federation\.engine is deployment") as raised:
        load(project, None, **DEPLOYED, **given)["parameters"]
    assert missing in str(raised.value)


def test_a_deployment_that_says_so_is_loaded_by_the_command_or_the_environment(
    project: Path,
) -> None:
    assert load(project, None, **DEPLOYED, **SHAPE, train_images="mine")["parameters"]
    assert load(project, "other", **DEPLOYED, **SHAPE)["parameters"]
    one = {"fedavg": {"federation": {"engine": "deployment"}}}
    with pytest.raises(SettingsError, match=r"images\.image_size"):
        load(project, None, **one)["parameters"]
