"""An arm is a block in ``conf``: the pipelines, the checks and the commands follow it."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession

from phoenix_pipeline.cli import run
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.arm_blocks import ArmRegistry, arm_registry, wrong_names
from phoenix_pipeline.framework.project import open_config
from phoenix_pipeline.pipeline_registry import build_pipelines, register_pipelines

REPOSITORY = Path(__file__).parents[2]
FIVE = ("centralized", "fedavg", "data_sharing", "personalization", "dcgan")


@pytest.fixture
def sixth(project: Path) -> Path:
    """Add an arm in conf/local, as a user does, and another in an environment."""
    (project / "conf/local/parameters_mine.yml").write_text(
        "arms:\n  my_arm:\n    federation: {num_rounds: 1}\n"
    )
    (project / "conf/other/parameters.yml").write_text("arms: {theirs: }\n")
    for split in ("train", "test"):
        (project / f"data/01_raw/{split}.parquet").write_text("never opened")
    return project


def test_a_block_in_local_is_an_arm_that_runs(sixth: Path) -> None:
    config = open_config(sixth)
    assert config.arms == (*FIVE, "my_arm")
    assert config["parameters"]["arms"] == [*FIVE, "my_arm"]
    assert config["parameters"]["my_arm"]["federation"] == {
        "num_rounds": 1,
        "local_work": {"unit": "steps", "amount": 10},
    }
    result = CliRunner().invoke(run, ["--pipelines", "shared,my_arm"])
    assert result.exit_code == 0, result.stderr
    assert (sixth / "data/06_models/my_arm/weights.txt").is_file()


def test_an_environment_has_its_own_arms(sixth: Path) -> None:
    assert open_config(sixth, "other").arms == (*FIVE, "theirs")
    assert open_config(sixth, "smoke").arms == FIVE
    result = CliRunner().invoke(run, ["--env", "other", "--pipelines", "my_arm"])
    assert result.exit_code == 2
    assert "my_arm: there is no such pipeline" in result.stderr
    assert "theirs" in result.stderr


@pytest.mark.parametrize(("env", "arm"), [("other", "theirs"), (None, "my_arm")])
def test_every_session_gets_the_pipelines_of_its_arms(
    sixth: Path, env: str | None, arm: str
) -> None:
    """As kedro-viz and notebooks do: no command of ours, and arms of an earlier session known."""
    arm_registry.use(("fedavg",))
    assert arm not in pipelines
    with KedroSession.create(project_path=sixth, env=env) as session:
        session.load_context()
        assert arm in pipelines
        session.run(pipeline_names=["shared", arm])


def test_without_a_session_kedro_env_decides(sixth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `kedro registry list` does."""
    monkeypatch.setattr("phoenix_pipeline.pipeline_registry.arm_registry", ArmRegistry())
    assert {*FIVE, "my_arm"} < register_pipelines().keys()
    monkeypatch.setenv("KEDRO_ENV", "other")
    assert {*FIVE, "theirs"} < register_pipelines().keys()
    assert "my_arm" not in register_pipelines()


def test_stages_and_the_comparison_hold_every_arm() -> None:
    made = build_pipelines(("fedavg", "my_arm"))
    assert {node.namespace for node in made["federated_training"].nodes} == {"fedavg", "my_arm"}
    assert {"fedavg.metrics", "my_arm.metrics"} <= made["comparison"].inputs()
    own = {node.namespace for node in made["my_arm"].nodes}
    assert own == {"clients", "references", "my_arm"}


def test_an_arm_on_request_is_in_no_plain_run_and_no_stage() -> None:
    made = build_pipelines(("fedavg", "extra"), ("extra",))

    def arms_of(name: str) -> set[str | None]:
        return {node.namespace for node in made[name].nodes} & {"fedavg", "extra"}

    for name in ("__default__", "sampling", "evaluation", "privacy_audit"):
        assert arms_of(name) == {"fedavg"}
    for name in ("all_arms", "comparison"):
        assert arms_of(name) == {"fedavg", "extra"}
    assert arms_of("extra") == {"extra"}
    assert made["__default__"].inputs() <= build_pipelines(("fedavg",))["__default__"].inputs()


