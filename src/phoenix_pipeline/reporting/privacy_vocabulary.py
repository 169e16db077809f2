"""What each column of a privacy audit means; read by ``vocabulary``.

A tuple is the beginning of a name, its label, which way is better, and a phrase.
"""

from typing import Literal

PRIVACY = "Privacy, attacked"
ATTACKS = {
    "loss": "loss",
    "pia": "PIA",
    "secmi": "SecMI",
    "discriminator": "discriminator",
    "blind": "no model",
}
PRIVACY_FAMILIES: tuple[tuple[str, str, Literal["lower", "higher"] | None, str], ...] = (
    (
        "membership_auc_blind",
        "AUC",
        None,
        "how well training images are told from held-out ones without any model, by "
        "cross-validation; where it is above 0.5, attacks may find that and not membership",
    ),
    ("membership_auc_low", "AUC from", None, "lower end of the 95 % interval of the AUC"),
    ("membership_auc_high", "AUC to", None, "upper end of the 95 % interval of the AUC"),
    ("membership_tpr_low", "TPR from", None, "lower end of the 95 % interval of the TPR"),
    ("membership_tpr_high", "TPR to", None, "upper end of the 95 % interval of the TPR"),
    (
        "membership_auc",
        "AUC",
        "lower",
        "probability that the strongest membership attack finds a training image more familiar "
        "to the model than a held-out one; 0.5 is no leak",
    ),
    (
        "membership_tpr",
        "TPR at 1 %",
        "lower",
        "share of training images that this attack finds while it takes 1 % of held-out images "
        "for training images; 0.01 is no leak",
    ),
    (
        "clients_exposed",
        "Exposed",
        "lower",
        "clients whose training images are told from held-out ones beyond chance: 5 % risk of a "
        "false alarm over all clients and attacks together (Holm)",
    ),
    ("clients_attacked", "Attacked", None, "clients whose images were looked for"),
    (
        "copied_share",
        "Copies",
        "lower",
        "share of samples nearer to a training image, by pixels, than 99 % of held-out images; "
        "0.01 is what unseen images get",
    ),
    (
        "reconstruction_psnr_db",
        "Rebuilt",
        "lower",
        "likeness (PSNR, dB; 100 is the same) of images rebuilt from one client's update of one "
        "step on one image, as the server gets it: after the client's own clipping, noise and "
        "compression",
    ),
    (
        "reconstruction_mean_image_psnr_db",
        "Mean image",
        None,
        "the same likeness of the mean training image: what an attacker has without the update",
    ),
)


def attack_of(name: str) -> str:
    """Return the attack that a column is about, as it is called in headers; else ``""``."""
    parts = name.removesuffix("_worst_client").split("_")
    written = ATTACKS.get(parts[-1], "") if name.startswith("membership_") else ""
    return f"{written}, worst client" if name.endswith("_worst_client") else written
