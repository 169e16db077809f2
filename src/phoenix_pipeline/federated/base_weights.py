"""What adapters are trained on: each site reads it from its own folder, and nobody sends it."""

from pathlib import Path

from torch import nn

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families import family_of
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.site_errors import SiteRefusal


def open_network(settings: ClientSettings, base: Path | None) -> nn.Module:
    """Return the network with its initial weights, and below adapters those in the folder ``base``.

    Raises:
        SiteRefusal: there is no such folder, or its weights are not those of ``settings``.
    """
    if not settings.base_digest:
        return settings.build_network()
    if base is None:
        raise SiteRefusal("no-base", "set base-model in the node configuration to its folder")
    model = settings.model.model_copy(update={"start_from": str(base)})
    try:
        network = settings.model_copy(update={"model": model}).build_network()
    except SettingsError as error:
        raise SiteRefusal("other-base", str(error)) from error
    found = family_of(settings.model).base_digest(network)
    if found != settings.base_digest:
        raise SiteRefusal(
            "other-base",
            f"{base} has the digest {found}, but the run is on {settings.base_digest}; use the "
            "same folder at every site",
        )
    return network
