"""Generator and discriminator of the DCGAN, built from parameters and a seed. No training here."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import DcganConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.seeding import derive_seed


class ClassGenerator(nn.Module):
    """Makes images of a class: its embedding lengthens the latent vector (arXiv 1411.1784)."""

    def __init__(self, layers: nn.Module, num_classes: int, embedding_dim: int) -> None:
        super().__init__()
        self.layers = layers
        self.class_embedding = nn.Embedding(num_classes, embedding_dim)

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        """Map latent vectors [N, L, 1, 1] and labels [N] to images [N, C, H, W] in [-1, 1]."""
        of_class = self.class_embedding(labels)[:, :, None, None]
        return cast(Tensor, self.layers(torch.cat([latent, of_class], dim=1)))


class ProjectionDiscriminator(nn.Module):
    """Judges an image and its class (Miyato and Koyama, arXiv 1802.05637, figure 1d).

    The logit is that of the image alone plus the inner product of its features, summed over places,
    and the embedding of the class.
    """

    def __init__(self, features: nn.Module, head: nn.Module, num_classes: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.class_embedding = nn.Embedding(num_classes, width)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Map images [N, C, H, W] and their labels [N] to logits [N], positive for real."""
        features = self.features(images)
        projection = (self.class_embedding(labels) * features.sum(dim=(2, 3))).sum(dim=1)
        return cast(Tensor, self.head(features) + projection)


_SMALLEST_SIDE = 4
_INIT_STD = 0.02
_LEAK = 0.2


class Dcgan(nn.Module):
    """Both networks of one model; their weights are named ``generator.*``, ``discriminator.*``.

    ``channels`` and ``image_size`` are those of the images that it makes and judges. With
    ``num_classes`` both networks take labels as well; 0: they know no classes.
    """

    def __init__(
        self, config: DcganConfig, channels: int, image_size: int, num_classes: int = 0
    ) -> None:
        super().__init__()
        self.channels = channels
        self.image_size = image_size
        self.latent_dim = config.latent_dim
        self.num_classes = num_classes
        length = config.latent_dim
        layers = _generator(config, channels, image_size, 2 * length if num_classes else length)
        features, head, width = _discriminator(config, channels, image_size)
        self.generator: nn.Module = layers
        self.discriminator: nn.Module = nn.Sequential(*features, *head)
        if num_classes:
            self.generator = ClassGenerator(layers, num_classes, length)
            self.discriminator = ProjectionDiscriminator(features, head, num_classes, width)

    def forward(self, latent: Tensor, *labels: Tensor) -> Tensor:
        """Map latent vectors [N, latent_dim, 1, 1] and ``labels`` [N] to images in [-1, 1]."""
        return cast(Tensor, self.generator(latent, *labels))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile both networks in place; training calls them one by one."""
        self.generator.compile(*args, **kwargs)
        self.discriminator.compile(*args, **kwargs)


def check_image_size(image_size: int) -> None:
    """Raise SettingsError for a side that doubling does not reach; names the nearest."""
    if smallest_side(image_size) == image_size:
        raise SettingsError(
            f"the images have {image_size} pixels a side, but model.family dcgan makes even sides; "
            f"set images.image_size={image_size + 1}, or leave this arm out by --pipelines"
        )


def smallest_side(image_size: int) -> int:
    """Return the side that the generator begins with: halved as often as 4 pixels are left."""
    side = image_size
    while side % 2 == 0 and side // 2 >= _SMALLEST_SIDE:
        side //= 2
    return side


def build_dcgan(
    config: DcganConfig, channels: int, image_size: int, seed: int, num_classes: int = 0
) -> Dcgan:
    """Return networks for ``channels`` x ``image_size`` x ``image_size`` images, by ``seed`` alone.

    Weights and embeddings are from N(0, 0.02), BatchNorm scales from N(1, 0.02), as in the paper.
    Raises SettingsError: see :func:`check_image_size`.
    """
    check_image_size(image_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "dcgan"))
        network = Dcgan(config, channels, image_size, num_classes)
        network.apply(_draw_weights)
    return network


def _widths(config: DcganConfig, image_size: int) -> list[int]:
    """Return channels from the smallest side to image_size
    2, and at full size if any.
    """
    doublings = (image_size // smallest_side(image_size)).bit_length() - 1
    widths = [config.base_channels * 2**level for level in reversed(range(doublings))]
    return widths + widths[-1:] * (config.layers_per_resolution > 1)


def _generator(
    config: DcganConfig, channels: int, image_size: int, in_channels: int
) -> nn.Sequential:
    """Map [N, in_channels, 1, 1] to [N, C, H, W] in [-1, 1]; no BatchNorm at the output."""
    widths = _widths(config, image_size)
    extra, last = config.layers_per_resolution - 1, widths[-1]
    layers = _hidden(nn.ConvTranspose2d, in_channels, widths[0], smallest_side(image_size), 1, 0)
    for width, following in pairwise(widths):
        for _ in range(extra):
            layers += _hidden(nn.Conv2d, width, width, 3, 1, 1)
        layers += _hidden(nn.ConvTranspose2d, width, following, 4, 2, 1)
    if not extra:
        return nn.Sequential(*layers, nn.ConvTranspose2d(last, channels, 4, 2, 1), nn.Tanh())
    for _ in range(extra - 1):
        layers += _hidden(nn.Conv2d, last, last, 3, 1, 1)
    return nn.Sequential(*layers, nn.Conv2d(last, channels, 3, 1, 1), nn.Tanh())


def _discriminator(
    config: DcganConfig, channels: int, image_size: int
) -> tuple[nn.Sequential, nn.Sequential, int]:
    """Return what maps [N, C, H, W] to features, these to logits [N], and their channels."""
    widths = _widths(config, image_size)[::-1]
    extra = config.layers_per_resolution - 1
    first = (3, 1, 1) if extra else (4, 2, 1)
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], *first), nn.LeakyReLU(_LEAK)]
    for _ in range(extra - 1):
        layers += _hidden(nn.Conv2d, widths[0], widths[0], 3, 1, 1, leaky=True)
    for width, following in pairwise(widths):
        layers += _hidden(nn.Conv2d, width, following, 4, 2, 1, leaky=True)
        for _ in range(extra):
            layers += _hidden(nn.Conv2d, following, following, 3, 1, 1, leaky=True)
    head = nn.Sequential(nn.Conv2d(widths[-1], 1, smallest_side(image_size)), nn.Flatten(0))
    return nn.Sequential(*layers), head, widths[-1]


def _hidden(
    convolution: Callable[..., nn.Module],
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int,
    padding: int,
    leaky: bool = False,
) -> list[nn.Module]:
    """Return a convolution without bias, BatchNorm, and ReLU or LeakyReLU."""
    return [
        convolution(in_channels, out_channels, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(_LEAK) if leaky else nn.ReLU(),
    ]


def _draw_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Embedding):
        # Of torch's own size, N(0, 1), the class drowns the latent vector.
        nn.init.normal_(module.weight, 0.0, _INIT_STD)
        return
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, _INIT_STD)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, _INIT_STD)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
