"""Write ``docs/parameters.md`` from the Pydantic models in ``config`` and the YAML in ``conf``.

Usage: ``python scripts/make_parameter_docs.py [file]``; run it after every change of either.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from phoenix_pipeline.config import ARM_GROUPS, SHARED_GROUPS, deep_merge
from phoenix_pipeline.framework.arm_blocks import ARMS
from phoenix_pipeline.framework.mlflow_store import TrackingConfig
from phoenix_pipeline.strategies.strategy import known_strategies

PROJECT = Path(__file__).parents[1]
DEFAULT_FILE = PROJECT / "docs" / "parameters.md"
CONF = PROJECT / "conf"
INTRODUCTION = Path(__file__).with_name("parameter_docs_introduction.md")
COMMAND = "python scripts/make_parameter_docs.py"

# Only parameters with a unit; the others are numbers without one, names or switches.
UNITS = {
    "images.image_size": "pixels",
    "images.max_train_images": "images",
    "images.max_test_images": "images",
    "partition.num_clients": "clients",
    "partition.classes_per_client": "classes",
    "partition.min_images_per_client": "images",
    "shared_pool.warmup_steps": "steps",
    "model.unet.block_out_channels": "channels",
    "model.unet.attention_resolutions": "pixels",
    "model.unet.attention_head_dim": "channels",
    "model.noise.num_train_timesteps": "steps",
    "model.dcgan.base_channels": "channels",
    "training.batch_size": "images",
    "training.micro_batch": "images",
    "federation.num_rounds": "rounds",
    "federation.local_work.amount": "as `unit` says",
    "federation.min_clients": "clients",
    "federation.workers": "clients",
    "federation.threads_per_client": "threads",
    "federation.checkpoint_every": "rounds",
    "federation.snapshots.every": "rounds",
    "federation.snapshots.images": "images",
    "federation.round_timeout_s": "seconds",
    "federation.link.uplink_mbit_s": "Mbit/s",
    "federation.link.downlink_mbit_s": "Mbit/s",
    "federation.link.latency_ms": "milliseconds",
    "threshold_filter.monitor_every": "rounds",
    "threshold_filter.monitor_samples": "images",
    "threshold_filter.monitor_steps": "steps",
    "threshold_filter.patience": "checks",
    "threshold_filter.min_clients": "clients",
    "sampling.num_images": "images",
    "sampling.batch_size": "images",
    "sampling.num_steps": "steps",
    "sampling.grid_images": "images",
    "evaluation.max_reference_images": "images",
    "evaluation.batch_size": "images",
    "evaluation.kid_subset_size": "images",
    "evaluation.classifier.channels": "channels",
    "evaluation.classifier.epochs": "epochs",
    "evaluation.classifier.batch_size": "images",
}
# One change that people make, for each group.
EXAMPLES = {
    "run": "run.seed=1,run.device=cpu",
    "images": "train_images=/path/to/folder,images.image_size=32",
    "partition": "partition.scheme=dirichlet,partition.dirichlet_alpha=0.1",
    "evaluation": "evaluation.reference_split=test,evaluation.utility=true",
    "shared_pool": "data_sharing.shared_pool.beta=0.2,data_sharing.shared_pool.alpha=0.5",
    "model": "model.unet.layers_per_block=2",
    "training": "phoenix.training.ema_horizon=0.05,training.learning_rate=0.001",
    "federation": "federation.num_rounds=120,fedavg.federation.compression.up.codec=int8",
    "personal_layers": "fedavg.personal_layers.layers=last_up_block",
    "threshold_filter": "personalization.threshold_filter.patience=3",
    "sampling": "sampling.num_images=5000,sampling.num_steps=50",
}
# A longer one is cut by its blocks.
LARGEST_TABLE = 16
SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
PLURALS = {"integer": "integers", "number": "numbers", "string": "names"}
TYPES = {
    "integer": "integer",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "object": "mapping",
}
HEADER = ("| key | meaning | takes | default |", "|---|---|---|---|")

logger = logging.getLogger("make_parameter_docs")


def main(file: Path = DEFAULT_FILE) -> None:
    """Write the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(render(), encoding="utf-8")
    logger.info("%s written", file)


