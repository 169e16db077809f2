"""Secret noise on clients: a round that is made again is released, and charged, again."""

from itertools import count
from pathlib import Path

import pytest

from phoenix_pipeline.config import DifferentialPrivacyConfig, DpSgdConfig
from phoenix_pipeline.federated.history import History
from phoenix_pipeline.federated.privacy.accountant import epsilon_spent
from phoenix_pipeline.federated.privacy.plan import Ledger
from phoenix_pipeline.federated.server import train_federated
from tests.federated.tiny import federate, job, settings


@pytest.mark.parametrize(("of_images", "killed_in"), [(False, 1), (False, 2), (True, 2)])
def test_with_secret_noise_on_clients_a_round_made_again_is_charged_again(
    tmp_path: Path, of_images: bool, killed_in: int
) -> None:
    noise = {"enabled": True, "noise_multiplier": 1.5, "delta": 1e-3}
    options: dict[str, object] = {"secret_noise": True, "rounds": 3}
    if of_images:
        options["settings"] = settings(dp_sgd=DpSgdConfig(**noise))
    else:
        local = DifferentialPrivacyConfig(placement="local", **noise)
        options["differential_privacy"] = local

    replies = count(1)

    def killed() -> None:
        # One client of two has answered when the process ends.
        if next(replies) == 2 * killed_in - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_federated(job(**options), tmp_path, on_reply=killed)
    rounds = federate(tmp_path, **options).rounds
    for row in rounds.itertuples():
        times = row.round + (row.round >= killed_in)
        expected = epsilon_spent(0.75, 1.0, times, 1e-3)
        if of_images:
            expected = epsilon_spent(1.5, 6 / row.num_examples, 2 * times, 1e-3)
        assert row.epsilon == pytest.approx(expected)


def test_a_ledger_goes_on_where_it_was_or_with_the_finished_rounds(tmp_path: Path) -> None:
    before = History(tmp_path / "history.jsonl")
    before.rounds_asked.update([3, 3])
    before.steps_asked.update({3: 10})
    ledger = Ledger(tmp_path / "asked.json", before)
    ledger.begin({3: 5, 11: 7})
    again = Ledger(tmp_path / "asked.json", before)
    assert (again.rounds, again.steps) == ({3: 3, 11: 1}, {3: 15, 11: 7})