def test_conf_says_which_arms_are_on_request(project: Path) -> None:
    blocks = {"extra": {"on_request": True}, "other": {"on_request": False}}
    config = open_config(project, None, {"arms": blocks})
    assert config.on_request == ("extra",) and {"extra", "other"} < set(config.arms)
    assert config["parameters"]["extra"].keys() == config["parameters"]["other"].keys()


def test_no_arm_takes_the_name_of_what_stands_beside_the_arms() -> None:
    made = build_pipelines(("fedavg",))["__default__"]
    boxes = {node.namespace for node in made.nodes} - {"fedavg"}
    (compare,) = (node for node in made.nodes if "comparison" in node.outputs)
    inputs = {name for name in compare.inputs if "." not in name} - {"reference_scores"}
    assert all(wrong_names([name], lambda path: "") for name in boxes | inputs | {"floor"})


@pytest.mark.parametrize(
    ("block", "parts"),
    [
        ({"My-Arm": {}}, ["arms.My-Arm: a name has lower-case letters", "(--params)"]),
        ({"training": {}}, ["arms.training: this name is taken"]),
        ({"checkpoints": {}}, ["arms.checkpoints: this name is taken"]),
        ({"x": 3}, ["arms.x: got 3, must be a block of settings"]),
        ({"x": {"on_request": 1}}, ["arms.x.on_request: got 1, must be true or false (--params)"]),
        ({"x": {"trainin": {}}}, ["arms.x.trainin: unknown group", "did you mean training?"]),
        (
            {"x": {"training": {"batch_size": 0}}},
            ["arms.x.training.batch_size: got 0", "(--params)"],
        ),
    ],
)
def test_a_wrong_block_is_one_line(project: Path, block: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        open_config(project, None, {"arms": block})["parameters"]
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line


def test_no_arm_may_be_called_like_a_stage(project: Path) -> None:
    for stage in build_pipelines(()).keys() - {"__default__"}:
        with pytest.raises(SettingsError, match=f"arms.{stage}: this name is taken"):
            open_config(project, None, {"arms": {stage: {}}}).arms  # noqa: B018


def test_a_list_of_arms_is_refused(project: Path) -> None:
    with pytest.raises(SettingsError, match=r"arms: a list stands where a block of settings"):
        open_config(project, None, {"arms": ["x"]}).arms  # noqa: B018


def test_a_block_of_an_arm_that_nobody_made_is_an_unknown_parameter(project: Path) -> None:
    with pytest.raises(SettingsError, match=r"fedavgg: unknown parameter; did you mean fedavg\?"):
        open_config(project, None, {"fedavgg": {"training": {}}})["parameters"]


def test_settings_at_the_top_level_win_over_the_arms_own_block(project: Path) -> None:
    params = {"centralized": {"federation": {"checkpoint_every": 9}}}
    centralized = open_config(project, None, params)["parameters"]["centralized"]
    assert centralized["federation"]["checkpoint_every"] == 9
    assert centralized["federation"]["pooled"] is True


def test_the_documented_example_works(project: Path) -> None:
    text = (REPOSITORY / "docs/parameters.md").read_text(encoding="utf-8")
    example = (
        text.partition("## How to add an arm")[2].partition("```yaml\n")[2].partition("```")[0]
    )
    assert example.startswith("# conf/local/parameters_arms.yml\n")
    (project / "conf/local/parameters_arms.yml").write_text(example)
    params = {"large_pool": {"training": {"batch_size": 32}}}
    groups = open_config(project, None, params)["parameters"]["large_pool"]
    assert groups["shared_pool"] == {"beta": 0.3, "alpha": 0.5}
    assert groups["training"]["batch_size"] == 32
