"""Trained networks as a folder of safetensors and JSON; ``generator.safetensors`` makes images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phoenix_pipeline.checkpoints import METADATA_FILE, atomic_path, load_tensors, save_tensors
from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.gan.dcgan import Dcgan, build_dcgan
from phoenix_pipeline.json_files import read_json, write_json

CONFIG_FILE = "config.json"
_NETWORKS = ("generator", "discriminator")


def export_networks(
    folder: Path, network: Dcgan, model: ModelConfig, metadata: Mapping[str, Any]
) -> None:
    """Write ``<network>.safetensors`` for both, ``config.json``, and ``metadata`` beside them.

    ``config.json`` holds the model group, ``channels``, ``image_size`` and ``num_classes``. A
    folder of that name is replaced when the new one is complete.
    Raises StorageError: the folder could not be written in full.
    """
    config = {
        "model": model.model_dump(mode="json"),
        "channels": network.channels,
        "num_classes": network.num_classes,
        "image_size": network.image_size,
    }
    with atomic_path(folder) as temporary:
        for name in _NETWORKS:
            tensors = network.get_submodule(name).state_dict()
            save_tensors(temporary / f"{name}.safetensors", tensors, {"network": name})
        write_json(temporary / CONFIG_FILE, config)
        write_json(temporary / METADATA_FILE, dict(metadata))


def load_networks(folder: Path) -> Dcgan:
    """Return both networks, on the CPU, to draw; raises CheckpointError."""
    folder = Path(folder)
    config = read_json(folder / CONFIG_FILE)
    try:
        model = ModelConfig.model_validate(config["model"])
        channels, side = int(config["channels"]), int(config["image_size"])
        network = build_dcgan(model.dcgan, channels, side, 0, int(config.get("num_classes", 0)))
    except (KeyError, TypeError, ValueError, SettingsError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder / CONFIG_FILE} does not describe a DCGAN: {reason}; export the model again"
        ) from error
    for name in _NETWORKS:
        path = folder / f"{name}.safetensors"
        tensors, _ = load_tensors(path)
        try:
            network.get_submodule(name).load_state_dict(tensors)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{path} does not fit {CONFIG_FILE} beside it: {reason}; export the model again"
            ) from error
    return network.eval()
