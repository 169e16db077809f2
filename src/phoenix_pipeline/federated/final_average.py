"""The one upload of personal layers, after the last round, so that one model can be exported."""

import logging
from collections.abc import Collection, Mapping

from torch import Tensor

from phoenix_pipeline.federated.aggregation import Aggregation, WeightedMean, by_rows
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.personal_upload import Weights, ask_for_layers
from phoenix_pipeline.federated.run_state import RunState

logger = logging.getLogger(__name__)


def average_personal_layers(
    job: FederatedJob, fleet: Fleet, connected: Collection[int], run: RunState, weights: Weights
) -> dict[str, Tensor] | None:
    """Return the mean of the clients' personal layers by example counts; see also ``RowMean``.

    Clients that do not send theirs are left out; None if nobody does. The bytes are added to each
    client's newest row.
    """
    traffic: dict[int, tuple[int, int]] = {}
    mean: Aggregation | None = None
    for upload in ask_for_layers(job, run.key, fleet, connected, weights):
        mean = mean or by_rows(WeightedMean(upload.layers), _started_from(job, run, upload.layers))
        mean.add(upload.layers, upload.num_examples)
        traffic[upload.client_id] = (upload.bytes_up, upload.bytes_down)
    run.history.charge(traffic)
    if mean is None:
        logger.warning("no client sent its personal layers: there is no averaged model")
        return None
    return mean.result()


def _started_from(
    job: FederatedJob, run: RunState, layers: Collection[str]
) -> Mapping[str, Tensor]:
    """Return the personal layers that clients began with."""
    if run.initial_personal:
        return run.initial_personal
    initial = job.settings.build_network().state_dict()
    return {name: initial[name] for name in layers}
