"""The folder of a trained arm: one model, or a shared body with a file of layers per client.

``phoenix.json`` holds the settings that rebuild the network, and which clients there are. Personal
models: ``shared_body.safetensors`` and ``clients/<client_id>.safetensors``. A global model lies in
its family's own layout (for diffusion the one of diffusers), beside them or alone.
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import file_digest, sha256
from pathlib import Path

from torch import Tensor, nn

from phoenix_pipeline.checkpoints import METADATA_FILE, atomic_path, load_tensors, save_tensors
from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.families import family_of
from phoenix_pipeline.families.provenance import (
    MODEL_DESCRIPTION,
    ModelDescription,
    NetworkSettings,
    TrainingRecord,
)
from phoenix_pipeline.images import GLOBAL_MODEL
from phoenix_pipeline.json_files import check_content, read_json, write_json
from phoenix_pipeline.latents.autoencoder import FOLDER as AUTOENCODER_FOLDER
from phoenix_pipeline.latents.autoencoder import (
    Autoencoder,
    attach,
    autoencoder_of,
    load_autoencoder,
)
from phoenix_pipeline.latents.space import LatentSpace, trained_shape

# Tables beside the models: rounds by client, and who trained on what.
ROUNDS_FILE, CLIENT_IMAGES_FILE = "rounds.parquet", "client_images.parquet"
_BODY = "shared_body.safetensors"
# Adapters as training knows them; the layout beside them has them merged.
_TRAINED = "adapters.safetensors"
_CLIENTS = "clients"


def write_models(
    folder: Path,
    body: Mapping[str, Tensor],
    personal: Iterable[tuple[int, Mapping[str, Tensor]]],
    global_network: nn.Module | None,
    metadata: TrainingRecord,
    autoencoder: Autoencoder | None = None,
) -> None:
    """Write the arm's models; the folder is complete or as it was.

    ``body``: shared arrays by name; written unless there is only a global model. ``personal``:
    (client_id, personal arrays), one client at a time in memory. ``global_network``: a complete
    network, or None where only clients have one. ``autoencoder``: whose latents the models learnt;
    None: pixels.
    """
    with atomic_path(folder) as temporary:
        if global_network is not None:
            model = ModelConfig.model_validate(metadata["settings"]["model"])
            attach(global_network, autoencoder)
            family_of(model).export(temporary, global_network, model, metadata)
            if family_of(model).arrays_at_rest(global_network):
                save_tensors(temporary / _TRAINED, global_network.state_dict(), {})
        clients = []
        for client_id, arrays in personal:
            save_tensors(_client_file(temporary, client_id), arrays, {"client_id": client_id})
            clients.append(client_id)
        if clients or global_network is None:
            save_tensors(temporary / _BODY, body, {})
        temporary.mkdir(exist_ok=True)
        if autoencoder and global_network is None:
            autoencoder.save(temporary / AUTOENCODER_FOLDER)
        described = {**metadata, "has_global_model": global_network is not None}
        described |= {"clients": clients, "weights_digest": weights_digest(temporary)}
        write_json(temporary / METADATA_FILE, described)


def read_description(folder: Path) -> ModelDescription:
    """Return what :func:`write_models` noted; raises CheckpointError where that is not there."""
    path = Path(folder) / METADATA_FILE
    try:
        content = read_json(path)
    except CheckpointError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise CheckpointError(
            f"there is no trained model in {folder}, for it has no {METADATA_FILE}; train the arm "
            f"first (kedro run --pipelines ARM), or name the environment (--env) or the folder "
            f"(data_root) of the run that trained it"
        ) from error
    return check_content(content, MODEL_DESCRIPTION, path)


def weights_digest(folder: Path) -> str:
    """Return a digest of all weights in ``folder``: equal for equal models, whenever written."""
    digest = sha256()
    for file in sorted(Path(folder).rglob("*.safetensors")):
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as weights:
            # safetensors writes the entries of its header in any order.
            header = json.loads(weights.read(int.from_bytes(weights.read(8), "little")))
            digest.update(json.dumps(header, sort_keys=True).encode())
            digest.update(file_digest(weights, sha256).digest())
    return digest.hexdigest()[:16]


def load_network(folder: Path, client_id: int = GLOBAL_MODEL) -> nn.Module:
    """Return the global or a client's network, on the CPU, to draw; raises CheckpointError."""
    folder = Path(folder)
    metadata = read_description(folder)
    settings = metadata["settings"]
    model = ModelConfig.model_validate(settings["model"])
    autoencoder = load_own_autoencoder(folder, metadata)
    if client_id == GLOBAL_MODEL and metadata["has_global_model"]:
        return attach(family_of(model).load(folder), autoencoder)
    if client_id not in metadata["clients"]:
        raise CheckpointError(f"{folder} has no {_name(client_id)}; it has {_names(metadata)}")
    body, _ = load_tensors(folder / _BODY)
    layers, _ = load_tensors(_client_file(folder, client_id))
    misfit = f"the layers of client {client_id} do not complete the shared body in {folder}"
    network = family_of(model).complete(build_network(settings), {**body, **layers}, misfit)
    return attach(network, autoencoder)


