"""Partial updates (FedDiffuse, arXiv 2406.12575): which arrays a client exchanges.

A U-Net has three parts. Encoder: input convolution, embeddings of time and class, down blocks.
Bottleneck: the middle block. Decoder: up blocks, output normalisation and convolution.

- ``usplit``: all arrays go down; a pair of clients sends one model up between them.
- ``ulatdec``, ``udec``: the other arrays are never exchanged. They are personal layers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from phoenix_pipeline.config import FederationConfig, ModelConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families import family_of
from phoenix_pipeline.federated.personal_layers import is_personal
from phoenix_pipeline.seeding import numpy_generator

Scheme = Literal["full", "usplit", "ulatdec", "udec"]

# Parts that are sent, and parts that stay, as the family calls them (``Family.parts``).
_HALVES = {"encoder": ("encoder", "bottleneck"), "decoder": ("decoder",)}
_KEPT: Mapping[str, tuple[str, ...]] = {
    "full": (),
    "usplit": (),
    "ulatdec": ("encoder",),
    "udec": ("encoder", "bottleneck"),
}


def kept_prefixes(scheme: Scheme, model: ModelConfig) -> tuple[str, ...]:
    """Return the prefixes of layers that ``scheme`` leaves on the client, as personal layers."""
    parts = family_of(model).parts
    return tuple(prefix for part in _KEPT[scheme] for prefix in parts[part])


def assign_halves(
    clients: Sequence[int], scheme: Scheme, seed: int, server_round: int
) -> dict[int, str]:
    """Return ``all``, ``encoder`` or ``decoder`` by client; ``usplit`` pairs them at random."""
    if scheme != "usplit":
        return dict.fromkeys(clients, "all")
    order = numpy_generator(seed, "usplit", server_round).permutation(sorted(clients))
    halves = dict.fromkeys(clients, "all")
    for first, second in zip(order[0::2], order[1::2], strict=False):
        halves[int(first)], halves[int(second)] = "encoder", "decoder"
    return halves


def sent_names(names: Iterable[str], half: str, model: ModelConfig) -> list[str]:
    """Return what of ``names`` a client of ``half`` sends; raises SettingsError for others."""
    names = list(names)
    if half == "all":
        return names
    parts = family_of(model).parts
    known = {prefix for prefixes in parts.values() for prefix in prefixes}
    for name in names:
        if name.split(".")[0] not in known:
            raise SettingsError(
                f"federation.compression.partial_update usplit knows the parts of a U-Net, but the "
                f"model has {name}; set it to full, or model.family to diffusion"
            )
    sent = {prefix for part in _HALVES[half] for prefix in parts[part]}
    return [name for name in names if name.split(".")[0] in sent]


def layers_that_stay(
    personal: tuple[str, ...],
    federation: FederationConfig,
    model: ModelConfig,
    names: Iterable[str],
) -> tuple[str, ...]:
    """Return prefixes that stay, with ``personal``; raises SettingsError for odd settings."""
    config, key = federation.compression, "federation.compression"
    _refuse_pooled(federation)
    scheme = config.partial_update
    if scheme == "full":
        return personal
    if not family_of(model).parts:
        raise SettingsError(
            f"{key}.partial_update {scheme} knows the parts of a U-Net, but model.family is "
            f"{model.family}; set it to full"
        )
    names = list(names)
    # An unconditional network has no embedding of classes.
    possible = kept_prefixes(scheme, model)
    kept = [p for p in possible if any(is_personal(name, (p,)) for name in names)]
    layers = tuple(dict.fromkeys((*personal, *kept)))
    shared = [name for name in names if not is_personal(name, layers)]
    halves = ("encoder", "decoder") if config.is_split else ("all",)
    for half in halves:
        if not sent_names(shared, half, model):
            raise SettingsError(
                f"{key}.partial_update {scheme} together with personal_layers.layers leaves "
                f"nothing to send of {'the model' if half == 'all' else f'the {half}'}; set "
                f"{key}.partial_update to full, or name fewer personal_layers.layers"
            )
    return layers


def check_split(federation: FederationConfig, num_clients: int) -> None:
    """Raise SettingsError where the ``num_clients`` of a round cannot be paired for ``usplit``."""
    _refuse_pooled(federation)
    if federation.compression.is_split and num_clients < 2:
        raise SettingsError(
            f"federation.compression.partial_update usplit pairs the clients of a round, but "
            f"{num_clients} client trains in one; raise federation.client_fraction or "
            "partition.num_clients, or set federation.compression.partial_update to full"
        )


def _refuse_pooled(federation: FederationConfig) -> None:
    config = federation.compression
    if federation.pooled and (config.is_active or config.partial_update != "full"):
        raise SettingsError(
            "federation.pooled puts all data in one place, where nothing is sent and compression "
            "means nothing; set federation.compression.partial_update: full, "
            "federation.compression.up.codec: none and federation.compression.down.codec: none"
        )
