"""What left the clients in an arm, and what differential privacy promises, in plain words."""

import math

from phoenix_pipeline.config import ArmSettings, DifferentialPrivacyConfig, DpSgdConfig
from phoenix_pipeline.families import CLASS_EMBEDDING, family_of
from phoenix_pipeline.strategies import Strategies

_NUMBERS = (
    "With them went numbers: how many images it holds and how many it trained on, its mean "
    "training loss, and the seconds that training took."
)
_POOLED = (
    "All images of all clients were pooled in one place: nothing stayed private. This arm is the "
    "ceiling to compare with, not a federation. Nothing crosses a wire while it trains, so it has "
    "no traffic."
)
_SPLIT = "In each round it sent either the encoder's or the decoder's half of them."
# By partial update. Both leave the encoder, with the embedding of classes, at the client.
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
_OF_CENTRAL = (
    "noise added by the server: who sees only the global models, such as the other clients, can "
    "hardly tell whether one client took part. It does not protect from the server, which sees "
    "each update, nor does it cover the table of rounds (losses, numbers of images)."
)
_OF_LOCAL = (
    "noise added by each client: who sees its weights, the server included, can hardly tell what "
    "images it trained on. Losses and numbers of images are sent as they are and are not covered."
)


def describe_disclosure(
    arm: ArmSettings, epsilon: float | None = None, encoded_pool: int | None = None
) -> list[str]:
    """Return sentences on what one arm's clients gave away, most telling first.

    ``epsilon``: spent in the run, of the client with the largest; None where it is not known.
    ``encoded_pool``: how many images of clients the autoencoder was trained on, if it says so.
    """
    latents = _latents(arm, encoded_pool)
    if arm.federation.pooled:
        return [_POOLED, *_start(arm), *latents, *_promise(arm, epsilon)]
    strategies = Strategies.of(arm.federation.strategies).disclosures()
    sentences = [_weights(arm), _NUMBERS, *_compression(arm), *strategies]
    if arm.shared_pool.beta:
        sentences.insert(0, _pool(arm))
    if arm.threshold_filter.enabled:
        every = arm.threshold_filter.monitor_every
        sentences.append(
            f"Every {'round' if every == 1 else f'{every} rounds'} each client also sent one "
            "number, its score: how far the samples of its own model are from reference statistics "
            "that the server hands out."
        )
    sentences += [*_start(arm), *latents]
    if arm.model.conditioning != "none":
        sentences.append(_of_update(arm))
        if arm.sampling.class_distribution == "as_training":
            sentences[-1] += (
                " The samples have the classes of the training images, whose numbers this "
                "simulation knows; no client sent them."
            )
    # A GAN's discriminator draws nothing.
    undrawn = family_of(arm.model).undrawn
    drawn = any(layer.split(".")[0] not in undrawn for layer in _personal_layers(arm))
    if drawn or arm.federation.compression.partial_update in _KEPT:
        sentences.append(_sampled(arm))
    return [*sentences, *_promise(arm, epsilon)]


def _weights(arm: ArmSettings) -> str:
    if layers := arm.personal_layers.layers:
        named = layers if isinstance(layers, str) else ", ".join(layers)
        sent = f"the weights of the shared layers; its personal layers ({named}) stayed with it"
        sent += _until(arm)
    elif arm.federation.compression.partial_update in _KEPT:
        sent = "the weights of a part of its model"
    else:
        sent = family_of(arm.model).describe_sent(arm.model.model_dump(mode="json"))
    stays = "the rest of its images" if _gave_images(arm) else "its own images"
    return f"After each round, each client sent {sent}; {stays} never left it."


def _start(arm: ArmSettings) -> list[str]:
    """Return what is not known of weights that were given."""
    if not arm.model.start_from:
        return []
    sentence = (
        f"Training began with given weights ({arm.model.start_from}): nothing here says or limits "
        "what those tell of the images that they were trained on."
    )
    if _promise(arm, None):
        sentence += " The privacy stated here is of the images that were trained on since."
    return [sentence]


def _latents(arm: ArmSettings, encoded_pool: int | None) -> list[str]:
    """Return what is known of an autoencoder that was there before, and what is not."""
    if not arm.model.autoencoder:
        return []
    learnt = f"The model learnt latents of an autoencoder ({arm.model.autoencoder})"
    if encoded_pool is None:
        return [
            f"{learnt} that every site had before: it was not trained in the federation, and "
            "nothing here says or limits what it tells of the images that it was trained on."
        ]
    sentence = (
        f"{learnt} that was trained before, in one place, on {encoded_pool:,} images that clients "
        "put into a shared pool: these images did leave their owners."
    )
    if _promise(arm, None):
        sentence += " The privacy stated here does not cover them."
    return [sentence]