def load_own_autoencoder(folder: Path, metadata: ModelDescription) -> Autoencoder | None:
    """Return the models' autoencoder, None for pixels; raises CheckpointError if it is another."""
    known = metadata["settings"].get("latents")
    if not known:
        return None
    own = load_autoencoder(folder / AUTOENCODER_FOLDER)
    if own.space.digest != known["digest"]:
        raise CheckpointError(
            f"{folder / AUTOENCODER_FOLDER} has the digest {own.space.digest}, but the models were "
            f"trained on latents of {known['digest']}; put that autoencoder back, or train again"
        )
    return own


def build_network(settings: NetworkSettings) -> nn.Module:
    """Return the network that ``settings`` of :func:`read_description` describe, untrained."""
    model = ModelConfig.model_validate(settings["model"])
    classes, latents = len(settings["class_names"]), settings.get("latents")
    space = LatentSpace.model_validate(latents) if latents else None
    channels, side, _ = trained_shape(settings["channels"], settings["image_size"], space)
    return family_of(model).build(model, channels, side, settings["seed"], classes)


def build_as_trained(folder: Path, metadata: ModelDescription) -> nn.Module:
    """Return the network as training began, on its base; raises SettingsError, CheckpointError."""
    settings = metadata["settings"]
    autoencoder, known = load_own_autoencoder(folder, metadata), settings.get("base_digest")
    if not known:
        return attach(build_network(settings), autoencoder)
    start = metadata["trained_with"]["model"]["start_from"]
    model = {**settings["model"], "start_from": start}
    network = build_network({**settings, "model": model})
    found = family_of(ModelConfig.model_validate(model)).base_digest(network)
    if found != known:
        raise CheckpointError(
            f"{start} has other weights ({found}) than those that the adapters were trained on "
            f"({known}); put these back there, or train again"
        )
    return attach(network, autoencoder)


def load_as_trained(folder: Path, client_id: int = GLOBAL_MODEL) -> nn.Module:
    """Return :func:`load_network` as training changes it, adapters not merged; raises likewise."""
    metadata = read_description(folder)
    if not metadata["settings"].get("base_digest"):
        return load_network(folder, client_id)
    network = build_as_trained(folder, metadata)
    files = [folder / _TRAINED]
    if client_id != GLOBAL_MODEL:
        files = [folder / _BODY, _client_file(folder, client_id)]
    found = {name: array for file in files for name, array in load_tensors(file)[0].items()}
    trained = {name: found[name] for name in network.state_dict() if name in found}
    return fill(network, trained, f"the adapters in {folder} do not fit phoenix.json")


def fill(network: nn.Module, tensors: Mapping[str, Tensor], misfit: str) -> nn.Module:
    """Return ``network`` with these weights, to draw; raises CheckpointError, saying ``misfit``."""
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{misfit}: {str(error).splitlines()[-1].strip()}") from error
    return network.eval()


def assemble_client(folder: Path, client_id: int, target: Path) -> None:
    """Write one client's complete model, as a folder of :func:`write_models`, into ``target``.

    ``DDPMPipeline.from_pretrained`` loads one of diffusion. Raises CheckpointError: no such client.
    """
    record: ModelDescription = {**read_description(folder), "client_id": client_id}
    network = load_network(folder, client_id)
    write_models(target, {}, (), network, record, autoencoder_of(network))


def _client_file(folder: Path, client_id: int) -> Path:
    return folder / _CLIENTS / f"{client_id}.safetensors"


def _name(client_id: int) -> str:
    return "global model" if client_id == GLOBAL_MODEL else f"model of client {client_id}"


def _names(metadata: ModelDescription) -> str:
    ids = list(map(str, metadata["clients"]))
    clients = [f"models of clients {', '.join(ids)}"] if ids else []
    return " and ".join([*clients, *(["the global model"] if metadata["has_global_model"] else [])])
