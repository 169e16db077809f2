"""``docs/parameters.md`` is what the script makes, and says what the models enforce."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_parameter_docs.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_parameter_docs", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_file_is_what_the_script_makes(script: ModuleType) -> None:
    committed = script.DEFAULT_FILE.read_text(encoding="utf-8")
    assert committed == script.render(), f"run `{script.COMMAND}` and commit docs/parameters.md"


def test_every_parameter_has_a_meaning_and_a_row(script: ModuleType) -> None:
    text = script.render()
    for name, model in {**script.SHARED_GROUPS, **script.ARM_GROUPS}.items():
        for path, field in script.leaves(model, name):
            assert field.description, f"{path} has no description"
            assert f"| `{path}` | {field.description.replace('|', chr(92) + '|')} |" in text


@pytest.mark.parametrize(
    ("group", "key", "type_words", "allowed"),
    [
        ("images", "image_size", "integer or null", ">= 8 and <= 256"),
        ("images", "channels", "integer or null", "`1`, `3`"),
        ("federation", "client_fraction", "number", "> 0 and <= 1"),
        ("training", "precision", "name", "`fp32`, `bf16`, `fp16`"),
        ("training", "compile", "true or false or name", "`auto`"),
    ],
)
def test_types_and_ranges(
    script: ModuleType, group: str, key: str, type_words: str, allowed: str
) -> None:
    field = {**script.SHARED_GROUPS, **script.ARM_GROUPS}[group].model_fields[key]
    assert (script.type_of(field), script.allowed(field)) == (type_words, allowed)


@pytest.mark.parametrize(
    ("group", "key", "unit", "phrase"),
    [
        ("images", "image_size", "pixels", "integer or null, >= 8 and <= 256, pixels"),
        ("training", "precision", "", "`fp32`, `bf16`, `fp16`"),
        ("training", "compile", "", "true or false or name, `auto`"),
        ("run", "extensions", "", "list of names"),
    ],
)
def test_what_a_parameter_takes_is_one_phrase(
    script: ModuleType, group: str, key: str, unit: str, phrase: str
) -> None:
    field = {**script.SHARED_GROUPS, **script.ARM_GROUPS}[group].model_fields[key]
    assert script.takes(field, unit) == phrase


def test_conf_base_is_the_default_that_is_shown(script: ModuleType) -> None:
    field = script.ARM_GROUPS["federation"].model_fields["num_rounds"]
    assert script.row("federation.num_rounds", field, {}).endswith(f"`{field.default}` |")
    shown = script.row("federation.num_rounds", field, {"federation": {"num_rounds": 77}})
    assert shown.endswith("`77` |")


def test_every_example_names_parameters_that_there_are(script: ModuleType) -> None:
    groups = {**script.SHARED_GROUPS, **script.ARM_GROUPS}
    known = {path for name, model in groups.items() for path, _ in script.leaves(model, name)}
    arms = script.read_parameters("base")[script.ARMS]
    assert script.EXAMPLES.keys() <= groups.keys()
    for group, example in script.EXAMPLES.items():
        named = [part.partition("=")[0] for part in example.split(",") if "=" in part]
        heads = [name.partition(".")[0] for name in named]
        paths = [
            name.removeprefix(f"{head}.") if head in arms else name
            for name, head in zip(named, heads, strict=True)
        ]
        assert set(paths) - known <= {"train_images"}
        assert any(path.startswith(f"{group}.") for path in paths)
