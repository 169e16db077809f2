"""Attack an arm's models and samples, and report how well it went."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phoenix_pipeline.config import ModelConfig, PrivacyAuditConfig, RunConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import GLOBAL_MODEL, ImageSet, read_samples
from phoenix_pipeline.metrics.extractors import extract_features, pixel_extractor
from phoenix_pipeline.metrics.privacy.audit import ALL_CLIENTS, MembershipAudit, audit_membership
from phoenix_pipeline.metrics.privacy.copies import Copies, find_copies
from phoenix_pipeline.pipelines.privacy_audit.reconstruction import reconstruct_images
from phoenix_pipeline.pipelines.privacy_audit.subject import Subject
from phoenix_pipeline.pipelines.progress import progress_bar

_ALL = "all"
# By model, by client, by attack.
Membership = dict[str, dict[str, dict[str, Any]]]


def audit_privacy(
    model_folder: Path,
    samples_file: Path,
    client_images: pd.DataFrame,
    train: ImageSet,
    test: ImageSet,
    model: ModelConfig,
    config: PrivacyAuditConfig,
    run: RunConfig,
) -> dict[str, Any]:
    """Return the audit of an arm: membership per client, copies among samples, reconstruction.

    A global model is attacked for the images of each client; a client's own model for that
    client's. ``scores`` has the numbers that arms are compared by, the mean over clients where
    there is no global model.
    """
    from phoenix_pipeline.families.model_folder import read_metadata

    by_client = client_images.groupby("client_id")["image_index"]
    subject = Subject(
        folder=model_folder,
        metadata=read_metadata(model_folder),
        rows={int(str(client)): rows.to_numpy() for client, rows in by_client},
        train=train,
        test=test,
        model=model,
        config=config,
        seed=run.seed,
        device=resolve_device(run.device),
    )
    skipped: dict[str, str] = {}
    membership = _attack(subject, skipped)
    copies = _copies(subject, samples_file, skipped)
    reconstruction = reconstruct_images(subject, skipped)
    return {
        "conditions": {
            "weights": subject.metadata["weights"],
            "num_train": train.num_images,
            "num_held_out": test.num_images,
            "classes_matched": train.labels is not None and test.labels is not None,
            "seed": run.seed,
            **config.model_dump(mode="json"),
        },
        "scores": {
            **_headline(membership),
            **({"copied_share": copies.share} if copies else {}),
            **({"reconstruction_psnr_db": reconstruction["psnr_db"]} if reconstruction else {}),
        },
        "membership": membership,
        "copies": asdict(copies) if copies else None,
        "reconstruction": reconstruction,
        "skipped": skipped,
    }


def _attack(subject: Subject, skipped: dict[str, str]) -> Membership:
    """Return the results of ``global_model`` and ``client_models``, by client and attack."""
    membership: Membership = {"global_model": {}, "client_models": {}}
    models = subject.models()
    with progress_bar("privacy audit", len(models)) as advance:
        for owner, clients in models.items():
            audit = audit_membership(
                subject.network(owner),
                subject.model,
                subject.train,
                clients,
                subject.test,
                subject.config,
                subject.seed,
            )
            kind = "global_model" if owner == GLOBAL_MODEL else "client_models"
            membership[kind] |= _named(audit)
            skipped |= {f"{kind} {_name(c)}": reason for c, reason in audit.skipped.items()}
            advance(1)
    return membership


def _named(audit: MembershipAudit) -> dict[str, dict[str, Any]]:
    return {
        _name(client): {attack: asdict(result) for attack, result in attacks.items()}
        for client, attacks in audit.results.items()
    }


def _name(client: int) -> str:
    return _ALL if client == ALL_CLIENTS else str(client)


def _headline(membership: Membership) -> dict[str, float]:
    """Return AUC and TPR by attack, and the AUC of the client that is told best."""
    audited = membership["global_model"] or membership["client_models"]
    clients = [attacks for client, attacks in audited.items() if client != _ALL]
    whole = [audited[_ALL]] if _ALL in audited else clients
    scores: dict[str, float] = {}
    for attack in whole[0] if whole else ():
        scores[f"membership_auc_{attack}"] = _mean(whole, attack, "auc")
        scores[f"membership_tpr_{attack}"] = _mean(whole, attack, "tpr_at_1_percent_fpr")
        worst = max(client[attack]["auc"] for client in clients or whole)
        scores[f"membership_auc_{attack}_worst_client"] = worst
    return scores


def _mean(audited: Sequence[dict[str, Any]], attack: str, metric: str) -> float:
    return float(np.mean([attacks[attack][metric] for attacks in audited]))


def _copies(subject: Subject, samples_file: Path, skipped: dict[str, str]) -> Copies | None:
    """Return the copies among all samples, by pixels; None where there are too few images."""
    train, test = subject.train, subject.test
    pixels = pixel_extractor(train.channels, train.image_size, subject.device)
    samples, training, held_out = (
        extract_features(pixels, images, subject.config.batch_size)
        for images in (read_samples(samples_file).images.images, train.images, test.images)
    )
    try:
        return find_copies(samples, training, held_out)
    except SettingsError as error:
        skipped["copies"] = str(error)
        return None
