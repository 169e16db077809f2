"""What differential privacy changes in the rounds: who trains, with what noise, at what epsilon."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.federated.aggregation.private_mean import PrivateRound
from phoenix_pipeline.federated.history import ABSENT, History, Row
from phoenix_pipeline.federated.privacy.accountant import dp_sgd_epsilon
from phoenix_pipeline.federated.privacy.client_level import ClientLevelPrivacy
from phoenix_pipeline.federated.records import ClientSettings, LocalNoise
from phoenix_pipeline.federated.work_plan import poisson_clients, round_size, select_clients
from phoenix_pipeline.json_files import read_json, write_json
from phoenix_pipeline.seeding import derive_seed

logger = logging.getLogger(__name__)

LEDGER_FILE = "asked.json"


class Ledger:
    """Rounds and steps by client that were ever asked for, finished or not."""

    def __init__(self, file: Path, before: History) -> None:
        """Go on with ``file`` or, without one, ``before``; raises CheckpointError."""
        self._file = file
        self.rounds = Counter(before.rounds_asked)
        self.steps = Counter(before.steps_asked)
        if file.exists():
            stored = read_json(file)
            self.rounds = Counter({int(client): n for client, n in stored["rounds"].items()})
            self.steps = Counter({int(client): n for client, n in stored["steps"].items()})

    def begin(self, steps: Mapping[int, int]) -> None:
        """Charge a round of ``steps`` by client, on disk; raises StorageError: ask nothing then."""
        self.rounds.update(list(steps))
        self.steps.update(steps)
        write_json(self._file, {"rounds": self.rounds, "steps": self.steps})


def with_noise_to_add(
    settings: ClientSettings, config: FederationConfig, clients: ClientLevelPrivacy | None
) -> ClientSettings:
    """Return ``settings`` with the noise that clients are to add; ``clients``: None where off."""
    noise = None
    if clients and not clients.is_central:
        noise = LocalNoise(
            clip_norm=clients.config.clip_norm, noise_multiplier=clients.noise_multiplier
        )
    private = noise is not None or settings.training.dp_sgd.enabled
    secret = private and config.has_secret_noise
    return settings.model_copy(update={"local_noise": noise, "secret_noise": secret})


class PrivacyPlan:
    """Both kinds of differential privacy, each of which may be off, over clients of ``sizes``.

    Epsilon follows from the settings and the rows so far, so that a resumed run goes on with it;
    where clients draw secret noise, from the ledger in ``folder``, which knows rounds cut short.
    """

    def __init__(
        self,
        config: FederationConfig,
        settings: ClientSettings,
        sizes: Mapping[int, int],
        before: History,
        folder: Path,
    ) -> None:
        """Solve for the noise; raises SettingsError if a target cannot be reached."""
        self._config = config
        self._settings = settings
        self._dp_sgd = settings.training.dp_sgd
        self._seed = None if config.has_secret_noise else settings.seed
        self._clients: ClientLevelPrivacy | None = None
        if config.differential_privacy.enabled:
            self._clients = ClientLevelPrivacy.of(config, len(sizes))
            self._warn(config.differential_privacy.delta, len(sizes), "clients")
        elif self._dp_sgd.enabled:
            self._warn(self._dp_sgd.delta, min(sizes.values()), "images of the smallest client")
        settings_of_clients = self.settings_for_clients()
        self._ledger = (
            Ledger(folder / LEDGER_FILE, before) if settings_of_clients.secret_noise else None
        )

    @property
    def is_central(self) -> bool:
        """Whether the server clips, and adds noise."""
        return self._clients is not None and self._clients.is_central

    def settings_for_clients(self) -> ClientSettings:
        """Return what clients are told, with the noise that they are to add."""
        return with_noise_to_add(self._settings, self._config, self._clients)

    def choose(self, connected: Mapping[int, int], current: int) -> list[int]:
        """Return the clients of round ``current``; none may be chosen where noise is central."""
        if self.is_central:
            return poisson_clients(connected, self._config.client_fraction, self._seed, current)
        count = round_size(len(connected), self._config)
        return select_clients(connected, count, self._settings.seed, current)

    def begin(self, steps: Mapping[int, int]) -> None:
        """Charge clients with the ``steps`` that they are about to be asked for."""
        if self._ledger:
            self._ledger.begin(steps)

    def round(self, current: int, clip_norm: float | None) -> PrivateRound | None:
        """Return what the rule of round ``current`` needs; None where it is not private."""
        if self._clients is None or not self._clients.is_central:
            return None
        seed = None if self._seed is None else derive_seed(self._seed, "private_mean", current)
        return self._clients.round(clip_norm, seed)

    def account(self, current: int, rows: Sequence[Row], before: History) -> None:
        """Write epsilon into ``rows``: whoever was asked has spent, whatever came back."""
        for row in rows:
            if row["status"] != ABSENT:
                row["epsilon"] = self._epsilon(current, row, before)

    def _epsilon(self, current: int, row: Row, before: History) -> float:
        client = row["client_id"]
        times, steps = before.rounds_asked[client] + 1, before.steps_asked[client] + row["steps"]
        if self._ledger:
            times, steps = self._ledger.rounds[client], self._ledger.steps[client]
        if self._clients:
            return self._clients.epsilon(current if self.is_central else times)
        if not self._dp_sgd.enabled:
            return float("nan")
        return dp_sgd_epsilon(
            self._dp_sgd,
            self._settings.training.batch_size,
            row["num_examples"],
            row["steps"] * self._config.num_rounds,
            steps,
        )

    @staticmethod
    def _warn(delta: float, units: int, what: str) -> None:
        if delta * units >= 1.0:
            logger.warning(
                "delta is %g, with %s %s: it should be well below 1/%s", delta, units, what, units
            )
