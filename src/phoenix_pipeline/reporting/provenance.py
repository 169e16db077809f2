"""Were the arms made with the same settings, and with those of today? What a table must mark."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from phoenix_pipeline.config import ARM_GROUPS, SHARED_GROUPS, ArmSettings
from phoenix_pipeline.families.by_image_size import settle_arm
from phoenix_pipeline.quantities import counted
from phoenix_pipeline.reporting.arm_results import ArmResults
from phoenix_pipeline.reporting.formatting import MISSING

# Groups that should be the same for all arms of one experiment.
SHARED = ("run", "images", "partition", "evaluation", "privacy_audit")
_SHOWN = 6
Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Deviation:
    """``arms`` were made with ``values`` (dotted key -> theirs, today's) that are not today's."""

    arms: tuple[str, ...]
    values: Mapping[str, tuple[str, str]]

    def sentence(self) -> str:
        """Return it for a log or a page."""
        listed = [f"{k} {then} (now {now})" for k, (then, now) in self.values.items()]
        more = len(listed) - _SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        return (
            f"{', '.join(self.arms)}: made with other settings than those of this command, and "
            f"shown with their own: {'; '.join(listed[:_SHOWN])}{rest}"
        )


def mark_settings(
    results: Sequence[ArmResults], parameters: Mapping[str, Any], ignored: Collection[str]
) -> tuple[list[ArmResults], list[str]]:
    """Return the arms with the settings in which each is not of today's, and sentences on those.

    ``parameters``: today's. ``ignored``: as of :func:`deviations`.
    """
    made = {r.arm: r.settings for r in results}
    found = deviations(made, {r.arm: _present(parameters, r) for r in results}, ignored)
    keys = {arm: ", ".join(each.values) for each in found for arm in each.arms}
    marked = [replace(r, other_settings=keys.get(r.arm, "")) for r in results]
    conditions = {r.arm: r.metrics["conditions"] for r in results}
    data = {
        arm: {"train_images": of["train_images"], "test_images": of["test_images"]}
        for arm, of in conditions.items()
    }
    audits = {
        r.arm: {"privacy_audit": r.audit["conditions"]["privacy_audit"]} for r in results if r.audit
    }
    unlike = [*disagreements(made, data, ignored), *(each.sentence() for each in found)]
    return marked, [*unlike, *disagreements(audits, {}, ("privacy_audit.batch_size",))]


def _present(parameters: Mapping[str, Any], result: ArmResults) -> dict[str, dict[str, Any]]:
    """Return the groups that this command would make the arm with, of images of its size.

    Kedro hands a group as a model where a node of the same run asks for one, else as it is written
    in ``conf``.
    """
    shared = {name: group.model_validate(parameters[name]) for name, group in SHARED_GROUPS.items()}
    own = ArmSettings.model_validate(parameters[result.arm])
    settled = settle_arm(own, result.description["settings"]["image_size"])
    groups = {**shared, **{name: getattr(settled, name) for name in ARM_GROUPS}}
    return {name: groups[name].model_dump(mode="json") for name in result.settings}


def deviations(
    made: Mapping[str, Settings],
    present: Mapping[str, Settings],
    ignored: Collection[str] = (),
) -> list[Deviation]:
    """Return where arms were made with other settings than the present ones.

    ``made``, ``present``: arm -> its groups. ``ignored``: dotted keys, or beginnings of them, that
    change no result. Arms with the same deviation are told together.
    """
    found: dict[tuple[tuple[str, tuple[str, str]], ...], list[str]] = {}
    for arm, groups in made.items():
        then, now = flatten_settings(groups), flatten_settings(present[arm])
        keys = [key for key in dict.fromkeys([*then, *now]) if not _is_ignored(key, ignored)]
        values = {
            key: (then.get(key, MISSING), now.get(key, MISSING))
            for key in keys
            if then.get(key) != now.get(key)
        }
        if values:
            found.setdefault(tuple(values.items()), []).append(arm)
    return [Deviation(tuple(arms), dict(values)) for values, arms in found.items()]


def disagreements(
    made: Mapping[str, Settings],
    data: Mapping[str, Mapping[str, str]],
    ignored: Collection[str] = (),
) -> list[str]:
    """Return a sentence for all that arms do not share; ``data``: arm -> digests of its images."""
    shared = {arm: {g: groups[g] for g in SHARED if g in groups} for arm, groups in made.items()}
    flat = {arm: flatten_settings(groups) for arm, groups in shared.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    sentences = []
    for key in keys:
        values = {arm: settings.get(key, MISSING) for arm, settings in flat.items()}
        if len(set(values.values())) > 1 and not _is_ignored(key, ignored):
            sentences.append(f"The arms do not share {key}: {_of_all(values)}")
    for name in dict.fromkeys(name for digests in data.values() for name in digests):
        values = {arm: digests.get(name, MISSING) for arm, digests in data.items()}
        if len(set(values.values())) > 1:
            same = f"The arms do not have the same {name.replace('_', ' ')}"
            sentences.append(f"{same} (by their digests): {_of_all(values)}")
    return sentences


def experiment_facts(arms: Sequence[ArmResults]) -> dict[str, str]:
    """Return the head of the report: when it was made, and what the arms were trained on.

    A fact that is not the same for all arms is told with the arms that it is true of. Arms that
    pool their images have no clients.
    """
    held = {arm.arm: arm.trained_images for arm in arms if not arm.is_pooled}
    clients = {name: str(t["client_id"].nunique()) for name, t in held.items() if len(t)}
    return {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Seed": _of_all({arm.arm: str(arm.settings["run"]["seed"]) for arm in arms}),
        "Clients": _of_all(clients),
        "Partition": _of_all({arm.arm: _division(arm.settings) for arm in arms}),
    }


def _division(settings: Settings) -> str:
    if settings["federation"]["engine"] == "deployment":
        return "sites of a deployment"
    partition = settings["partition"]
    if partition["scheme"] != "pathological":
        return str(partition["scheme"])
    return (
        f"pathological, {counted(partition['classes_per_client'], 'class', 'classes')} per client"
    )


def _of_all(values: Mapping[str, str]) -> str:
    """Return the value of all arms, or each of the values with the arms that have it."""
    by_value: dict[str, list[str]] = {}
    for arm, value in values.items():
        by_value.setdefault(value, []).append(arm)
    if len(by_value) <= 1:
        return next(iter(by_value), MISSING)
    return "; ".join(f"{value} ({', '.join(arms)})" for value, arms in by_value.items())


def _is_ignored(key: str, ignored: Collection[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in ignored)


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as dotted keys and values written as in YAML."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten_settings(value, f"{prefix}{name}.")
        else:
            flat[prefix + str(name)] = _write(value)
    return flat


def differing_settings(settings: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return settings that differ: dotted key -> arm -> value, ``""`` where an arm has none."""
    keys = dict.fromkeys(key for values in settings.values() for key in values)
    rows = {key: {arm: values.get(key, "") for arm, values in settings.items()} for key in keys}
    return {key: row for key, row in rows.items() if len(set(row.values())) > 1}


def _write(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_write, value))}]"
    return str(value)
