"""What differential privacy promises in a run, to whom and against whom, in plain words."""

import math
from collections.abc import Mapping
from typing import Any

from phoenix_pipeline.reporting.settings_diff import read_setting

_CLIENTS = "federation.differential_privacy"
_IMAGES = "training.dp_sgd"


def describe_privacy(settings: Mapping[str, Any], epsilon: float | None) -> list[str]:
    """Return the statement of a run with these settings; nothing without differential privacy.

    ``epsilon``: spent in the run, of the client with the largest; None where it is not known.
    """
    if read_setting(settings, f"{_CLIENTS}.enabled", False):
        central = read_setting(settings, f"{_CLIENTS}.placement", "central") == "central"
        return [_of_clients(_amount(settings, _CLIENTS, epsilon), central) + _seeded(settings)]
    if read_setting(settings, f"{_IMAGES}.enabled", False):
        return [_of_images(_amount(settings, _IMAGES, epsilon), settings) + _seeded(settings)]
    return []


def _of_clients(amount: str, central: bool) -> str:
    if central:
        return (
            f"Client-level differential privacy, {amount}, noise added by the server: who sees "
            "only the global models, such as the other clients, can hardly tell whether one "
            "client took part. It does not protect from the server, which sees each update, nor "
            "does it cover the table of rounds (losses, numbers of images)."
        )
    return (
        f"Client-level differential privacy, {amount}, noise added by each client: who sees its "
        "weights, the server included, can hardly tell what images it trained on. Losses and "
        "numbers of images are sent as they are and are not covered."
    )


def _of_images(amount: str, settings: Mapping[str, Any]) -> str:
    sentence = (
        f"Example-level differential privacy (DP-SGD), {amount}, at the client with the largest: "
        "who sees a client's weights, the server included, can hardly tell whether one image was "
        "among its images. It does not hide what many of them have in common, and losses and "
        "numbers of images are not covered."
    )
    if (
        read_setting(settings, "shared_pool.beta", 0.0) > 0
        and read_setting(settings, "shared_pool.source", "clients") == "clients"
    ):
        sentence += " Images that were put into the shared pool are not covered either."
    return sentence


def _seeded(settings: Mapping[str, Any]) -> str:
    """Return a warning where noise can be derived from the run's seed."""
    deployed = read_setting(settings, "federation.engine", "in_process") == "deployment"
    secret = read_setting(settings, "federation.secret_noise")
    if secret or (secret is None and deployed):
        return ""
    return (
        " The noise follows the run's seed, as a simulation may: whoever knows the seed can take "
        "it off again."
    )


def _amount(settings: Mapping[str, Any], group: str, epsilon: float | None) -> str:
    """Return epsilon and delta in words."""
    delta = read_setting(settings, f"{group}.delta", 0.0)
    if epsilon is None:
        target = read_setting(settings, f"{group}.target_epsilon")
        if target is None:
            noise = read_setting(settings, f"{group}.noise_multiplier")
            if noise:
                return f"noise multiplier {noise:g}, delta {delta:g}"
            return "without noise and so without any guarantee"
        epsilon = target
    if math.isinf(epsilon):
        return "without noise and so without any guarantee"
    return f"epsilon {epsilon:.3g} at delta {delta:g}"
