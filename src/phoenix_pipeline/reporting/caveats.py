"""What a reader must know before believing a score, derived from how the scores were made."""

from collections.abc import Sequence

import pandas as pd

from phoenix_pipeline.metrics.privacy.arm_audit import ArmAudit
from phoenix_pipeline.reporting.arm_results import ArmResults
from phoenix_pipeline.reporting.columns import FLOOR_NAME, GAP_CLOSED, doubtful_shares
from phoenix_pipeline.reporting.formatting import DOUBTFUL

_EQUAL_WORK = 1.02
_SIGNIFICANT = 0.05
_ENOUGH_HELD_OUT = 300


def list_caveats(table: pd.DataFrame) -> list[str]:
    """Return the caveats that apply to a comparison, most important first."""
    arms = table[table["arm"] != FLOOR_NAME]
    floor = table[table["arm"] == FLOOR_NAME]
    caveats = [*_gap_closed(arms), _sample_size(arms), *_floor(arms, floor), *_work(arms)]
    if "fid_inception_v3" not in arms or arms["fid_inception_v3"].isna().all():
        caveats.append(
            "No Inception-v3 features were at hand: the FIDs here rank arms against each other and "
            "must not be compared with published figures."
        )
    caveats += _judge(arms)
    caveats.append(
        "Precision and density rise with blur, and one dull image repeated scores well on both: "
        "read them with recall and coverage."
    )
    caveats.append("One run with one seed: differences of a few percent may be chance.")
    return caveats


def privacy_caveats(audits: Sequence[ArmAudit]) -> list[str]:
    """Return what a reader must know before believing ``audits``; nothing without any."""
    if not audits:
        return []
    caveats = [
        "An attack that finds nothing proves nothing: a stronger one may. The attackers here have "
        "the weights and train no models of their own.",
        "The strongest of several attacks is shown; an interval is that of one attack and one "
        "training, not of other seeds.",
    ]
    alike = [blind for audit in audits if (blind := audit["blind"])]
    if suspect := [blind for blind in alike if blind["auc_p_value"] < _SIGNIFICANT]:
        caveats.append(
            "Training and held-out images can be told apart without any model (AUC "
            f"{max(blind['auc'] for blind in suspect):.2f}): they are not from one source, and "
            "attacks may find that instead of membership."
        )
    held_out = [a["conditions"]["num_held_out"] for a in audits]
    if min(held_out) < _ENOUGH_HELD_OUT:
        caveats.append(
            f"With {min(held_out)} held-out images the TPR at 1 % false alarms cannot be bounded "
            f"from below; that takes about {_ENOUGH_HELD_OUT}."
        )
    return caveats


def list_skipped(arms: Sequence[ArmResults]) -> dict[str, list[str]]:
    """Return what was not measured or attacked: ``"what: reason"`` -> the arms it applies to."""
    reasons = [
        (arm.arm, f"{n}: {why}") for arm in arms for n, why in arm.metrics["skipped"].items()
    ]
    reasons += [
        (arm.arm, f"{what.replace('_', ' ')}: {why}")
        for arm in arms
        if arm.audit
        for what, why in arm.audit["skipped"].items()
    ]
    skipped: dict[str, list[str]] = {}
    for name, reason in reasons:
        skipped.setdefault(reason, []).append(name)
    return skipped


def _sample_size(arms: pd.DataFrame) -> str:
    counts = sorted({int(n) for n in arms["num_samples"].dropna()})
    if len(counts) > 1:
        return (
            "FID is biased upwards when samples are few, and here the arms were scored on "
            f"{' and '.join(f'{n:,}' for n in counts)} samples: their FIDs are not comparable. KID "
            "has no such bias."
        )
    number = f"{counts[0]:,}" if counts else "an unknown number of"
    return (
        f"FID is biased upwards when samples are few. Here it is taken from {number} samples: "
        "compare it at this number only. KID has no such bias."
    )


def _floor(arms: pd.DataFrame, floor: pd.DataFrame) -> list[str]:
    if floor.empty:
        return []
    text = f"The row “{FLOOR_NAME}” is what unseen real images get"
    count = floor["num_samples"].iloc[0]
    if pd.isna(count):
        return [f"{text}."]
    text += f", {count:,} of them"
    if count < arms["num_samples"].max():
        text += ": fewer than the samples, so its FID would be lower at equal numbers"
    return [f"{text}."]


def _gap_closed(arms: pd.DataFrame) -> list[str]:
    marked = doubtful_shares(arms)
    if not marked or GAP_CLOSED.credible is None:
        return []
    low, high = GAP_CLOSED.credible
    return [
        f"A share of the gap closed that is marked {DOUBTFUL} ({'; '.join(marked)}) is outside "
        f"{low:g} to {high:g}: the gap between fedavg and centralized is too small there for a "
        "share of it to mean anything, or these features tell little of these images."
    ]


def _judge(arms: pd.DataFrame) -> list[str]:
    accuracy = arms["classifier_test_accuracy"].dropna()
    if accuracy.empty:
        return []
    majority = arms["classifier_majority_share"].dropna()
    text = f"right on {accuracy.min():.1%} of real test images"
    if len(majority):
        text += f", of which {majority.max():.1%} are of the commonest class"
        if "class_entropy" not in arms or arms["class_entropy"].isna().all():
            return [
                f"The label classifier is {text}: by chance it knows no more than that, and all "
                "that rests on it is left out."
            ]
    return [
        "Class histograms, entropy, KL and the Inception Score rest on a classifier that is "
        f"{text}; it also gives a class to what is no such thing."
    ]


def _work(arms: pd.DataFrame) -> list[str]:
    images = arms.set_index("arm")["images_trained"].dropna()
    if len(images) < 2:
        return []
    if images.max() <= _EQUAL_WORK * images.min():
        exactly = "" if images.nunique() == 1 else "about "
        return [f"Every arm saw {exactly}{images.min():,} training examples, repeats included."]
    return [
        f"The arms did not train on equally many images: {images.idxmin()} on {images.min():,}, "
        f"{images.idxmax()} on {images.max():,}."
    ]
