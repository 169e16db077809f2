"""Attack an arm's models and samples, and report how well it went."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from phoenix_pipeline.checkpoints import METADATA_FILE
from phoenix_pipeline.config import PrivacyAuditConfig, RunConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import GLOBAL_MODEL, ImageSet, read_samples
from phoenix_pipeline.metrics.extractors import pixel_extractor
from phoenix_pipeline.metrics.feature_extractor import extract_features
from phoenix_pipeline.metrics.privacy.arm_audit import (
    ALL,
    ArmAudit,
    AuditConditions,
    Kind,
    Membership,
    headline_scores,
)
from phoenix_pipeline.metrics.privacy.attack import AttackResult, blind_attack, match_classes
from phoenix_pipeline.metrics.privacy.audit import (
    ALL_CLIENTS,
    AttackScores,
    audit_membership,
    judge_together,
)
from phoenix_pipeline.metrics.privacy.copies import Copies, find_copies
from phoenix_pipeline.pipelines.privacy_audit.reconstruction import reconstruct_images
from phoenix_pipeline.pipelines.privacy_audit.subject import Subject
from phoenix_pipeline.progress import progress_bar
from phoenix_pipeline.seeding import numpy_generator

logger = logging.getLogger(__name__)


def audit_privacy(
    model_folder: Path,
    samples_file: Path,
    trained_images: pd.DataFrame,
    train: ImageSet,
    test: ImageSet,
    config: PrivacyAuditConfig,
    run: RunConfig,
) -> ArmAudit | dict[str, object]:
    """Return the audit of an arm: membership per client, copies among samples, reconstruction.

    A global model is attacked for the images of each client; a client's own model for that
    client's. Settings, seed and ``trained_images`` are those of the training; ``run`` gives the
    device alone. An arm that is not trained has an empty audit, and a line in the log.

    Raises SettingsError and DataError as :meth:`Subject.open`.
    """
    if not (model_folder / METADATA_FILE).is_file():
        logger.warning("%s is not trained: it has no audit", model_folder.name)
        return {}
    subject = Subject.open(model_folder, trained_images, train, test, config, run)
    skipped: dict[str, str] = {}
    membership = _attack(subject, skipped)
    blind = _blind(subject, skipped)
    copies = _copies(subject, samples_file, skipped)
    reconstruction = reconstruct_images(subject, skipped)
    return {
        "conditions": _conditions(subject),
        "scores": {
            **headline_scores(membership),
            **({"membership_auc_blind": blind.auc} if blind else {}),
            **({"copied_share": copies.share} if copies else {}),
            **(reconstruction["scores"] if reconstruction else {}),
        },
        "membership": membership,
        "blind": asdict(blind) if blind else None,
        "copies": asdict(copies) if copies else None,
        "reconstruction": reconstruction,
        "skipped": skipped,
    }


def _conditions(subject: Subject) -> AuditConditions:
    from phoenix_pipeline.families.model_folder import weights_digest

    return {
        "weights": subject.metadata["weights"],
        "weights_digest": weights_digest(subject.folder),
        "num_train": subject.train.num_images,
        "num_held_out": subject.test.num_images,
        "classes_matched": subject.train.labels is not None and subject.test.labels is not None,
        "seed": subject.seed,
        "privacy_audit": subject.config.model_dump(mode="json"),
    }


def _attack(subject: Subject, skipped: dict[str, str]) -> Membership:
    """Return the results of the global model and the clients' own, by client and attack."""
    membership: Membership = {"global_model": {}, "client_models": {}}
    own: list[Mapping[str, AttackScores]] = []
    models = subject.models()
    with progress_bar("privacy audit", len(models)) as advance:
        for owner, clients in models.items():
            kind: Kind = "global_model" if owner == GLOBAL_MODEL else "client_models"
            if reason := subject.cannot_be_attacked(owner):
                skipped[kind] = reason
                continue
            audit = audit_membership(
                subject.network(owner),
                subject.model,
                subject.train,
                clients,
                subject.test,
                subject.config,
                subject.seed,
            )
            for client, attacks in audit.results.items():
                membership[kind][_name(client)] = {n: asdict(r) for n, r in attacks.items()}
            own += audit.scores.values() if kind == "client_models" else ()
            skipped |= {f"{kind} {_name(c)}": reason for c, reason in audit.skipped.items()}
            advance(1)
    if own:
        together = judge_together(own)
        membership["client_models"][ALL] = {name: asdict(r) for name, r in together.items()}
    return membership


def _name(client: int) -> str:
    return ALL if client == ALL_CLIENTS else str(client)


def _blind(subject: Subject, skipped: dict[str, str]) -> AttackResult | None:
    """Return how well images that were trained on are told without any model."""
    rows = np.unique(np.concatenate(list(subject.rows.values())))
    rows = rows[:: -(-len(rows) // subject.config.max_held_out)]
    others = np.arange(subject.test.num_images)[: subject.config.max_held_out]
    if subject.train.labels is not None and subject.test.labels is not None:
        generator = numpy_generator(subject.seed, "blind_attack")
        labels = subject.train.labels[rows], subject.test.labels[others]
        a, b = match_classes(*labels, generator)
        rows, others = rows[a], others[b]
    try:
        return blind_attack(subject.train.images[rows], subject.test.images[others], subject.seed)
    except SettingsError as error:
        skipped["blind attack"] = str(error)
        return None


def _copies(subject: Subject, samples_file: Path, skipped: dict[str, str]) -> Copies | None:
    from phoenix_pipeline.families.model_folder import weights_digest

    train, test = subject.train, subject.test
    if not samples_file.is_file():
        skipped["copies"] = "there are no samples"
        return None
    samples_found = read_samples(samples_file)
    if samples_found.drawn.get("weights_digest") != weights_digest(subject.folder):
        skipped["copies"] = "the samples are of an earlier model; draw them again"
        return None
    pixels = pixel_extractor(train.channels, train.image_size, subject.device)
    samples, training, held_out = (
        extract_features(pixels, images, subject.config.batch_size)
        for images in (samples_found.images.images, train.images, test.images)
    )
    try:
        return find_copies(samples, training, held_out)
    except SettingsError as error:
        skipped["copies"] = str(error)
        return None
