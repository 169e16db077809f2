"""What a site would send in a federation, before it sends anything.

One step of real training on the site's own images, with the coordinator's settings; the answers are
written into a folder and go nowhere. Usage, at the site::

    python -m phoenix_pipeline.api.dry_run --settings settings.yml --to would_be_sent \\
        --node-config 'client-id=0 data="/srv/images" state-folder="/var/lib/phoenix"'

``settings.yml`` holds the coordinator's groups as in ``conf`` (docs/parameters.md); without it the
defaults of the package stand.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from phoenix_pipeline.api.settings import ARM_NAMES, arm_settings, shared_group
from phoenix_pipeline.arms.arm_model import ArmModel
from phoenix_pipeline.arms.setup import check_privacy_of
from phoenix_pipeline.checkpoints import save_tensors
from phoenix_pipeline.config import ARM_GROUPS, ArmSettings, ImagesConfig, deep_merge
from phoenix_pipeline.errors import PhoenixError, SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.json_files import write_json
from phoenix_pipeline.offline import stay_offline
from phoenix_pipeline.reporting.formatting import format_bytes

if TYPE_CHECKING:
    from phoenix_pipeline.federated.engines.rehearsal import Rehearsal
    from phoenix_pipeline.federated.job import FederatedJob
    from phoenix_pipeline.federated.own_models import OwnModels

logger = logging.getLogger(__name__)

REPORT_FILE = "would_be_sent.json"
ARRAYS_FILE = "arrays.safetensors"
NEVER_SENT = (
    "images, and their labels, names, times and places",
    "the node's configuration, paths of this machine",
    "Adam's moments and whatever else lies in the state folder",
)
_USED_GROUPS = ("run", "images", *ARM_GROUPS)
# Of the coordinator's reference images: what a class-conditional model learns.
_CLASSES = "class_names"


def dry_run(
    node_config: str, folder: Path, settings: Mapping[str, Any] | None = None, arm: str = "fedavg"
) -> dict[str, Any]:
    """Train one step at the site; write what it would send into ``folder``; return the report.

    Args:
        node_config: what ``flower-supernode --node-config`` is given.
        folder: gets the report as JSON, and the arrays of the answer as they would be sent.
        settings: the coordinator's groups by name, and blocks of arms, as in ``conf``; for a
            class-conditional model also ``class_names``, a list.
        arm: the arm that the federation is to train.

    Raises SettingsError: the settings or the node's configuration are not usable.
    Raises DataError: the images cannot be read.
    Raises FederationError: the site would refuse to take part; says why.
    """
    from phoenix_pipeline.federated.engines.rehearsal import parse_node_config, rehearse

    node = parse_node_config(node_config)
    job = _job(dict(settings or {}), arm, node.own)
    with tempfile.TemporaryDirectory(prefix="phoenix-") as state:
        rehearsal = rehearse(job, node_config, Path(state))
    report = _describe(rehearsal, job, arm)
    write_json(folder / REPORT_FILE, report)
    save_tensors(folder / ARRAYS_FILE, rehearsal.answers[-1].arrays, {"arm": arm})
    return report


def _job(given: dict[str, Any], arm: str, own: "OwnModels") -> "FederatedJob":
    """Return the run as the coordinator would begin it; no image, and the site's ``own`` models."""
    from phoenix_pipeline.federated.job import FederatedJob

    block = _merged((given.get("arms") or {}).get(arm), given.get(arm))
    known = {*_USED_GROUPS, *ARM_NAMES, "arms", _CLASSES, "partition", "evaluation"}
    unknown = set(given) - known
    if unknown:
        raise SettingsError(
            f"the settings name {', '.join(sorted(unknown))}; allowed are "
            f"{', '.join((*_USED_GROUPS, _CLASSES, 'arms', *ARM_NAMES))}"
        )
    run, images = shared_group("run", given.get("run")), shared_group("images", given.get("images"))
    groups = {name: _merged(given.get(name), block.get(name)) for name in ARM_GROUPS}
    groups["federation"] = _merged({"engine": "deployment"}, groups["federation"])
    chosen = arm_settings(arm, groups)
    blank = _blank_images(images, given.get(_CLASSES))
    model = ArmModel.of(blank, _with_own_folders(chosen, own), run)
    check_privacy_of(model)
    return FederatedJob(
        images=blank,
        client_images=pd.DataFrame({"client_id": [], "image_index": []}),
        config=model.settings.federation,
        settings=model.client_settings(),
        own=own,
    )


