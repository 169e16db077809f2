"""Refuses settings under which a stated epsilon would not hold, before anything is trained."""

from torch import nn

from phoenix_pipeline.config import FederationConfig, TrainingConfig
from phoenix_pipeline.errors import SettingsError

_DP = "federation.differential_privacy"
# Their output for one image depends on the others of its batch.
_MIXING = (nn.modules.batchnorm._BatchNorm,)


def check_privacy(
    federation: FederationConfig,
    training: TrainingConfig,
    network: nn.Module,
    *,
    filters_clients: bool = False,
    uploads_personal: bool = False,
    shares_images: bool = False,
) -> None:
    """Refuse what differential privacy cannot be combined with; raises SettingsError, saying why.

    ``filters_clients``: clients send scores. ``uploads_personal``: personal layers are sent at the
    end. ``shares_images``: clients give images to a pool.
    """
    of_clients, of_images = federation.differential_privacy, training.dp_sgd
    if of_clients.enabled and of_images.enabled:
        raise SettingsError(
            f"{_DP} and training.dp_sgd are both enabled, but one epsilon is accounted for; "
            f"set {_DP}.enabled or training.dp_sgd.enabled to false"
        )
    if not (of_clients.enabled or of_images.enabled):
        return
    _refuse_mixing(network, _DP if of_clients.enabled else "training.dp_sgd")
    _refuse_unaccounted(federation, training)
    if of_clients.enabled:
        outside = {
            "threshold_filter.enabled: scores of clients are sent": filters_clients,
            "personal_layers.final_average or federation.deployment.min_released above 0: "
            "personal layers are sent": uploads_personal,
            "shared_pool.source clients: images are sent": shares_images,
        }
        if found := [what for what, applies in outside.items() if applies]:
            raise SettingsError(
                f"{_DP} does not go with {found[0]} as they are, which its epsilon does not cover; "
                "switch one of them off"
            )


def _refuse_unaccounted(federation: FederationConfig, training: TrainingConfig) -> None:
    """Refuse numbers of steps that are not known beforehand, and rounds that may be made twice."""
    if (
        training.dp_sgd.target_epsilon is not None
        and federation.local_work.unit == "images_per_round"
    ):
        raise SettingsError(
            "training.dp_sgd.target_epsilon needs to know each client's steps, but with "
            "federation.local_work.unit images_per_round they depend on who takes part; set that "
            "to steps or epochs, or give training.dp_sgd.noise_multiplier in its place"
        )
    if federation.has_secret_noise and federation.checkpoint_every > 1:
        raise SettingsError(
            f"federation.checkpoint_every is {federation.checkpoint_every}: a resumed run would "
            "release rounds again with other noise than accounted for; set it to 1, or "
            "federation.secret_noise to false"
        )


def find_mixing_layer(network: nn.Module) -> str | None:
    """Return the first layer whose output for one image depends on others, and its kind."""
    for name, module in network.named_modules():
        if isinstance(module, _MIXING):
            return f"{name} ({type(module).__name__})"
    return None


def _refuse_mixing(network: nn.Module, setting: str) -> None:
    if mixing := find_mixing_layer(network):
        raise SettingsError(
            f"{setting} does not work with layer {mixing}: its "
            "statistics mix the images of a batch and count steps in integers; use a model "
            "without BatchNorm, such as model.family diffusion"
        )
