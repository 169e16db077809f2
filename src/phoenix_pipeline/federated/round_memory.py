"""How much memory a round takes at a site, estimated on torch's device ``meta``."""

from collections.abc import Iterable

import torch
from torch import Tensor

from phoenix_pipeline.families import family_of
from phoenix_pipeline.federated.records import ClientSettings

# The network, its gradients, Adam's two moments, the weights as received, as a message, as sent
# and as a message, and two that are kept between rounds.
_COPIES_OF_WEIGHTS = 10
# Of each strategy: what came with the message, was kept, is kept, and is sent.
_COPIES_OF_STRATEGY = 4
# What the program holds for each layer beside its arrays: modules, names, entries of tables.
_LAYER_BYTES = 1 << 16
# Gradients of single images that DP-SGD holds at a time, unless one image's are more.
_DP_SGD_BYTES = 1 << 28
# Sampling keeps no activations for a backward pass.
_SAMPLES_PER_TRAINED_IMAGE = 4


def round_bytes(settings: ClientSettings, num_images: int, enough: int) -> int:
    """Return the estimated bytes of a round, without the libraries' own.

    ``num_images``: of the site. What is above ``enough`` before the network is looked at is
    returned as it is then: a network of so many layers would itself take long to describe.
    Raises SettingsError: the model does not fit the images.
    """
    values = settings.channels * settings.image_size**2
    channels, side, _ = settings.trained_shape
    family = family_of(settings.model)
    layers = family.count_layers(settings.model, side)
    # The images as read, and once more where they are put together with the shared pool.
    total = 2 * num_images * values + layers * _LAYER_BYTES
    if settings.latents:
        mirrored = 2 if settings.training.horizontal_flip else 1
        total += num_images * mirrored * channels * side**2 * torch.float32.itemsize
    total += family.table_bytes(settings.model)
    if total > enough:
        return total
    with torch.device("meta"):
        network = settings.build_network()
        everything = [*network.parameters(), *network.buffers()]
        saved = _SavedBytes(everything)
        with torch.autograd.graph.saved_tensors_hooks(saved.add, lambda kept: kept):
            images = family.run_once(network, channels, side)
    weights = sum(own.nbytes for own in network.state_dict().values())
    # What adapters are trained on is there once.
    total += sum(own.nbytes for own in everything) - weights
    at_a_time = max(
        settings.training.micro_batch or settings.training.batch_size,
        settings.monitor_samples // _SAMPLES_PER_TRAINED_IMAGE,
    )
    copies = _COPIES_OF_WEIGHTS + _COPIES_OF_STRATEGY * len(settings.strategies)
    total += copies * weights + saved.total * at_a_time // images
    if settings.training.dp_sgd.enabled:
        total += max(weights, _DP_SGD_BYTES)
    return total


class _SavedBytes:
    """Counts the memory that a forward pass keeps for the backward pass, weights aside."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._seen = list(weights)
        self._storages = {own.untyped_storage()._cdata for own in self._seen}
        self.total = 0

    def add(self, tensor: Tensor) -> Tensor:
        """Count ``tensor`` unless its memory was counted before."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            # While it is kept, no other memory has its address.
            self._seen.append(tensor)
            self._storages.add(storage._cdata)
            self.total += storage.nbytes()
        return tensor
