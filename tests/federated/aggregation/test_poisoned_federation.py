"""A federation of ten in which two clients send poisoned updates, through Strategy and grid."""

from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from phoenix_pipeline.errors import FederationError, SettingsError
from phoenix_pipeline.federated.client_app import answer_errors, build_client_app
from phoenix_pipeline.federated.client_state import ClientStates
from phoenix_pipeline.federated.engines.in_process import InProcessGrid
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.job import FederatedResult
from phoenix_pipeline.federated.program import Watch, run_program
from phoenix_pipeline.federated.records import pack_arrays, unpack_arrays
from phoenix_pipeline.federated.sites import CLIENT_ID, Sites
from tests.federated.tiny import client_table, federate, job, make_images, settings

SIZES = (6,) * 10
POISONERS = (3, 7)
RULES: list[dict[str, Any]] = [
    {},
    {"rule": "median"},
    {"rule": "trimmed_mean"},
    {"rule": "krum", "num_byzantine": 2},
    {"rule": "multi_krum", "num_byzantine": 2},
    {"rule": "mean", "clip_norm": {"bound": 1.0, "unit": "median"}},
    {"rule": "mean", "clip_norm": {"bound": 1.0, "unit": "last_median"}},
]


def federate_ten(folder: Path, poison: float | None, **options: Any) -> FederatedResult:
    """Run one round; poisoners send ``poison`` times the weights that they were given."""
    told = job(
        rounds=1,
        images=make_images(sum(SIZES)),
        client_images=client_table(SIZES),
        settings=settings(lr_warmup=0.0),
        **options,
    )
    sites = Sites.in_memory(told, torch.device("cpu"), ClientStates(folder / "clients"))
    honest, app = build_client_app(sites), ClientApp(mods=[answer_errors])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        if poison is not None and context.node_config[CLIENT_ID] in POISONERS:
            given = unpack_arrays(message.content["arrays"])
            reply.content["arrays"] = pack_arrays({n: poison * t for n, t in given.items()})
        return reply

    with InProcessGrid(app, sites.sizes(), workers=1, threads=1) as grid:
        fleet = Fleet(grid, grid.clients, sites.sizes(), sites.state)
        return run_program(told, folder, fleet, Watch())


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return federate_ten(tmp_path_factory.mktemp("clean"), poison=None).raw


def harm(result: FederatedResult, clean: dict[str, torch.Tensor]) -> float:
    """Return the distance to the clean result, in lengths of the clean update."""
    start = settings().build_network().state_dict()
    update = sum(float((clean[n] - start[n]).square().sum()) for n in clean) ** 0.5
    off = sum(float((result.raw[n] - clean[n]).square().sum()) for n in clean) ** 0.5
    return off / update


def test_fedavg_without_a_bound_is_ruined(tmp_path: Path, clean: dict[str, torch.Tensor]) -> None:
    unbounded = {"clip_norm": {"bound": None}}
    assert harm(federate_ten(tmp_path, -10.0, aggregation=unbounded), clean) > 50.0


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_robust_rule_is_not(
    tmp_path: Path, clean: dict[str, torch.Tensor], rule: dict[str, Any]
) -> None:
    result = federate_ten(tmp_path, -10.0, aggregation=rule)
    assert (result.rounds["status"] == "ok").all()
    # Krum keeps one honest client of eight, which is further from their mean than the start is.
    assert harm(result, clean) < 2.0


def test_too_few_clients_are_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"krum needs 5 replies.*2 clients train"):
        federate(tmp_path, aggregation={"rule": "krum"})
    assert not (tmp_path / "clients").exists()


def test_the_share_of_clients_counts(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"median needs 3 replies.*2 clients train"):
        federate_ten(tmp_path, None, aggregation={"rule": "median"}, client_fraction=0.2)


def test_too_few_usable_replies_end_the_run_with_the_reasons(tmp_path: Path) -> None:
    rule = {"rule": "multi_krum", "num_byzantine": 3}
    said = r"round 1: 8 of 10 .*multi_krum needs 9 \(client 3: array \S+ holds a value that is not"
    with pytest.raises(FederationError, match=said):
        federate_ten(tmp_path, float("nan"), aggregation=rule)


def test_fedprox_pulls_from_the_second_step_on(tmp_path: Path) -> None:
    def weights(mu: float, steps: int) -> torch.Tensor:
        options: dict[str, Any] = {"local_work": {"unit": "steps", "amount": steps}}
        options["strategies"] = {"fedprox": {"mu": mu}}
        told = settings(lr_warmup=0.0, lr_schedule="constant")
        folder = tmp_path / f"{mu}-{steps}"
        return federate(folder, rounds=1, settings=told, **options).raw["conv_in.weight"]

    assert torch.equal(weights(0.0, 1), weights(10.0, 1))
    start = settings().build_network().state_dict()["conv_in.weight"]
    free, pulled = weights(0.0, 3), weights(10.0, 3)
    assert (pulled - start).norm() < (free - start).norm()
