"""Partial updates of the U-Net (FedDiffuse, arXiv 2406.12575): which arrays a client exchanges.

Encoder: input convolution, time embedding, down blocks. Bottleneck: the middle block. Decoder: up
blocks, output normalisation and convolution.

- ``usplit``: all arrays go down; a pair of clients sends one model up between them.
- ``ulatdec``, ``udec``: the other arrays are never exchanged. They are personal layers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.seeding import numpy_generator

Scheme = Literal["full", "usplit", "ulatdec", "udec"]

_ENCODER = ("conv_in", "time_embedding", "down_blocks")
_BOTTLENECK = ("mid_block",)
_DECODER = ("up_blocks", "conv_norm_out", "conv_out")
_HALVES: Mapping[str, tuple[str, ...]] = {
    "all": (*_ENCODER, *_BOTTLENECK, *_DECODER),
    "encoder": (*_ENCODER, *_BOTTLENECK),
    "decoder": _DECODER,
}
_KEPT: Mapping[str, tuple[str, ...]] = {
    "full": (),
    "usplit": (),
    "ulatdec": _ENCODER,
    "udec": (*_ENCODER, *_BOTTLENECK),
}


def kept_prefixes(scheme: Scheme) -> tuple[str, ...]:
    """Return the prefixes of layers that ``scheme`` leaves on the client, as personal layers."""
    return _KEPT[scheme]


def assign_halves(
    clients: Sequence[int], scheme: Scheme, seed: int, server_round: int
) -> dict[int, str]:
    """Return what each client of a round sends: ``all``, ``encoder`` or ``decoder``.

    With ``usplit`` clients are paired at random; one that is left over sends all, so that every
    array comes from someone.
    """
    if scheme != "usplit":
        return dict.fromkeys(clients, "all")
    order = numpy_generator(seed, "usplit", server_round).permutation(sorted(clients))
    halves = dict.fromkeys(clients, "all")
    for first, second in zip(order[0::2], order[1::2], strict=False):
        halves[int(first)], halves[int(second)] = "encoder", "decoder"
    return halves


def sent_names(names: Iterable[str], half: str) -> list[str]:
    """Return those of a U-Net's array ``names`` that a client which sends ``half`` sends.

    Raises:
        SettingsError: a name is of no part of the U-Net.
    """
    names = list(names)
    if half == "all":
        return names
    for name in names:
        if name.split(".")[0] not in _HALVES["all"]:
            raise SettingsError(
                f"compression.partial_update usplit knows the parts of a U-Net, but the model has "
                f"{name}; set it to full, or model.family to diffusion"
            )
    return [name for name in names if name.split(".")[0] in _HALVES[half]]