def _sampled(arm: ArmSettings) -> str:
    if arm.federation.engine == "deployment":
        return (
            "The arm's samples were drawn at the coordinator, from the layers of those clients "
            "whose nodes released them."
        )
    return (
        "The arm's samples were drawn from the layers that stayed: this simulation has those of "
        "all clients in one place, beside the model (in its folder `clients`). At real sites such "
        "samples can be drawn only there, or where a site releases its layers."
    )


def _compression(arm: ArmSettings) -> list[str]:
    scheme, codec = arm.federation.compression.partial_update, arm.federation.compression.up.codec
    sentences = [_SPLIT] if scheme == "usplit" else []
    if scheme in _KEPT:
        sentences.append(f"{_KEPT[scheme]}{_until(arm)}.")
    if codec != "none":
        written = _CODECS.get(codec, f"written by the codec {codec}")
        sentences.append(
            f"What it sent was its update, {written}: that saves traffic and protects nothing."
        )
    return sentences


def _personal_layers(arm: ArmSettings) -> tuple[str, ...]:
    """Return the layers as they are written: prefixes, or the name of a preset."""
    layers = arm.personal_layers.layers or ()
    return (layers,) if isinstance(layers, str) else layers


def _until(arm: ArmSettings) -> str:
    if arm.personal_layers.final_average:
        return " until they were uploaded once, at the end, to be averaged"
    if arm.federation.engine == "deployment":
        return " unless its own node released them, once, at the end"
    return ""


def _gave_images(arm: ArmSettings) -> bool:
    return arm.shared_pool.beta > 0 and arm.shared_pool.source == "clients"


def _pool(arm: ArmSettings) -> str:
    alpha, beta = arm.shared_pool.alpha, arm.shared_pool.beta
    if _gave_images(arm):
        if not arm.shared_pool.keep_private_copy:
            beta /= 1.0 + beta  # of what clients had before they gave it away
        return (
            f"Before training, {beta:.0%} of all clients' images were put into a shared pool, of "
            f"which every client received {alpha:.0%}: these images did leave their owners."
        )
    return (
        f"Before training, every client received {alpha:.0%} of a pool as large as {beta:.0%} of "
        "all client data, set aside before the images were divided: no client owned them."
    )


def _of_update(arm: ArmSettings) -> str:
    """Return what the server learns of a client's classes."""
    kept = _personal_layers(arm)
    own = CLASS_EMBEDDING in kept or all(
        any(f"{layer}.".startswith(f"{prefix}.") for prefix in kept)
        for layer in family_of(arm.model).class_layers
    )
    if own or arm.federation.compression.partial_update in _KEPT:
        return "The embedding of classes stayed with it, and does not tell which ones it holds."
    if arm.model.lora.rank:
        return "The embedding of classes is not trained, and does not tell which ones it holds."
    if arm.training.dp_sgd.enabled:
        return (
            "Which classes it holds is hidden as its images are: the noise moves the embeddings of "
            "all classes."
        )
    privacy = arm.federation.differential_privacy
    if privacy.enabled and not privacy.is_central:
        return "Which classes it holds is covered by its noise, like all else in its update."
    return (
        "Its update tells the server which classes it holds: the embeddings of the others do not "
        "move, and are averaged without it."
    )


def _promise(arm: ArmSettings, epsilon: float | None) -> list[str]:
    """Return the statement of a run with these settings; nothing without differential privacy."""
    of_clients, of_images = arm.federation.differential_privacy, arm.training.dp_sgd
    seeded = ""
    if not arm.federation.has_secret_noise:
        seeded = (
            " The noise follows the run's seed, as a simulation may: whoever knows the seed can "
            "take it off again."
        )
    if of_clients.enabled:
        promise = f"Client-level differential privacy, {_amount(of_clients, epsilon)}"
        kind = _OF_CENTRAL if of_clients.is_central else _OF_LOCAL
        return [f"{promise}, {kind}{seeded}"]
    if of_images.enabled:
        return [_of_images(_amount(of_images, epsilon), arm) + seeded]
    return []


def _of_images(amount: str, arm: ArmSettings) -> str:
    sentence = (
        f"Example-level differential privacy (DP-SGD), {amount}, at the client with the largest: "
        "who sees a client's weights, the server included, can hardly tell whether one image was "
        "among its images. It does not hide what many of them have in common, and losses and "
        "numbers of images are not covered."
    )
    if _gave_images(arm):
        sentence += " Images that were put into the shared pool are not covered either."
    return sentence


def _amount(private: DifferentialPrivacyConfig | DpSgdConfig, epsilon: float | None) -> str:
    """Return epsilon and delta in words."""
    spent = private.target_epsilon if epsilon is None else epsilon
    if spent is None and private.noise_multiplier:
        return f"noise multiplier {private.noise_multiplier:g}, delta {private.delta:g}"
    if spent is None or math.isinf(spent):
        return "without noise and so without any guarantee"
    return f"epsilon {spent:.3g} at delta {private.delta:g}"
