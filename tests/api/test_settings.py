"""What a call is set to: the defaults of conf/base, and the caller's groups over them."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from phoenix_pipeline.api.settings import ARM_NAMES, ArmGroups, arm_settings, shared_group
from phoenix_pipeline.config import ARM_GROUPS, SHARED_GROUPS
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.config_loader import PhoenixConfigLoader

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "scripts/make_default_settings.py"


def loader(params: dict[str, Any] | None = None) -> PhoenixConfigLoader:
    options = {"base_env": "base", "default_run_env": "local"}
    return PhoenixConfigLoader(PROJECT / "conf", None, params, **options)


def test_the_packaged_defaults_are_those_of_conf_base(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_default_settings", SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(tmp_path / "defaults.yml")
    assert (tmp_path / "defaults.yml").read_text() == script.DEFAULT_FILE.read_text(), (
        "run: python scripts/make_default_settings.py"
    )


def test_every_arm_has_the_settings_of_kedro_run() -> None:
    parameters = loader()["parameters"]
    assert list(ARM_NAMES) == parameters["arms"]
    for arm in ARM_NAMES:
        settings = arm_settings(arm, {})
        for group, model in ARM_GROUPS.items():
            expected = model.model_validate(parameters[arm][group])
            assert getattr(settings, group) == expected, f"{arm}.{group}"
    for group, model in SHARED_GROUPS.items():
        assert shared_group(group, None) == model.model_validate(parameters[group])


def test_keywords_win_block_by_block() -> None:
    given = {"local_work": {"amount": 7}}
    federation = arm_settings("centralized", {"federation": given}).federation
    assert federation.local_work.model_dump() == {"unit": "images_per_round", "amount": 7}
    assert federation.pooled and "num_rounds" in federation.auto


@pytest.mark.parametrize(
    ("group", "values"),
    [
        ("federation", {"num_round": 3}),
        ("training", {"batch_size": 0}),
        ("model", {"unet": {"channels": 3}}),
        ("federation", {"pooled": True, "differential_privacy": {"enabled": True}}),
    ],
)
def test_what_is_wrong_is_told_in_the_words_of_the_command_line(
    group: str, values: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError) as of_command:
        loader({"fedavg": {group: values}})["parameters"]
    with pytest.raises(SettingsError) as of_call:
        arm_settings("fedavg", {group: values})
    said = str(of_command.value).removeprefix("fedavg.").removesuffix(" (--params)")
    assert str(of_call.value) == said


def test_names_and_blocks_that_are_none_are_refused() -> None:
    with pytest.raises(
        SettingsError,
        match="arm is 'fedavgg'; allowed are centralized, phoenix, phoenix_labels, fedavg",
    ):
        arm_settings("fedavgg", {})
    with pytest.raises(SettingsError, match="federation: got 12, must be a block of settings"):
        arm_settings("fedavg", {"federation": 12})  # type: ignore[dict-item]
    with pytest.raises(SettingsError, match=r"partition\.schema: unknown key; did you mean scheme"):
        shared_group("partition", {"schema": "iid"})


def test_the_wheel_has_the_defaults() -> None:
    import tomllib

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert "*.yml" in project["tool"]["setuptools"]["package-data"]["phoenix_pipeline.config"]
    assert set(yaml.safe_load((PROJECT / "src/phoenix_pipeline/config/defaults.yml").read_text()))


def test_train_names_every_group_of_an_arm_and_no_other() -> None:
    assert set(ArmGroups.__annotations__) == set(ARM_GROUPS)
    with pytest.raises(SettingsError, match=r"trainig: unknown group.*training"):
        arm_settings("fedavg", {"trainig": {"batch_size": 4}})