def render() -> str:
    """Return the whole document; raises ValueError for a unit whose parameter does not exist."""
    base = read_parameters("base")
    groups = {**SHARED_GROUPS, **ARM_GROUPS}
    known = {path for name, model in groups.items() for path, _ in leaves(model, name)}
    if strangers := sorted(UNITS.keys() - known):
        raise ValueError(f"UNITS in {COMMAND} names {strangers}, which config does not have")
    lines = [f"<!-- Made by `{COMMAND}`; change config or conf instead. -->", ""]
    lines += [INTRODUCTION.read_text(encoding="utf-8").strip(), ""]
    lines += ["## Groups that all arms share", ""]
    for name, model in SHARED_GROUPS.items():
        lines += section(name, model, base)
    lines += ["## Groups that each arm may set for itself", ""]
    for name, model in ARM_GROUPS.items():
        lines += section(name, model, base)
    lines += strategy_section()
    lines += [*arm_section(base), *environment_sections()]
    tracking = yaml.safe_load((CONF / "base" / "mlflow.yml").read_text(encoding="utf-8"))
    lines += ["## Tracking: `mlflow.yml`", "", *HEADER]
    lines += [row(path, field, tracking) for path, field in leaves(TrackingConfig, "")]
    return "\n".join(lines).rstrip() + "\n"


def strategy_section() -> list[str]:
    """Return what each strategy does, and a table of its settings."""
    lines = ["### `federation.strategies`", ""]
    lines += ["Any of these together, each with its own keys; `{}` takes the defaults.", ""]
    for name, strategy in known_strategies().own.items():
        said = re.sub(r"\n\s+", " ", (strategy.__doc__ or "").strip().split("\n\n")[0])
        path = f"federation.strategies.{name}"
        rows = [row(key, field, {}) for key, field in leaves(strategy.Settings, path)]
        lines += [f"`{name}`: {said}", "", *HEADER, *rows, ""]
    return lines


def section(name: str, model: type[BaseModel], base: Mapping[str, Any]) -> list[str]:
    """Return the group's description, an example, and a table for it and each block in it."""
    text = re.sub(r"\n\s+", " ", (model.__doc__ or "").strip())
    lines = [f"### `{name}`", "", text, ""]
    if name in EXAMPLES:
        lines += ["```sh", f"kedro run --params {EXAMPLES[name]}", "```", ""]
    found = list(leaves(model, name))
    large = len(found) > LARGEST_TABLE
    blocks: dict[str, list[str]] = {}
    for path, field in found:
        block = path.split(".")[1] if large and path.count(".") > 1 else ""
        blocks.setdefault(block, []).append(row(path, field, base))
    for block, rows in blocks.items():
        lines += [f"#### `{name}.{block}`", ""] if block else []
        lines += [*HEADER, *rows, ""]
    return lines


