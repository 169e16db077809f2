"""A deployment is told what its sites' images are; the digits that ship with the project are not.

Sites resize their images as the run says. Left open, size and channels would be those of whatever
images the coordinator has, and so would be what the samples are scored against.
"""

from collections.abc import Mapping
from typing import Any

_EXAMPLE = "images.image_size=64,images.channels=3,train_images=/srv/reference"
_REFERENCE = "train_images"


def check_deployment(
    parameters: Mapping[str, Any], arms: tuple[str, ...], named: Mapping[str, Any]
) -> list[str]:
    """Return the problem of a deployment that leaves its images open; nothing without one.

    ``parameters``: with a block for each of ``arms``. ``named``: the sources of images that the
    command or the environment names.
    """
    deployed = [arm for arm in arms if parameters[arm]["federation"].get("engine") == "deployment"]
    missing = [
        f"images.{name}"
        for name in ("image_size", "channels")
        if parameters["images"].get(name) is None
    ]
    if not named.get(_REFERENCE):
        missing.append(f"{_REFERENCE} (real images to score against)")
    if not deployed or not missing:
        return []
    return [
        f"federation.engine is deployment, but {', '.join(missing)} not set: sites would train on "
        "images of the size and channels of the coordinator's own example images; set them in "
        f"conf/local (docs/deployment.md) or by --params {_EXAMPLE}"
    ]