def _with_own_folders(settings: ArmSettings, own: "OwnModels") -> ArmSettings:
    """Return ``settings`` with this site's folders in the place of the coordinator's."""
    model = settings.model
    here: dict[str, str] = {}
    if model.lora.rank:
        use = "trains adapters on a model that each site has (model.lora)"
        here["start_from"] = _own_folder(own.base, use, "base-model")
    if model.autoencoder is not None:
        use = "learns latents of an autoencoder that each site has (model.autoencoder)"
        here["autoencoder"] = _own_folder(own.autoencoder, use, "autoencoder")
    return settings.model_copy(update={"model": model.model_copy(update=here)})


def _own_folder(folder: Path | None, use: str, key: str) -> str:
    if folder is None:
        raise SettingsError(f"the run {use}; set {key} in the node configuration to its folder")
    return str(folder)


def _merged(under: Any, over: Any) -> dict[str, Any]:
    return deep_merge(dict(under or {}), dict(over or {}))


def _blank_images(images: ImagesConfig, class_names: Sequence[str] | None) -> ImageSet:
    """Return no images of the run's size and classes, which the coordinator has to say."""
    if images.image_size is None or images.channels is None:
        raise SettingsError(
            "the settings leave images.image_size or images.channels open; the coordinator must "
            "set both, as for `engine: deployment`"
        )
    side = images.image_size
    pixels = np.empty((0, images.channels, side, side), dtype=np.uint8)
    if class_names is None:
        return ImageSet(pixels)
    return ImageSet(pixels, np.empty(0, dtype=np.int64), tuple(map(str, class_names)))


def _describe(rehearsal: "Rehearsal", job: "FederatedJob", arm: str) -> dict[str, Any]:
    answers = [
        {
            "when": answer.when,
            "bytes": answer.num_bytes,
            "numbers": dict(answer.numbers),
            "arrays": {
                name: {"dtype": str(tensor.dtype).removeprefix("torch."), "bytes": tensor.nbytes}
                for name, tensor in answer.arrays.items()
            },
        }
        for answer in rehearsal.answers
    ]
    return {
        "arm": arm,
        "images_read": rehearsal.num_images,
        "image_size": job.settings.image_size,
        "channels": job.settings.channels,
        "answers": answers,
        "made_of": {name: list(shape) for name, shape in rehearsal.shared.items()},
        "releases": bool(rehearsal.answers[0].numbers["releases"]),
        "personal_layers": {name: list(shape) for name, shape in rehearsal.kept.items()},
        "never_sent": list(NEVER_SENT),
    }


def format_report(report: Mapping[str, Any]) -> str:
    """Return the report as lines for a terminal."""
    lines = [f"{report['images_read']} images were read; nothing was sent. It would send:"]
    for answer in report["answers"]:
        lines.append(f"  {answer['when']}: {format_bytes(answer['bytes'])}")
        lines += [f"    {name} = {value}" for name, value in answer["numbers"].items()]
        for name, array in answer["arrays"].items():
            lines.append(f"    {name}: {array['dtype']}, {format_bytes(array['bytes'])}")
    lines.append(f"The arrays are made of {len(report['made_of'])} arrays of the model.")
    if stays := report["personal_layers"]:
        where = "go to the server after the last round" if report["releases"] else "stay here"
        lines.append(f"{len(stays)} arrays {where}: {', '.join(list(stays)[:3])}, ...")
    return "\n".join([*lines, "Never sent: " + "; ".join(report["never_sent"])])


def main() -> None:
    """Run it from the command line; exit status 2 where it would be refused."""
    stay_offline()  # Before diffusers reads the environment.
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--node-config", required=True, help="as for flower-supernode")
    parser.add_argument("--settings", type=Path, help="YAML file of the coordinator's settings")
    parser.add_argument("--arm", default="fedavg", help=f"one of {', '.join(ARM_NAMES)}")
    parser.add_argument("--to", type=Path, default=Path("would_be_sent"), help="folder to write to")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logger.setLevel(logging.INFO)
    try:
        report = dry_run(asked.node_config, asked.to, _read(asked.settings), asked.arm)
    except PhoenixError as error:
        logger.error("Error: %s", error)
        sys.exit(2)
    logger.info("%s\nwritten to %s", format_report(report), asked.to)


def _read(file: Path | None) -> Mapping[str, Any]:
    if file is None:
        return {}
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(given, dict):
        raise SettingsError(f"{file} is no mapping of groups to settings; see docs/parameters.md")
    return given


if __name__ == "__main__":
    main()
