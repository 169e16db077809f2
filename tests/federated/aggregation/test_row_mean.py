"""Rows by class are averaged over those who trained them: two clients of disjoint classes."""

import pytest
import torch
from torch import Tensor

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation import build_aggregation

EMBEDDING = "class_embedding.weight"
# Three classes and the null class.
BASE = {
    EMBEDDING: torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]),
    "conv.weight": torch.tensor([8.0]),
}


def reply(conv: float, rows: dict[int, list[float]]) -> dict[str, Tensor]:
    embedding = BASE[EMBEDDING].clone()
    for row, values in rows.items():
        embedding[row] = torch.tensor(values)
    return {EMBEDDING: embedding, "conv.weight": torch.tensor([conv])}


def aggregate(*replies: tuple[dict[str, Tensor], float], **federation: object) -> dict[str, Tensor]:
    rule = build_aggregation(FederationConfig.model_validate(federation), BASE, 0, 1)
    for arrays, weight in replies:
        rule.add(arrays, weight)
    return rule.result()


def test_disjoint_classes_are_not_diluted() -> None:
    # The first holds class 0 and 1 image in 4, the second class 1; nobody holds class 2.
    mine, other = (
        reply(4.0, {0: [5.0, 6.0], 3: [0.0, 3.0]}),
        reply(12.0, {1: [7.0, 1.0], 3: [4, 4]}),
    )
    new = aggregate((mine, 1.0), (other, 3.0))
    assert new[EMBEDDING].tolist() == [[5.0, 6.0], [7.0, 1.0], [2.0, 2.0], [3.0, 3.75]]
    assert new["conv.weight"].tolist() == [10.0]


def test_shared_classes_are_averaged_by_numbers_of_images() -> None:
    new = aggregate((reply(8.0, {0: [4.0, 0.0]}), 1.0), (reply(8.0, {0: [0.0, 8.0]}), 3.0))
    assert new[EMBEDDING][0].tolist() == [1.0, 6.0]


def test_clipped_updates_leave_rows_at_rest() -> None:
    clip = {"rule": "mean", "clip_norm": {"bound": 1.0}}
    new = aggregate((reply(8.0, {0: [6.0, 8.0]}), 1.0), (reply(8.0, {}), 9.0), aggregation=clip)
    torch.testing.assert_close(new[EMBEDDING][0], torch.tensor([0.6, 0.8]))


def test_halves_of_a_model_keep_its_rows() -> None:
    split = {"partial_update": "usplit"}
    encoder = {EMBEDDING: reply(0.0, {0: [4.0, 4.0]})[EMBEDDING]}
    decoder = {"conv.weight": torch.tensor([2.0])}
    new = aggregate((encoder, 1.0), (decoder, 5.0), compression=split)
    assert new[EMBEDDING].tolist() == [[4.0, 4.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    assert new["conv.weight"].tolist() == [2.0]


def test_a_refused_reply_counts_in_no_row() -> None:
    rule = build_aggregation(FederationConfig(), BASE, 0, 1)
    rule.add(reply(8.0, {0: [1.0, 2.0]}), 1.0)
    with pytest.raises(FederationError, match="not finite"):
        rule.add(reply(float("nan"), {0: [100.0, 100.0]}), 1.0)
    assert rule.result()[EMBEDDING][0].tolist() == [1.0, 2.0]
