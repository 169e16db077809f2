"""The least that a site accepts, and what it has spent: by its own configuration and count."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from torch import nn

from phoenix_pipeline.config import Group
from phoenix_pipeline.families import family_of
from phoenix_pipeline.federated.privacy.accountant import epsilon_spent
from phoenix_pipeline.federated.privacy.checks import find_mixing_layer
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.round_memory import round_bytes
from phoenix_pipeline.federated.site_errors import SiteRefusal
from phoenix_pipeline.file_locks import locked_for_a_moment
from phoenix_pipeline.json_files import read_json, write_json
from phoenix_pipeline.optimization.work import LocalWork, sampling_rate

LOCAL, DP_SGD = "local", "dp_sgd"
_PATIENCE_S = 60.0
# Of noise on a whole update: neighbours are up to twice the norm apart.
_LOCAL_SENSITIVITY = 2.0
_GIB = 1 << 30
# A step of sampling is a forward pass, one of training three times that.
_EVALUATIONS_PER_IMAGE = 3


@dataclass(frozen=True)
class Release:
    """``count`` releases of one kind with ``noise`` over sensitivity, each of a sampled share."""

    kind: str
    count: int
    noise: float
    rate: float


class SpentEpsilon:
    """The ledger ``file``; processes of several runs charge it one after another."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def kinds(self) -> frozenset[str]:
        """Return of which kinds anything was released."""
        return frozenset(self._read())

    def charge(self, release: Release, delta: float, check: Callable[[float], None]) -> None:
        """Add ``release``, unless ``check`` refuses the epsilon at ``delta`` that is reached then.

        What was spent counts at the least noise and the largest rate.
        Raises StorageError, CheckpointError: the file cannot be written or read.
        Raises BusyError: another process holds it for a minute.
        """
        with locked_for_a_moment(self._file.with_suffix(".lock"), _PATIENCE_S, needed=True):
            spent = self._read()
            unspent = {"releases": 0, "noise": release.noise, "rate": release.rate}
            before = spent.get(release.kind, unspent)
            spent[release.kind] = {
                "releases": before["releases"] + release.count,
                "noise": min(before["noise"], release.noise),
                "rate": max(before["rate"], release.rate),
            }
            check(_total(spent, delta))
            write_json(self._file, spent)

    def _read(self) -> dict[str, Any]:
        return dict(read_json(self._file)) if self._file.exists() else {}


def _total(spent: Mapping[str, Mapping[str, Any]], delta: float) -> float:
    """Return epsilon at ``delta`` of what both kinds of noise released, added up."""
    share = delta / len(spent)
    return sum(
        epsilon_spent(part["noise"], part["rate"], part["releases"], share)
        for part in spent.values()
    )


