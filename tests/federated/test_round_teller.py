"""What is told of the rounds, as MLflow shows it, is what the table of rounds says."""

from collections import Counter
from pathlib import Path

import pytest

from phoenix_pipeline.config import DifferentialPrivacyConfig
from phoenix_pipeline.reporting.comparison import run_totals
from tests.federated.tiny import federate, settings

LAYERS = ("conv_norm_out", "conv_out")


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_bytes_by_round_are_those_of_the_table_and_of_the_comparison(
    tmp_path: Path, fraction: float
) -> None:
    shown: dict[int, dict[str, float]] = {}
    times: Counter[int] = Counter()

    def on_round(number: int, means: dict[str, float]) -> None:
        shown.setdefault(number, {}).update(means)
        times[number] += 1

    result = federate(
        tmp_path,
        rounds=4,
        client_fraction=fraction,
        settings=settings(LAYERS),
        final_average="raw",
        on_round=on_round,
    )
    last = result.rounds.groupby("client_id")["round"].max()
    assert sorted(last) == ([4, 4] if fraction == 1.0 else [3, 4])
    by_round = result.rounds.groupby("round")[["bytes_up", "bytes_down"]].sum()
    for number, row in by_round.iterrows():
        assert (shown[number]["bytes_up"], shown[number]["bytes_down"]) == tuple(row)
    total = sum(means["bytes_up"] + means["bytes_down"] for means in shown.values())
    assert total == run_totals(result.rounds)["bytes_total"]
    # Only what changed is told again.
    assert times == {n: 1 + (fraction < 1 and n == last.min()) for n in range(1, 5)}


def test_the_upload_is_in_the_last_round(tmp_path: Path) -> None:
    told = settings(LAYERS)
    shown: dict[bool, list[float]] = {True: [], False: []}
    for uploads, ups in shown.items():
        federate(
            tmp_path / str(uploads),
            settings=told,
            final_average="raw" if uploads else None,
            on_round=lambda _, means, ups=ups: ups.append(means["bytes_up"]),
        )
    assert shown[True][0] == shown[False][0]
    assert shown[True][1] > shown[False][1]


def test_epsilon_of_rounds_of_nobody_is_told(tmp_path: Path) -> None:
    shown: dict[int, float] = {}
    private = DifferentialPrivacyConfig(enabled=True, noise_multiplier=2.0, delta=1e-3)
    result = federate(
        tmp_path,
        rounds=3,
        client_fraction=0.35,
        local_work={"unit": "steps", "amount": 2},
        differential_privacy=private,
        on_round=lambda n, means: shown.update({n: means.get("epsilon", 0.0)}),
    )
    assert max(shown.values()) == result.rounds["epsilon"].max()
