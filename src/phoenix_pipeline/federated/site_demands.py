"""The least that a site accepts, from its own configuration; less is refused at the site."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phoenix_pipeline.checkpoints import read_json, write_json
from phoenix_pipeline.federated.privacy.accountant import epsilon_spent
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.round_memory import round_bytes
from phoenix_pipeline.federated.site_errors import SiteRefusal
from phoenix_pipeline.optimization.work import LocalWork, sampling_rate

# Of noise on a whole update: neighbours are up to twice the norm apart.
_LOCAL_SENSITIVITY = 2.0
_GIB = 1 << 30


@dataclass(frozen=True)
class SiteDemands:
    """What a round must keep to; None and () demand nothing.

    Args:
        ledger: where this site counts what it has spent, over all runs that it took part in.
        min_noise_multiplier: of the noise that this site adds, on its update or by DP-SGD.
        max_epsilon: of everything that this site ever sent, by its own count.
        delta: at which ``max_epsilon`` holds.
        keep_layers: prefixes of layers that must be personal.
        max_steps_per_round: steps of training.
        max_memory_gib: of a round, as :func:`round_bytes` estimates it.
    """

    ledger: Path
    min_noise_multiplier: float | None = None
    max_epsilon: float | None = None
    delta: float = 1e-5
    keep_layers: tuple[str, ...] = ()
    max_steps_per_round: int | None = None
    max_memory_gib: float | None = None

    def check_memory(self, settings: ClientSettings, num_images: int) -> None:
        """Raise SiteRefusal for a model, images or batches that would take too much memory.

        To be called before any of it is taken; ``num_images`` are those of the site.
        """
        if self.max_memory_gib is None:
            return
        most = int(self.max_memory_gib * _GIB)
        if (needed := round_bytes(settings, num_images, most)) > most:
            raise SiteRefusal("too-much-memory", f"{needed / _GIB:.3g} GiB by the estimate")

    def check_settings(self, settings: ClientSettings) -> None:
        """Raise SiteRefusal for settings that no round can make good."""
        for layer in self.keep_layers:
            if not any(f"{layer}.".startswith(f"{own}.") for own in settings.personal_layers):
                raise SiteRefusal("layers-not-kept", f"{layer} is not personal in this run")
        if not self._demands_noise:
            return
        if settings.local_noise is None and not settings.training.dp_sgd.enabled:
            raise SiteRefusal("noise-too-small", "this site would add none")
        if not settings.secret_noise:
            raise SiteRefusal("noise-not-secret", "federation.secret_noise is off")
        if settings.local_noise is not None:
            self._check_noise(settings.local_noise.noise_multiplier)

    def begin_round(self, settings: ClientSettings, work: LocalWork, num_images: int) -> None:
        """Raise SiteRefusal for a round that asks for too much; else charge it, on disk.

        Raises also StorageError or CheckpointError when the ledger cannot be written or read.
        """
        self.check_settings(settings)
        if self.max_steps_per_round is not None and work.steps > self.max_steps_per_round:
            raise SiteRefusal("too-much-work", f"{work.steps} steps are asked for")
        if not self._demands_noise:
            return
        rate = sampling_rate(settings.training.batch_size, num_images)
        if settings.local_noise is not None:
            kind, releases = "local", 1
            noise, rate = settings.local_noise.noise_multiplier / _LOCAL_SENSITIVITY, 1.0
        else:
            kind, releases = "dp_sgd", work.steps
            noise = work.noise_multiplier or 0.0
            self._check_noise(noise)
        self._charge(kind, releases, noise, rate)

    @property
    def _demands_noise(self) -> bool:
        return self.min_noise_multiplier is not None or self.max_epsilon is not None

    def _check_noise(self, multiplier: float) -> None:
        if multiplier < (self.min_noise_multiplier or 0.0):
            raise SiteRefusal("noise-too-small", f"the noise multiplier is {multiplier:g}")

    def _charge(self, kind: str, releases: int, noise: float, rate: float) -> None:
        """Count ``releases``; what was spent counts at the least noise and the largest rate."""
        spent: dict[str, Any] = read_json(self.ledger) if self.ledger.exists() else {}
        before = spent.get(kind, {"releases": 0, "noise": noise, "rate": rate})
        spent[kind] = {
            "releases": before["releases"] + releases,
            "noise": min(before["noise"], noise),
            "rate": max(before["rate"], rate),
        }
        if self.max_epsilon is not None:
            epsilon = _total_epsilon(spent, self.delta)
            if epsilon > self.max_epsilon:
                raise SiteRefusal("epsilon-spent", f"it would be {epsilon:.3g} in all")
        write_json(self.ledger, spent)


def _total_epsilon(spent: Mapping[str, Mapping[str, Any]], delta: float) -> float:
    """Return epsilon at ``delta`` of what both kinds of noise released, added up."""
    share = delta / len(spent)
    return sum(
        epsilon_spent(part["noise"], part["rate"], part["releases"], share)
        for part in spent.values()
    )
