"""Imports point down only, and each framework stays in its own folder; read from the sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "phoenix_pipeline"

LAYERS = (
    {"config", "seeding", "errors", "extras", "registry", "offline", "hub", "quantities"},
    {"checkpoints", "file_locks", "hardware", "progress", "threads"},
    {"child_process", "images", "json_files"},
    {"optimization"},
    {"diffusion", "gan", "latents"},
    {"families"},
    {"metrics", "partitioning", "strategies"},
    {"federated", "reporting"},
    {"arms"},
    {"api"},
    {"cli", "framework", "pipeline_registry", "pipelines", "settings", "__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
TOP = LAYERS[-1]
ONLY_IN = {"kedro": TOP, "kedro_datasets": TOP, "mlflow": TOP, "flwr": {"federated"}}
NOWHERE = {"cloudpickle", "dill", "joblib"}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of every import, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [alias.name for alias in node.names]
            base = node.module or ""
            if base == "phoenix_pipeline":
                yield from ((node.lineno, f"{base}.{name}") for name in names)
            else:
                yield node.lineno, base


def unit_of(path: Path) -> str:
    """Return the package or module directly below the root that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    unit = unit_of(path)
    if unit == "__init__":
        # For type checkers alone: it imports the interface where it is first used.
        names = {name for _, name in imported(path) if name.startswith("phoenix_pipeline")}
        assert names <= {"phoenix_pipeline.api"}
        return
    assert unit in LEVEL, f"{unit} has no layer; name it in LAYERS"
    for line, name in imported(path):
        root, _, rest = name.partition(".")
        place = f"{path.relative_to(PACKAGE)}:{line}"
        assert root not in NOWHERE, f"{place}: {root} is not used here"
        assert unit in ONLY_IN.get(root, {unit}), f"{place}: {root} belongs to {ONLY_IN[root]}"
        other = rest.split(".")[0]
        if root != "phoenix_pipeline" or other in (unit, "__version__"):
            continue
        assert other in LEVEL, f"{place}: {other} has no layer; name it in LAYERS"
        sideways = LEVEL[other] == LEVEL[unit] and unit not in TOP | LAYERS[0]
        assert LEVEL[other] <= LEVEL[unit], f"{place}: {unit} may not import {other}"
        assert not sideways, f"{place}: {unit} and {other} are on one layer"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_of_pickle_is_used_but_its_errors(path: Path) -> None:
    if path.name == "child_process.py":
        return  # Its two ends are one program, as with the standard library's process pools.
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "pickle" or node.attr.endswith("Error"), f"{path}:{node.lineno}"
        if isinstance(node, ast.ImportFrom):
            assert node.module != "pickle", f"{path}:{node.lineno}"


def test_the_whole_package_was_read() -> None:
    assert len(SOURCES) > 20
    assert {unit_of(path) for path in SOURCES} > {"images", "federated", "framework", "config"}
