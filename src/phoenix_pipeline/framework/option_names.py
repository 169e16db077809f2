"""Names that ``kedro run`` is given, checked first: Kedro does so late, or not at all."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from phoenix_pipeline.config.settings_errors import hint
from phoenix_pipeline.errors import SettingsError

_NODE_OPTIONS = {"node_names": "nodes", "from_nodes": "from-nodes", "to_nodes": "to-nodes"}
_DATASET_OPTIONS = {"from_inputs": "from-inputs", "to_outputs": "to-outputs"}
# Nodes and datasets are a hundred: the nearest ones say more than all of them.
_MOST_GUESSES = 3
_LISTED_BY = {"node": "kedro registry describe", "dataset": "kedro catalog describe-datasets"}


def check_names(options: Mapping[str, Any], pipelines: Mapping[str, Pipeline]) -> None:
    """Check the names of pipelines, tags, namespaces, nodes and datasets in ``options``.

    ``options``: what Kedro's ``run`` is called with. Raises SettingsError: names the unknown one,
    and those that come nearest.
    """
    chosen = options.get("pipeline")
    names = [chosen] if chosen else options.get("pipelines") or []
    _check_listed("pipeline", names, pipelines)
    nodes = [node for name in names or ["__default__"] for node in pipelines[name].nodes]
    _check_listed("tag", options.get("tags") or (), {tag for node in nodes for tag in node.tags})
    _check_listed("namespace", options.get("namespaces") or (), _namespaces(nodes))
    node_names = {node.name for node in nodes}
    datasets = {name for node in nodes for name in (*node.inputs, *node.outputs)}
    for option, written in _NODE_OPTIONS.items():
        _check_near(written, "node", options.get(option) or (), node_names)
    for option, written in _DATASET_OPTIONS.items():
        _check_near(written, "dataset", options.get(option) or (), datasets)


def _check_listed(kind: str, names: Iterable[str], allowed: Collection[str]) -> None:
    for name in names:
        if name not in allowed:
            raise SettingsError(f"--{kind}s {name}: there is no such {kind}{hint(name, allowed)}")


def _check_near(option: str, kind: str, names: Iterable[str], allowed: Collection[str]) -> None:
    for name in names:
        if name not in allowed:
            near = _nearest(name, allowed)
            guess = f"; did you mean {' or '.join(near)}?" if near else ";"
            raise SettingsError(
                f"--{option} {name}: there is no such {kind} in what is run{guess} "
                f"`{_LISTED_BY[kind]}` lists them"
            )


def _nearest(name: str, allowed: Iterable[str]) -> list[str]:
    """Return the names whose last part comes nearest to that of ``name``, in any namespace."""
    ends: dict[str, list[str]] = {}
    for each in sorted(allowed):
        ends.setdefault(each.rpartition(".")[2], []).append(each)
    near = difflib.get_close_matches(name.rpartition(".")[2], ends, n=1)
    found = [each for end in near for each in ends[end]]
    return difflib.get_close_matches(name, found, n=_MOST_GUESSES, cutoff=0.0)


def _namespaces(nodes: Iterable[Node]) -> set[str]:
    """Return the namespaces of ``nodes`` and those around them."""
    parts = [node.namespace.split(".") for node in nodes if node.namespace]
    return {".".join(path[: i + 1]) for path in parts for i in range(len(path))}
