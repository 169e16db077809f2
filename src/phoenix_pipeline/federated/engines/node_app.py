"""The ClientApp of a deployment: what a SuperNode runs, on its own images and in its own folders.

Everything that the server must not decide stands in the node's own configuration
(``flower-supernode --node-config``): which images, where state is kept, what is released.
"""

from phoenix_pipeline.offline import stay_offline

stay_offline()  # In a process that Flower started, before diffusers reads the environment.

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context, Message
from pydantic import Field, ValidationError

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.config.data import Colour, Fit, Window
from phoenix_pipeline.config.settings_errors import hint
from phoenix_pipeline.errors import DataError, FederationError, SettingsError
from phoenix_pipeline.federated.client_app import build_client_app, read_settings
from phoenix_pipeline.federated.client_state import ClientStates
from phoenix_pipeline.federated.own_models import OwnModels, SiteLatents
from phoenix_pipeline.federated.records import CONFIG, ClientSettings
from phoenix_pipeline.federated.site_demands import Demands, SiteDemands
from phoenix_pipeline.federated.site_errors import answer_with_code
from phoenix_pipeline.federated.sites import Site
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import ImageSet, align_classes, count_images, read_images

LEDGER = "spent.json"
_RUN_KEY = re.compile(r"[0-9a-f]{16}")


class NodeConfig(Demands):
    """A node's own configuration; on the command line with dashes instead of underscores."""

    client_id: int = Field(ge=0, description="This client's number, unique in the federation.")
    data: Path = Field(description="Image Parquet, or a folder of images; only read here.")
    state_folder: Path = Field(description="Where this client keeps state between rounds.")
    shared_pool: Path | None = Field(
        None, description="Images that the consortium agreed to share; trained on like own ones."
    )
    base_model: Path | None = Field(
        None, description="Folder of the model that a run with adapters (LoRA) is to be trained on."
    )
    autoencoder: Path | None = Field(
        None, description="Folder of the autoencoder for a run that learns latents."
    )
    image_column: str = Field("img", description="Parquet column of the images.")
    label_column: str = Field(
        "label", description="Parquet column of the classes, which a conditional model learns."
    )
    fit: Fit = Field(
        "crop", description="How images that are not square become so: crop, pad or stretch."
    )
    background: Colour = Field(
        "white", description="Colour that transparent and padded images are put on."
    )
    window: Window | None = Field(
        None, description="Values of deep grey images that become black and white, `low..high`."
    )
    release_personal_layers: bool = Field(
        False, description="Hand this client's personal layers to the server after the last round."
    )
    device: str = Field("auto", description="Where this client trains: auto, cpu, cuda:0, ...")
    threads: int = Field(0, ge=0, description="CPU threads; 0: as PyTorch sees fit.")

    @property
    def own(self) -> OwnModels:
        """The trained models that this client has."""
        return OwnModels(self.base_model, self.autoencoder)


def open_node(message: Message, context: Context) -> Site:
    """Return this node's site, its images as the server's settings want them.

    Raises SettingsError: the node's configuration is not usable; names the key.
    Raises DataError: its images are not readable.
    Raises FederationError: the message has no settings, or names a run in a way that no server of
    this project does.
    Raises SiteRefusal: the run would take more memory than this site gives, or learns the latents
    of an autoencoder that is not this site's.
    """
    node = read_node_config(context)
    if node.threads:
        torch.set_num_threads(node.threads)
    settings = read_settings(message)
    sources = [node.data, *([node.shared_pool] if node.shared_pool else [])]
    own_demands = node.model_dump(include=set(Demands.model_fields))
    demands = SiteDemands(ledger=node.state_folder / LEDGER, **own_demands)
    demands.check_memory(settings, sum(map(count_images, sources)))
    latents = SiteLatents.of(settings, node.own)
    parts = [read_images(source, _reading(node, settings)) for source in sources]
    device = resolve_device(node.device)
    images = np.concatenate([part.images for part in parts])
    # Each message may come to a process of its own: latents are kept in a file.
    trained = (
        latents.encode_once(images, device, node.state_folder)
        if latents
        else torch.from_numpy(images).to(device)
    )
    return Site(
        node.client_id,
        trained,
        ClientStates(_state_folder(node, str(message.content[CONFIG].get("run", "")))),
        releases_personal_layers=node.release_personal_layers,
        demands=demands,
        labels=_labels(parts, settings.class_names, device),
        own=node.own,
    )


def _reading(node: NodeConfig, settings: ClientSettings) -> ImagesConfig:
    """Return how the node's images are read: its own columns and cuts, the run's size."""
    return ImagesConfig(
        image_column=node.image_column,
        fit=node.fit,
        background=node.background,
        window=node.window,
        label_column=node.label_column if settings.class_names else None,
        image_size=settings.image_size,
        channels=settings.channels,
    )


def _labels(
    parts: Sequence[ImageSet], class_names: tuple[str, ...], device: torch.device
) -> torch.Tensor | None:
    """Return int64 [N] in the order of ``class_names``, if any; raises DataError for odd labels."""
    if not class_names:
        return None
    labels = [align_classes(part, class_names).labels for part in parts]
    known = [own for own in labels if own is not None]
    if len(known) < len(parts):
        raise DataError(
            "this run learns the classes of images, but images of this node have no labels; set "
            "label-column, or use a folder for each class"
        )
    return torch.from_numpy(np.concatenate(known)).to(device)


def read_node_config(context: Context) -> NodeConfig:
    """Return the node's own configuration, checked."""
    given = {key.replace("-", "_"): value for key, value in context.node_config.items()}
    try:
        return NodeConfig.model_validate(given)
    except ValidationError as error:
        raise SettingsError(
            f"node configuration {_first_fault(error)}: change --node-config of this SuperNode"
        ) from error


def _first_fault(error: ValidationError) -> str:
    """Return the key and what is wrong with it; an unknown key first, since another may want it."""
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    key = "-".join(str(part) for part in first["loc"]).replace("_", "-")
    names = dict.fromkeys([*NodeConfig.__annotations__, *NodeConfig.model_fields])
    allowed = [name.replace("_", "-") for name in names]
    if first["type"] == "extra_forbidden":
        return f"{key!r}: unknown key{hint(key, allowed)}"
    return f"{key!r}: {first['msg']}; allowed keys are {', '.join(allowed)}"


def _state_folder(node: NodeConfig, run_key: str) -> Path:
    """Return a folder of this run; no message reaches outside the node's own state folder."""
    if run_key and not _RUN_KEY.fullmatch(run_key):
        raise FederationError(f"the server calls the run {run_key!r}; 16 hex digits are allowed")
    return node.state_folder / (run_key or "none")


app = build_client_app(open_node, answer_with_code)
