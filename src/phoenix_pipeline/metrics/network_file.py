"""A classifier from a user's TorchScript or ONNX file, behind the preprocessing it expects."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from phoenix_pipeline.config import JudgeFileConfig
from phoenix_pipeline.errors import CheckpointError, DataError, SettingsError
from phoenix_pipeline.extras import how_to_install
from phoenix_pipeline.images import ImageSet

Network = Callable[[Tensor], Tensor]

SETTING = "evaluation.classifier.file"
TORCHSCRIPT, ONNX = (".pt", ".ts", ".torchscript"), (".onnx",)
# ITU-R 601, as Pillow converts to grey.
_LUMA = (0.299, 0.587, 0.114)
_TRIAL_IMAGES = 8
_NEAR_ONE = 1e-3


@dataclass(frozen=True)
class FileNetwork:
    """Logits of uint8 images; ``order``: the file's output of each class."""

    network: Network
    config: JudgeFileConfig
    order: tuple[int, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits [N, classes] of uint8 ``images`` [N, C, H, W]; of probabilities, logs."""
        outputs = self.raw(images)[:, list(self.order)]
        if self.config.outputs == "probabilities":
            return outputs.clamp_min(torch.finfo(torch.float32).tiny).log()
        return outputs

    def raw(self, images: Tensor) -> Tensor:
        """Return float32 of uint8 [N, C, H, W]; raises SettingsError if that does not work."""
        prepared = prepare_images(images, self.config)
        try:
            outputs = self.network(prepared)
        except Exception as error:  # ONNX Runtime raises its own types, TorchScript RuntimeError
            raise SettingsError(
                f"{SETTING}.path {self.config.path!r} does not take images of shape "
                f"{tuple(prepared.shape)}: {_last_line(error)}; set {SETTING}.image_size and "
                f"{SETTING}.channels to what it was trained on, and export it with any batch size"
            ) from error
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(images):
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise SettingsError(
                f"{SETTING}.path {self.config.path!r} gives {got} for {len(images)} images; "
                f"allowed is one tensor ({len(images)}, classes)"
            )
        return outputs.float()


def prepare_images(images: Tensor, config: JudgeFileConfig) -> Tensor:
    """Return float32 [N, C, S, S] of uint8 [N, C, H, W]: channels, size, range, normalised."""
    pixels = images.float()
    if config.channels == 3 and pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    elif config.channels == 1 and pixels.shape[1] == 3:
        luma = torch.tensor(_LUMA, device=pixels.device).view(1, 3, 1, 1)
        pixels = (pixels * luma).sum(dim=1, keepdim=True)
    if config.image_size is not None and config.image_size != pixels.shape[-1]:
        side = (config.image_size, config.image_size)
        pixels = functional.interpolate(pixels, side, mode="bilinear", antialias=True)
    if config.value_range != "0..255":
        pixels = pixels / 255.0 if config.value_range == "0..1" else pixels / 127.5 - 1.0
    if config.mean:
        mean, std = (torch.tensor(v, device=pixels.device) for v in (config.mean, config.std))
        pixels = (pixels - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
    return pixels.contiguous()


def open_network(path: Path, device: torch.device) -> Network:
    """Return the network in ``path``; raises SettingsError, CheckpointError."""
    if path.suffix in TORCHSCRIPT:
        return _open_torchscript(path, device)
    if path.suffix in ONNX:
        return _open_onnx(path, device)
    raise SettingsError(
        f"{SETTING}.path is {str(path)!r}; allowed are TorchScript ({', '.join(TORCHSCRIPT)}) and "
        f"ONNX ({', '.join(ONNX)}); a torch.export file (.pt2) or a state dict holds pickled "
        "objects or no program: write it as ONNX with torch.onnx.export"
    )


def _open_torchscript(path: Path, device: torch.device) -> Network:
    try:
        with warnings.catch_warnings():
            # torch.jit is deprecated for torch.export, whose files are unpickled when read.
            warnings.simplefilter("ignore", category=FutureWarning)
            warnings.simplefilter("ignore", category=DeprecationWarning)
            network = torch.jit.load(str(path), map_location=device)
    except RuntimeError as error:
        raise _broken(path, "TorchScript", error) from error
    return network.eval()


def _open_onnx(path: Path, device: torch.device) -> Network:
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingsError(
            f"{SETTING}.path {str(path)!r} is an ONNX file, and ONNX Runtime is not installed; "
            f"install the extra `onnx` by {how_to_install('onnx')}"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    cuda = device.type == "cuda" and "CUDAExecutionProvider" in (
        onnxruntime.get_available_providers()
    )
    providers = [*(["CUDAExecutionProvider"] if cuda else []), "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime has an exception of its own for each kind of damage
        raise _broken(path, "ONNX", error) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)":
        raise CheckpointError(
            f"{SETTING}.path {str(path)!r} takes {[f'{i.name}: {i.type}' for i in inputs]} and "
            f"gives {[o.name for o in outputs]}; allowed is one input of tensor(float) and one "
            "output"
        )

    def run(images: Tensor) -> Tensor:
        (found,) = session.run([outputs[0].name], {inputs[0].name: images.cpu().numpy()})
        return torch.from_numpy(found)

    return run


def _broken(path: Path, kind: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{SETTING}.path {str(path)!r} cannot be read as {kind}: {_last_line(error)}; allowed is a "
        "whole network as torch.jit.save or torch.onnx.export writes it, not its weights alone"
    )


def _last_line(error: Exception) -> str:
    """Return the line of a message that says most: the last, after the program's own traceback."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def existing_file(file: JudgeFileConfig) -> Path:
    """Return the user's file; raises SettingsError where there is none."""
    path = Path(file.path or "")
    if not path.is_file():
        raise SettingsError(f"{SETTING}.path is {file.path!r}, which is not a file")
    return path


def open_own_judge(test: ImageSet, file: JudgeFileConfig, device: torch.device) -> FileNetwork:
    """Return the network, tried; raises SettingsError, CheckpointError, DataError."""
    network = FileNetwork(open_network(existing_file(file), device), file, _order(file, test))
    channels = file.channels or test.channels
    if len(file.mean) not in (0, 1, channels):
        raise SettingsError(
            f"{SETTING}.mean has {len(file.mean)} values for {channels} channel(s); allowed are "
            f"none, 1 or {channels}"
        )
    images = torch.from_numpy(np.ascontiguousarray(test.images[:_TRIAL_IMAGES])).to(device)
    with torch.inference_mode():
        outputs = network.raw(images).cpu().numpy()
    _check_outputs(outputs, test, file)
    return network


def _order(file: JudgeFileConfig, test: ImageSet) -> tuple[int, ...]:
    if not file.classes:
        return tuple(range(test.num_classes))
    if sorted(file.classes) != sorted(test.class_names):
        raise SettingsError(
            f"{SETTING}.classes is {list(file.classes)}; allowed are the images' classes "
            f"{list(test.class_names)}, in the order of the file's outputs"
        )
    return tuple(file.classes.index(name) for name in test.class_names)


def _check_outputs(outputs: np.ndarray, test: ImageSet, file: JudgeFileConfig) -> None:
    if outputs.shape[1] != test.num_classes:
        raise SettingsError(
            f"{SETTING}.path {file.path!r} has {outputs.shape[1]} outputs, and the images have "
            f"{test.num_classes} classes ({', '.join(test.class_names)}); allowed is one for each"
        )
    if not np.isfinite(outputs).all():
        raise DataError(f"{SETTING}.path {file.path!r} gives values that are not finite")
    sums_to_one = (abs(outputs.sum(axis=1) - 1) < _NEAR_ONE).all() and outputs.min() >= 0
    if sums_to_one != (file.outputs == "probabilities"):
        raise SettingsError(
            f"{SETTING}.outputs is {file.outputs}, but the file gives values from "
            f"{outputs.min():.3g} to {outputs.max():.3g} that "
            f"{'are' if sums_to_one else 'are no'} probabilities; set it to "
            f"{'probabilities' if sums_to_one else 'logits'}"
        )
