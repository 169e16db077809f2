"""Parts of a deployment without its processes: node configuration, Grid, and the shared folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from phoenix_pipeline.config import DeploymentConfig, ThresholdFilterConfig
from phoenix_pipeline.errors import CheckpointError, FederationError, PhoenixError
from phoenix_pipeline.federated.client_app import OpenSite, build_client_app
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.engines.exchange import (
    Progress,
    has_ended,
    read_failure,
    read_job,
    read_result,
    write_failure,
    write_job,
    write_result,
)
from phoenix_pipeline.federated.engines.in_process import InProcessGrid
from phoenix_pipeline.federated.engines.node_app import open_node
from phoenix_pipeline.federated.engines.node_roster import open_fleet
from phoenix_pipeline.federated.engines.server_app import released_layers
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.personal_upload import ask_for_layers
from phoenix_pipeline.federated.program import Watch, run_program
from phoenix_pipeline.federated.sites import InMemorySites, Site
from phoenix_pipeline.images import ImageSet, write_images
from phoenix_pipeline.metrics.monitoring import MonitorReference
from tests.federated.tiny import federate, job, make_images, same, settings

KEY = "0123456789abcdef"


def open_with(folder: Path, told: dict[str, Any] | None = None, **config: Any) -> Site:
    """Open the site of a node in ``folder`` that is told ``told`` by the server."""
    given = {"client-id": 4, "data": str(folder / "own.parquet")}
    given |= {"state-folder": str(folder / "state"), "device": "cpu"} | config
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, SUPERLINK_NODE_ID
    record = ConfigRecord({"run": KEY, "settings": settings().model_dump_json(), **(told or {})})
    message = Message(RecordDict({"config": record}), 9, "train")
    return open_node(message, Context(1, 9, given, RecordDict(), {}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(make_images(5), tmp_path / "own.parquet")
    write_images(ImageSet(make_images(8).images[5:]), tmp_path / "pool.parquet")
    return tmp_path


def test_a_node_reads_its_own_images_and_keeps_state_by_run(folder: Path) -> None:
    site = open_with(folder)
    assert torch.equal(site.images, torch.from_numpy(make_images(5).images))
    assert (site.client_id, site.releases_personal_layers) == (4, False)
    site.save_state(2, 0, ClientState(personal={"w": torch.ones(2)}))
    assert open_with(folder).load_state(3).personal["w"].tolist() == [1.0, 1.0]
    assert open_with(folder, {"run": KEY[::-1]}).load_state(3).personal == {}


def test_the_shared_pool_is_a_file_of_the_node(folder: Path) -> None:
    site = open_with(folder, **{"shared-pool": str(folder / "pool.parquet")})
    assert torch.equal(site.images, torch.from_numpy(make_images(8).images))


def test_images_are_resized_as_the_run_wants_them(folder: Path) -> None:
    other = settings().model_copy(update={"image_size": 16, "channels": 3})
    site = open_with(folder, {"settings": other.model_dump_json()})
    assert site.images.shape == (5, 3, 16, 16)


@pytest.mark.parametrize(
    ("told", "config", "said"),
    [
        ({"run": "../../etc"}, {}, "16 hex digits"),
        ({"run": KEY + "/.."}, {}, "16 hex digits"),
        ({}, {"client-id": -1}, "'client-id'"),
        ({}, {"clientid": 1}, "allowed keys are client-id"),
        ({}, {"data": "nowhere.parquet"}, "nowhere.parquet"),
    ],
)
def test_what_a_node_refuses(
    folder: Path, told: dict[str, Any], config: dict[str, Any], said: str
) -> None:
    with pytest.raises(PhoenixError) as error:
        open_with(folder, told, **config)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def deployed(**options: Any) -> FederatedJob:
    given = {"num_nodes": 2, "wait_for_nodes_s": 1.0} | options.pop("deployment", {})
    return job(engine="deployment", deployment=DeploymentConfig(**given), **options)


def grid_of(sites: InMemorySites, clients: tuple[int, ...]) -> InProcessGrid:
    return InProcessGrid(build_client_app(sites), clients, workers=1, threads=1)


def in_memory(told: FederatedJob, folder: Path) -> InMemorySites:
    return InMemorySites(told.images, told.client_images, torch.device("cpu"), folder)


def test_the_program_over_nodes_ends_with_the_bits_of_in_process(tmp_path: Path) -> None:
    told = deployed(workers=2)
    with grid_of(in_memory(told, tmp_path / "c"), (1, 0)) as grid:
        fleet = open_fleet(grid, told)
        assert fleet.clients == {1: 0, 2: 1}
        assert list(fleet.sizes.items()) == [(0, 12), (1, 36)]
        apart = run_program(told, tmp_path / "apart", fleet, Watch())
        few = deployed(deployment={"num_nodes": 3})
        with pytest.raises(FederationError, match=r"2 nodes can take part after 1 s.*is 3"):
            open_fleet(grid, few)
    assert same(apart.raw, federate(tmp_path / "here", workers=2).raw)


def test_nodes_that_share_a_client_id_or_cannot_answer_stop_the_start(tmp_path: Path) -> None:
    told = deployed()
    sites = in_memory(told, tmp_path)
    with (
        InProcessGrid(build_client_app(lambda *_: sites.site(0)), (0, 1), 1, threads=1) as grid,
        pytest.raises(FederationError, match="two nodes have client-id 0"),
    ):
        open_fleet(grid, told)
    # Client 7 has no images: its node raises.
    with (
        grid_of(sites, (0, 7)) as grid,
        pytest.raises(FederationError, match=r"1 nodes can take part.*node 8: KeyError: 7"),
    ):
        open_fleet(grid, told)


class ComingAndGoing(InProcessGrid):
    """Nodes ``present`` are connected; the test changes them between rounds."""

    present: set[int]

    def get_node_ids(self) -> list[int]:
        return sorted(self.present)


def test_nodes_join_vanish_and_come_back_between_rounds(tmp_path: Path) -> None:
    told = deployed(rounds=4, deployment={"num_nodes": 1})
    sites = in_memory(told, tmp_path / "c")
    with ComingAndGoing(build_client_app(sites), (0, 1), workers=1, threads=1) as grid:
        grid.present = {2}
        fleet = open_fleet(grid, told)
        present_after = {1: {1, 2}, 2: {1}, 3: {1, 2}}

        def after(number: int, _: object) -> None:
            grid.present = present_after.get(number, set())

        rows = run_program(told, tmp_path / "r", fleet, Watch(after)).rounds
    seen = rows.set_index(["round", "client_id"])["status"].to_dict()
    assert seen == {
        (1, 1): "ok",
        **{(2, 0): "ok", (2, 1): "ok"},
        **{(3, 0): "ok", (3, 1): "absent"},
        **{(4, 0): "ok", (4, 1): "ok"},
    }
    assert rows.loc[rows["status"] == "absent", "reason"].tolist() == ["its node is not connected"]


def test_a_client_comes_back_as_another_node_and_nobody_takes_its_place(tmp_path: Path) -> None:
    told = deployed(deployment={"num_nodes": 1})
    sites = in_memory(told, tmp_path)
    same_client = build_client_app(lambda *_: sites.site(1))
    with ComingAndGoing(same_client, (0, 1), workers=1, threads=1) as grid:
        grid.present = {1}
        fleet = open_fleet(grid, told)
        grid.present = {1, 2}
        assert fleet.roll_call(1) == {}
        assert fleet.clients == {1: 1}
        grid.present = {2}
        assert fleet.roll_call(2) == {}
        assert fleet.clients == {2: 1}
        grid.present = set()
        assert fleet.roll_call(3) == {1: "its node is not connected"}


def keeping(sites: InMemorySites, releasing: tuple[int, ...]) -> OpenSite:
    def open_site(message: Message, context: Context) -> Site:
        site = sites(message, context)
        return replace(site, releases_personal_layers=site.client_id in releasing)

    return open_site


def test_too_few_released_layers_are_told_before_training(tmp_path: Path) -> None:
    told = settings(("conv_out",))
    strict = deployed(settings=told)
    sites = in_memory(strict, tmp_path / "c")
    with InProcessGrid(build_client_app(keeping(sites, ())), (0, 1), 1, threads=1) as grid:
        with pytest.raises(FederationError, match=r"0 of 2 .*release-personal-layers"):
            open_fleet(grid, strict)
        lenient = {"min_released": 0}
        with pytest.raises(FederationError, match="1 must"):
            open_fleet(grid, deployed(settings=told, deployment=lenient, final_average="raw"))
        open_fleet(grid, deployed(settings=told, deployment=lenient))
        open_fleet(grid, deployed())


def test_layers_come_from_those_that_release_them(tmp_path: Path) -> None:
    told = deployed(settings=settings(("conv_out",)), final_average="raw", rounds=1)
    sites = in_memory(told, tmp_path / "c")
    with InProcessGrid(build_client_app(keeping(sites, (1,))), (0, 1), 1, threads=1) as grid:
        fleet = open_fleet(grid, told)
        result = run_program(told, tmp_path / "r", fleet, Watch())
        released = released_layers(told, result, fleet)
    assert result.averaged_personal is not None
    torch.testing.assert_close(result.averaged_personal, sites.state(1).personal)
    assert list(released) == [1]
    assert same(released[1].personal, sites.state(1).personal)
    assert same(released[1].personal_ema, sites.state(1).personal_ema)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda arrays: arrays.update(more=Array(np.zeros(1 << 20))),
        lambda arrays: arrays.pop("conv_out.bias"),
        lambda arrays: arrays.update({"conv_out.bias": Array(np.full(1, np.nan, "float32"))}),
    ],
    ids=["too large", "missing", "nan"],
)
def test_bad_layers_are_not_averaged(spoil: Callable[[Any], Any], tmp_path: Path) -> None:
    told = job(settings=settings(("conv_out",)), rounds=1)
    sites = in_memory(told, tmp_path / "c")
    app = build_client_app(sites)

    def spoiling(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if message.metadata.message_type == "query.personal_layers" and context.node_id == 1:
            spoil(reply.content["arrays"])
        return reply

    with InProcessGrid(spoiling, (0, 1), 1, threads=1) as grid:  # type: ignore[arg-type]
        fleet = Fleet(grid, grid.clients, sites.sizes(), sites.state)
        result = run_program(told, tmp_path / "r", fleet, Watch())
        heard = list(ask_for_layers(told, result.run_key, fleet, (0, 1), "raw"))
    assert [upload.client_id for upload in heard] == [1]


def test_a_job_comes_back_without_images_that_stay(tmp_path: Path) -> None:
    reference = MonitorReference(torch.randn(2, 3), torch.eye(3), torch.ones(3))
    rules = ThresholdFilterConfig(enabled=True, patience=3)
    told = job(reference=reference, threshold_filter=rules, final_average="ema")
    write_job(tmp_path, told)
    back = read_job(tmp_path)
    assert back.config == told.config
    assert back.settings == told.settings
    assert (back.device, back.threshold_filter, back.final_average) == ("cpu", rules, "ema")
    assert back.reference is not None
    assert same(back.reference.arrays(), reference.arrays())
    assert len(back.images.images) == 0
    assert back.pool is None
    write_job(tmp_path, replace(told, pool=np.array([3, 1]), warmup_steps=2))
    assert np.array_equal(read_job(tmp_path).images.images, make_images().images[[3, 1]])


def test_a_result_comes_back_with_what_was_released(tmp_path: Path) -> None:
    result = federate(tmp_path / "run", settings=settings(("conv_out",)))
    write_result(tmp_path, result, {1: result.client_state(1)})
    assert has_ended(tmp_path)
    back = read_result(tmp_path, personal=True)
    assert same(back.raw, result.raw)
    assert same(back.ema, result.ema)
    assert back.rounds.equals(result.rounds)
    assert back.connected == (1,)
    assert read_result(tmp_path, personal=False).connected == (0, 1)
    assert same(back.client_state(1).to_tensors(), result.client_state(1).to_tensors())
    assert back.num_examples == {0: 12, 1: 36}
    assert isinstance(back, FederatedResult)
    path = tmp_path / "result.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError):
        read_result(tmp_path, personal=True)


def test_progress_is_read_line_by_line_once(tmp_path: Path) -> None:
    writer, reader = Progress(tmp_path), Progress(tmp_path)
    assert list(reader.news()) == []
    writer.append("reply", 1, {"client_id": 0})
    writer.append("round", 1, {"loss": 0.5})
    assert list(reader.news()) == [("reply", 1, {"client_id": 0}), ("round", 1, {"loss": 0.5})]
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('["round", 2, {"lo')
    assert list(reader.news()) == []
    write_failure(tmp_path, FederationError("too few"))
    assert has_ended(tmp_path)
    assert read_failure(tmp_path) == "too few"