def _split(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    return [part.strip() for part in given.split(",") if part.strip()]


class Demands(Group):
    """What a site demands of any run, by its own configuration; what is not set demands nothing."""

    min_noise_multiplier: float | None = Field(
        None, gt=0.0, description="Least noise that this client adds, itself, in any run."
    )
    max_epsilon: float | None = Field(
        None, gt=0.0, description="Most epsilon that this client spends, over all runs."
    )
    delta: float = Field(1e-5, gt=0.0, lt=1.0, description="Delta of max-epsilon.")
    keep_layers: Annotated[tuple[str, ...], BeforeValidator(_split)] = Field(
        (), description="Layers that must be personal, by prefixes with commas between them."
    )
    max_steps_per_round: int | None = Field(
        None, ge=1, description="Most steps of training that this client makes in a round."
    )
    max_memory_gib: float | None = Field(
        None, gt=0.0, description="Most memory that a round takes, by an estimate, in GiB."
    )


class SiteDemands(Demands):
    """Holds rounds against them; ``ledger`` counts what was spent over all runs of this site.

    A score may be as much work as ``max_steps_per_round`` again. ``max_memory_gib`` is of a round
    as :func:`round_bytes` estimates it.
    """

    ledger: Path

    def check_memory(self, settings: ClientSettings, num_images: int) -> None:
        """Raise SiteRefusal for what would take too much memory, before any of it is taken."""
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
        if not self.demands_noise:
            return
        if settings.local_noise is None and not settings.training.dp_sgd.enabled:
            raise SiteRefusal("noise-too-small", "this site would add none")
        if not settings.secret_noise:
            raise SiteRefusal("noise-not-secret", "federation.secret_noise is off")
        if settings.local_noise is not None:
            self._check_noise(settings.local_noise.noise_multiplier)

    def check_network(self, settings: ClientSettings, network: nn.Module) -> None:
        """Raise SiteRefusal for a network in which the demands would mean nothing."""
        names = [f"{name}." for name in network.state_dict()]
        for layer in self.keep_layers:
            if not any(name.startswith(f"{layer}.") for name in names):
                raise SiteRefusal("layers-not-kept", f"the model has no {layer}")
        if self.demands_noise and settings.local_noise is None:
            family = family_of(settings.model)
            if not family.private:
                raise SiteRefusal("noise-too-small", f"no DP-SGD for models of {family.name}")
            if mixing := find_mixing_layer(network):
                raise SiteRefusal("noise-too-small", f"DP-SGD does not cover layer {mixing}")

    def check_score(self, settings: ClientSettings) -> None:
        """Raise SiteRefusal for a score that is too much work, or would tell what noise hides.

        After DP-SGD the model itself is private, and so is what is sampled from it, unless that is
        of classes in the site's own shares.
        """
        images = settings.monitor_samples * settings.monitor_steps / _EVALUATIONS_PER_IMAGE
        steps = math.ceil(images / settings.training.batch_size)
        if self.max_steps_per_round is not None and steps > self.max_steps_per_round:
            raise SiteRefusal("too-much-work", f"a score that takes as long as {steps} steps")
        hidden = settings.local_noise is not None or settings.class_names
        if self.demands_noise and hidden:
            raise SiteRefusal("noise-too-small", "a score would be sent without noise")

    def check_release(self) -> None:
        """Raise SiteRefusal for personal layers that were trained without noise."""
        if self.demands_noise and self._spent.kinds() != {DP_SGD}:
            raise SiteRefusal("noise-too-small", "personal layers would be sent without noise")

    def begin_round(self, settings: ClientSettings, work: LocalWork, num_images: int) -> None:
        """Charge a round, on disk; raises SiteRefusal for too much, or as the ledger does."""
        self.check_settings(settings)
        if self.max_steps_per_round is not None and work.steps > self.max_steps_per_round:
            raise SiteRefusal("too-much-work", f"{work.steps} steps are asked for")
        if not self.demands_noise:
            return
        self._spent.charge(self._release(settings, work, num_images), self.delta, self._check_spent)

    def _release(self, settings: ClientSettings, work: LocalWork, num_images: int) -> Release:
        if settings.local_noise is not None:
            multiplier = settings.local_noise.noise_multiplier
            return Release(LOCAL, 1, multiplier / _LOCAL_SENSITIVITY, 1.0)
        noise = work.noise_multiplier or 0.0
        self._check_noise(noise)
        rate = sampling_rate(settings.training.batch_size, num_images)
        return Release(DP_SGD, work.steps, noise, rate)

    @property
    def _spent(self) -> SpentEpsilon:
        return SpentEpsilon(self.ledger)

    @property
    def demands_noise(self) -> bool:
        """Whether nothing that follows from the images may leave without noise."""
        return self.min_noise_multiplier is not None or self.max_epsilon is not None

    def _check_noise(self, multiplier: float) -> None:
        if multiplier < (self.min_noise_multiplier or 0.0):
            raise SiteRefusal("noise-too-small", f"the noise multiplier is {multiplier:g}")

    def _check_spent(self, epsilon: float) -> None:
        if self.max_epsilon is not None and epsilon > self.max_epsilon:
            raise SiteRefusal("epsilon-spent", f"it would be {epsilon:.3g} in all")
