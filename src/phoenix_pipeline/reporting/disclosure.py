"""What left the clients in each arm, and what differential privacy promises, in plain words."""

import math
from collections.abc import Mapping
from typing import Any

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families import find_family
from phoenix_pipeline.reporting.class_disclosure import describe_classes
from phoenix_pipeline.reporting.provenance import read_setting
from phoenix_pipeline.strategies import Strategies

_CLIENTS = "federation.differential_privacy"
_IMAGES = "training.dp_sgd"
_NUMBERS = (
    "With them went numbers: how many images it holds and how many it trained on, its mean "
    "training loss, and the seconds that training took."
)
_SPLIT = "In each round it sent either the encoder's or the decoder's half of them."
_KEPT = {
    "ulatdec": "The encoder of its model stayed with it",
    "udec": "The encoder and the bottleneck of its model stayed with it",
}
_CODECS = {
    "fp16": "rounded to half precision",
    "int8": "rounded to 8 bits",
    "int4": "rounded to 4 bits",
    "uniform": "rounded to steps of even width",
    "top_k": "cut to its largest values",
}


def describe_disclosure(settings: Mapping[str, Any], epsilon: float | None = None) -> list[str]:
    """Return sentences on what one arm's clients gave away, most telling first.

    ``settings``: the arm's resolved parameter groups (``federation``, ``model``, ``shared_pool``,
    ``personal_layers``, ...), nested as in the configuration. ``epsilon``: spent in the run, of the
    client with the largest; None where it is not known.
    """
    if read_setting(settings, "federation.pooled", False):
        pooled = (
            "All images of all clients were pooled in one place: nothing stayed private. This arm "
            "is the ceiling to compare with, not a federation. Nothing crosses a wire while it "
            "trains, so it has no traffic."
        )
        return [pooled, *_start(settings), *_promise(settings, epsilon)]
    sentences = [_weights(settings), _NUMBERS, *_compression(settings), *_strategies(settings)]
    if read_setting(settings, "shared_pool.beta", 0.0) > 0:
        sentences.insert(0, _pool(settings))
    if read_setting(settings, "threshold_filter.enabled", False):
        every = read_setting(settings, "threshold_filter.monitor_every", 1)
        sentences.append(
            f"Every {_times(every)} each client also sent one number, its score: how far the "
            "samples of its own model are from reference statistics that the server hands out."
        )
    sentences += _start(settings)
    if classes := describe_classes(settings):
        sentences.append(classes)
    if _has_client_models(settings):
        sentences.append(_sampled(settings))
    return [*sentences, *_promise(settings, epsilon)]


def _weights(settings: Mapping[str, Any]) -> str:
    stays = "its own images never left it"
    name = read_setting(settings, "model.family", "diffusion")
    if layers := read_setting(settings, "personal_layers.layers"):
        named = layers if isinstance(layers, str) else ", ".join(layers)
        sent = f"the weights of the shared layers; its personal layers ({named}) stayed with it"
        sent += _until(settings)
    elif _scheme(settings) in _KEPT:
        sent = "the weights of a part of its model"
    else:
        sent = find_family(name).describe_sent(read_setting(settings, "model", {}))
    if _gave_images(settings):
        stays = "the rest of its images never left it"
    return f"After each round, each client sent {sent}; {stays}."


def _start(settings: Mapping[str, Any]) -> list[str]:
    """Return what is not known of weights that were given."""
    start = read_setting(settings, "model.start_from")
    if not start:
        return []
    sentence = (
        f"Training began with given weights ({start}): nothing here says or limits what those tell "
        "of the images that they were trained on."
    )
    if _promise(settings, None):
        sentence += " The privacy stated here is of the images that were trained on since."
    return [sentence]


def _has_client_models(settings: Mapping[str, Any]) -> bool:
    """Whether each client draws from layers of its own; a GAN's discriminator draws nothing."""
    layers = read_setting(settings, "personal_layers.layers") or ()
    undrawn = find_family(read_setting(settings, "model.family", "diffusion")).undrawn
    named = [layers] if isinstance(layers, str) else layers
    drawn = any(layer.split(".")[0] not in undrawn for layer in named)
    return drawn or _scheme(settings) in _KEPT


def _sampled(settings: Mapping[str, Any]) -> str:
    """Return where the samples of clients' own models were drawn."""
    if read_setting(settings, "federation.engine", "in_process") == "deployment":
        return (
            "The arm's samples were drawn at the coordinator, from the layers of those clients "
            "whose nodes released them."
        )
    return (
        "The arm's samples were drawn from the layers that stayed: this simulation has those of "
        "all clients in one place, beside the model (in its folder `clients`). At real sites such "
        "samples can be drawn only there, or where a site releases its layers."
    )


def _compression(settings: Mapping[str, Any]) -> list[str]:
    scheme = _scheme(settings)
    codec = read_setting(settings, "federation.compression.up.codec", "none")
    sentences = [_SPLIT] if scheme == "usplit" else []
    if scheme in _KEPT:
        sentences.append(f"{_KEPT[scheme]}{_until(settings)}.")
    if codec != "none":
        written = _CODECS.get(codec, f"written by the codec {codec}")
        sentences.append(
            f"What it sent was its update, {written}: that saves traffic and protects nothing."
        )
    return sentences


def _strategies(settings: Mapping[str, Any]) -> list[str]:
    """Return what strategies say of themselves; one that is not installed here is named."""
    sentences = []
    for name, told in (read_setting(settings, "federation.strategies", {}) or {}).items():
        try:
            sentences += Strategies.of({name: told}).disclosures()
        except SettingsError:
            sentences.append(f"What the strategy {name} sends is not known here.")
    return sentences


def _scheme(settings: Mapping[str, Any]) -> str:
    return str(read_setting(settings, "federation.compression.partial_update", "full"))


def _until(settings: Mapping[str, Any]) -> str:
    """Return how long personal layers stayed with the client."""
    if read_setting(settings, "personal_layers.final_average", False):
        return " until they were uploaded once, at the end, to be averaged"
    if read_setting(settings, "federation.engine", "in_process") == "deployment":
        return " unless its own node released them, once, at the end"
    return ""


def _gave_images(settings: Mapping[str, Any]) -> bool:
    return (
        read_setting(settings, "shared_pool.beta", 0.0) > 0
        and read_setting(settings, "shared_pool.source", "clients") == "clients"
    )


def _pool(settings: Mapping[str, Any]) -> str:
    beta = read_setting(settings, "shared_pool.beta", 0.0)
    alpha = read_setting(settings, "shared_pool.alpha", 1.0)
    if _gave_images(settings):
        if not read_setting(settings, "shared_pool.keep_private_copy", True):
            beta /= 1.0 + beta  # of what clients had before they gave it away
        return (
            f"Before training, {beta:.0%} of all clients' images were put into a shared pool, of "
            f"which every client received {alpha:.0%}: these images did leave their owners."
        )
    return (
        f"Before training, every client received {alpha:.0%} of a pool as large as {beta:.0%} of "
        "all client data, set aside before the images were divided: no client owned them."
    )


def _times(rounds: int) -> str:
    return "round" if rounds == 1 else f"{rounds} rounds"


def _promise(settings: Mapping[str, Any], epsilon: float | None) -> list[str]:
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