def leaves(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted name and the field of every parameter, those of nested groups too."""
    for name, field in model.model_fields.items():
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, path)
        else:
            yield path, field


def look_up(settings: Any, keys: list[str], default: Any) -> Any:
    """Return the value at ``keys``, or ``default`` where the settings do not go so far."""
    if not keys:
        return settings
    known = isinstance(settings, Mapping) and keys[0] in settings
    return look_up(settings[keys[0]], keys[1:], default) if known else default


def row(path: str, field: FieldInfo, base: Mapping[str, Any]) -> str:
    """Return one line of a table; a default that ``conf/base`` sets is the one shown."""
    default = field.get_default(call_default_factory=True)
    value = look_up(base, path.split("."), default)
    cells = (
        f"`{path}`",
        field.description or "",
        takes(field, UNITS.get(path, "")),
        show(value),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def schema_of(field: FieldInfo) -> dict[str, Any]:
    """Return the JSON schema of one field, with its bounds."""
    return TypeAdapter(Annotated[field.annotation, field]).json_schema()


def alternatives(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the members of a union, null left out."""
    members = schema.get("anyOf", [schema])
    return [dict(member) for member in members if member.get("type") != "null"]


def takes(field: FieldInfo, unit: str = "") -> str:
    """Return type, range or names, and unit in one phrase; names need no type beside them."""
    words, choices = type_of(field), allowed(field)
    if words in ("name", "name or null") and choices:
        words = words.removeprefix("name").removeprefix(" or ")
        choices, words = (f"{choices} or {words}" if words else choices), ""
    return ", ".join(part for part in (words, choices, unit) if part)


def type_of(field: FieldInfo) -> str:
    """Return the type in words."""
    schema = schema_of(field)
    words = []
    for member in alternatives(schema):
        if member.get("type") == "array":
            inner = member.get("items") or member["prefixItems"][0]
            words.append(f"list of {PLURALS[inner['type']]}")
        else:
            words.append("name" if _is_name(member) else TYPES[member["type"]])
    if any(member.get("type") == "null" for member in schema.get("anyOf", [])):
        words.append("null")
    return " or ".join(words)


def _is_name(member: Mapping[str, Any]) -> bool:
    return member["type"] == "string" and ("enum" in member or "const" in member)


def allowed(field: FieldInfo) -> str:
    """Return the range or the names that may be given."""
    parts = []
    for member in alternatives(schema_of(field)):
        inner = member.get({"array": "items", "object": "additionalProperties"}.get(member["type"]))
        inner = inner if isinstance(inner, dict) else member
        choices = inner.get("enum", [inner["const"]] if "const" in inner else [])
        if choices:
            parts.append(", ".join(show(choice) for choice in choices))
        bounds = [f"{sign} {inner[key]:g}" for key, sign in SIGNS.items() if key in inner]
        if bounds:
            parts.append(" and ".join(bounds))
        if "pattern" in inner:
            parts.append(f"`{inner['pattern']}`")
        if member.get("minItems") or member.get("minLength"):
            parts.append("not empty")
    return "; ".join(parts)


def arm_section(base: Mapping[str, Any]) -> list[str]:
    """Return what each arm's block in ``conf/base`` sets."""
    lines = ["## What the arms set", ""]
    for arm, block in base[ARMS].items():
        settings = list(flatten(block or {}))
        lines += [f"- `{arm}`: {list_settings(settings)}"]
    return [*lines, ""]


def environment_sections() -> list[str]:
    """Return what each environment changes."""
    folders = sorted(path.name for path in CONF.iterdir() if path.is_dir())
    names = [name for name in folders if name not in ("base", "local")]
    changed = {name: settings for name in names if (settings := dict(environment(name)))}
    # Side by side where several change a setting; what one alone changes is a line of its own.
    shared = [key for key in _keys(changed) if sum(key in each for each in changed.values()) > 1]
    lines = ["## What the environments change", "", *_table(changed, shared)]
    for name, settings in changed.items():
        if alone := [(key, value) for key, value in settings.items() if key not in shared]:
            lines += [f"- `--env {name}` alone: {list_settings(alone)}"]
    return [*lines, ""] if changed else []


def _keys(changed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for settings in changed.values() for key in settings))


def _table(changed: Mapping[str, Mapping[str, Any]], keys: list[str]) -> list[str]:
    """Return a row for each of ``keys``, a column for each environment."""
    titles = "".join(f" `{name}` |" for name in changed)
    rows = [
        f"| `{key}` |" + "".join(f" {show(e[key]) if key in e else ''} |" for e in changed.values())
        for key in keys
    ]
    return [f"| key |{titles}", "|---|" + "---|" * len(changed), *rows, ""]


def environment(name: str) -> list[tuple[str, Any]]:
    """Return an environment's parameters and raw image paths by dotted name."""
    paths = CONF / name / "globals.yml"
    own = (yaml.safe_load(paths.read_text(encoding="utf-8")) or {}) if paths.is_file() else {}
    return list(flatten({**own, **read_parameters(name)}))


def list_settings(settings: list[tuple[str, Any]]) -> str:
    """Return settings as one line."""
    shown = [f"`{path}: {show(value).strip('`')}`" for path, value in settings]
    return ", ".join(shown) or "nothing; the groups above as they are"


def read_parameters(environment_name: str) -> dict[str, Any]:
    """Return the merged ``parameters*.yml`` of one environment."""
    merged: dict[str, Any] = {}
    for path in sorted((CONF / environment_name).rglob("parameters*.y*ml")):
        merged = deep_merge(merged, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    return merged


def flatten(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings by dotted name; names with ``_`` are YAML anchors."""
    for name, value in block.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, Mapping):
            yield from flatten(value, path)
        elif not str(name).startswith("_"):
            yield path, value


def show(value: Any) -> str:
    """Return a value as it is written in YAML."""
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    if isinstance(value, tuple):
        value = list(value)
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(*(Path(argument) for argument in sys.argv[1:2]))
