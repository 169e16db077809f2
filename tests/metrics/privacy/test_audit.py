import numpy as np
import pytest
import torch
from torch import nn

from phoenix_pipeline.config import ModelConfig, PrivacyAuditConfig
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.privacy.attack import blind_attack, judge_attack
from phoenix_pipeline.metrics.privacy.audit import (
    ALL_CLIENTS,
    _scaled,
    audit_membership,
    judge_together,
)

CLIENTS = {0: np.arange(16), 3: np.arange(100, 300), 5: np.array([20, 21])}


@pytest.fixture(scope="module")
def config() -> PrivacyAuditConfig:
    return PrivacyAuditConfig(max_members=120, max_held_out=300, timesteps=5)


def test_the_client_whose_images_were_memorised_is_told_from_the_others(
    memorised: tuple[np.ndarray, nn.Module],
    digits: tuple[ImageSet, ImageSet],
    model: ModelConfig,
    config: PrivacyAuditConfig,
) -> None:
    train, test = digits
    audit = audit_membership(memorised[1], model, train, CLIENTS, test, config, seed=0)
    assert set(audit.results) == {ALL_CLIENTS, 0, 3}
    assert set(audit.skipped) == {5}
    assert "2 training images" in audit.skipped[5]
    for attack in ("loss", "pia"):
        found, safe = (audit.results[client][attack] for client in (0, 3))
        assert found.auc > 0.9
        assert abs(safe.auc - 0.5) < 3 * safe.auc_standard_error
        assert (found.num_members, safe.num_members) == (16, 120)
        assert safe.num_held_out <= 300


class ByMean(nn.Module):
    """Predicts so that the loss tells classes apart, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(
        self, x_t: torch.Tensor, t: torch.Tensor, return_dict: bool = True
    ) -> tuple[torch.Tensor]:
        return (x_t * 0.0,)


def test_classes_are_no_membership(model: ModelConfig, config: PrivacyAuditConfig) -> None:
    # Class 0 is black, class 1 white noise; a client has class 0 alone.
    generator = np.random.default_rng(0)

    def draw(count: int) -> ImageSet:
        labels = np.arange(count) % 2
        pixels = generator.integers(0, 256, (count, 1, 8, 8)) * labels[:, None, None, None]
        shade = generator.integers(0, 40, (count, 1, 1, 1))
        images = np.clip(pixels + shade, 0, 255).astype(np.uint8)
        return ImageSet(images, labels, ("black", "noise"))

    train, test = draw(200), draw(200)
    clients = {0: np.flatnonzero(train.labels == 0)}
    labelled = audit_membership(ByMean(), model, train, clients, test, config, seed=0)
    bare = (ImageSet(train.images), ImageSet(test.images))
    unlabelled = audit_membership(ByMean(), model, bare[0], clients, bare[1], config, seed=0)
    matched, mixed = (audit.results[0]["loss"] for audit in (labelled, unlabelled))
    assert abs(matched.auc - 0.5) < 3 * matched.auc_standard_error
    assert abs(mixed.auc - 0.5) > 0.2
    assert (matched.num_held_out, mixed.num_held_out) == (100, 200)


def test_models_are_judged_together_whatever_their_scale() -> None:
    generator = np.random.default_rng(0)
    members, held_out = generator.normal(1, 1, (4, 100)), generator.normal(0, 1, (4, 100))
    scales = np.array([1.0, 1000.0, 0.001, 5.0])
    models = [
        {"loss": (s * a + s, s * b + s)} for s, a, b in zip(scales, members, held_out, strict=True)
    ]
    together = judge_together(models)["loss"]
    assert together.auc == pytest.approx(judge_attack(members.ravel(), held_out.ravel()).auc, 0.02)
    assert (together.num_members, together.num_held_out) == (400, 400)
    assert judge_together([]) == {}


def test_scores_are_scaled_by_the_held_out_images_other_than_themselves() -> None:
    members, held_out = np.array([1.0, 7.0]), np.array([2.0, 4.0, 9.0, 5.0])
    of_members, of_held_out = _scaled(members, held_out)
    assert of_members == pytest.approx((members - 5.0) / held_out.std(ddof=1))
    for i, score in enumerate(held_out):
        others = np.delete(held_out, i)
        assert of_held_out[i] == pytest.approx((score - others.mean()) / others.std(ddof=1))


def test_judging_small_models_together_raises_no_false_alarm() -> None:
    # Eight held-out images each: their own mean and spread would flatter them.
    generator = np.random.default_rng(1)
    alarms = np.zeros(2)
    for _ in range(60):
        models = [
            {"loss": (generator.normal(size=30), generator.normal(size=8))} for _ in range(20)
        ]
        result = judge_together(models)["loss"]
        alarms += result.auc_p_value < 0.05, result.tpr_p_value < 0.05
    # Of 60 alarms at 5 %, 10 or more have a probability below 0.001.
    assert (alarms < 10).all()


def test_images_of_one_source_cannot_be_told_without_a_model(
    digits: tuple[ImageSet, ImageSet],
) -> None:
    train, test = digits
    alike = blind_attack(train.images[:300], test.images, seed=0)
    assert alike.auc_p_value > 0.01
    darker = (test.images * 0.8).astype(np.uint8)
    assert blind_attack(train.images[:300], darker, seed=0).auc_low > 0.8
