"""Who takes part in a deployment, over a Grid in this process: joining, leaving, releasing."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ConfigRecord, Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from phoenix_pipeline.config import DeploymentConfig
from phoenix_pipeline.errors import FederationError, SettingsError
from phoenix_pipeline.federated.client_app import OpenSite, build_client_app
from phoenix_pipeline.federated.client_state import ClientStates
from phoenix_pipeline.federated.engines.in_process import InProcessGrid
from phoenix_pipeline.federated.engines.node_grid import NodeGrid
from phoenix_pipeline.federated.engines.node_roster import open_fleet
from phoenix_pipeline.federated.engines.server_app import released_layers
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.personal_upload import ask_for_layers
from phoenix_pipeline.federated.program import Watch, run_program
from phoenix_pipeline.federated.site_errors import answer_with_code
from phoenix_pipeline.federated.sites import CLIENT_ID, Site, Sites
from tests.federated.tiny import federate, job, same, settings


def deployed(**options: Any) -> FederatedJob:
    given = {"num_nodes": 2, "wait_for_nodes_s": 1.0} | options.pop("deployment", {})
    return job(engine="deployment", deployment=DeploymentConfig(**given), **options)


class NodesHere(InProcessGrid):
    """Clients of this process behind the calls that Flower's Grid of a SuperLink has."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting: dict[str, Message] = {}

    def get_node_ids(self) -> list[int]:
        return list(self.clients)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        replies = self.send_and_receive(sent)
        self._waiting |= {
            m.metadata.message_id: reply for m, reply in zip(sent, replies, strict=True)
        }
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._waiting.pop(i) for i in list(message_ids) if i in self._waiting]


def grid_of(sites: Sites, clients: tuple[int, ...]) -> NodesHere:
    app = build_client_app(sites, answer_with_code)
    return NodesHere(app, clients, workers=1, threads=1)


def in_memory(told: FederatedJob, folder: Path) -> Sites:
    return Sites.in_memory(told, torch.device("cpu"), ClientStates(folder))


def test_the_program_over_nodes_ends_with_the_bits_of_in_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    told = deployed(workers=2)
    with grid_of(in_memory(told, tmp_path / "c"), (1, 0)) as grid:
        fleet = open_fleet(grid, told, tmp_path)
        assert fleet.clients == {1: 0, 2: 1}
        assert list(fleet.sizes.items()) == [(0, 12), (1, 36)]
        apart = run_program(told, tmp_path / "apart", fleet, Watch())
        few = deployed(deployment={"num_nodes": 3})
        with pytest.raises(FederationError, match=r"2 nodes can take part after 1 s.*is 3"):
            open_fleet(grid, few, tmp_path)
    # Whoever waits for the third is told so, and not once a second.
    assert caplog.messages.count("waiting for nodes: 2 of 3 take part") == 1
    assert same(apart.raw, federate(tmp_path / "here", workers=2).raw)


def test_a_node_with_a_taken_client_id_is_left_out_and_the_run_begins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = deployed()
    sites = in_memory(told, tmp_path)

    def taken(message: Message, context: Context) -> Site:
        return sites.site(0 if context.node_id == 2 else int(context.node_config[CLIENT_ID]) // 2)

    with NodesHere(build_client_app(taken), (0, 1, 2), 1, threads=1) as grid:
        fleet = open_fleet(grid, told, tmp_path)
    assert fleet.clients == {1: 0, 3: 1}
    assert "node 2: client-id 0 is taken by a node that is connected" in caplog.text


def test_too_few_that_can_answer_stop_the_start(tmp_path: Path) -> None:
    told = deployed()
    sites = in_memory(told, tmp_path)
    # Client 7 has no images: its node raises.
    with (
        grid_of(sites, (0, 7)) as grid,
        pytest.raises(FederationError, match=r"1 nodes can take part.*node 8: fault: its"),
    ):
        open_fleet(grid, told, tmp_path)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"aggregation": {"rule": "median"}}, "median needs 3 replies.*but 2 clients train"),
        (
            {"compression": {"partial_update": "usplit"}, "client_fraction": 0.5},
            "usplit pairs the clients of a round, but 1 client trains",
        ),
    ],
)
def test_too_few_nodes_for_what_is_asked_are_refused_when_they_have_come(
    tmp_path: Path, options: dict[str, Any], line: str
) -> None:
    told = deployed(**options)
    with (
        grid_of(in_memory(told, tmp_path), (0, 1)) as grid,
        pytest.raises(SettingsError, match=line),
    ):
        open_fleet(grid, told, tmp_path)


class ComingAndGoing(NodesHere):
    """Nodes ``present`` are connected; the test changes them between rounds."""

    present: set[int]

    def get_node_ids(self) -> list[int]:
        return sorted(self.present)


def test_nodes_join_vanish_and_come_back_between_rounds(tmp_path: Path) -> None:
    told = deployed(rounds=4, deployment={"num_nodes": 1})
    sites = in_memory(told, tmp_path / "c")
    with ComingAndGoing(build_client_app(sites), (0, 1), workers=1, threads=1) as grid:
        grid.present = {2}
        fleet = open_fleet(grid, told, tmp_path)
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
        fleet = open_fleet(grid, told, tmp_path)
        grid.present = {1, 2}
        assert fleet.roll_call(1) == {}
        assert fleet.clients == {1: 1}
        grid.present = {2}
        assert fleet.roll_call(2) == {}
        assert fleet.clients == {2: 1}
        grid.present = set()
        assert fleet.roll_call(3) == {1: "its node is not connected"}


def keyed(listed: dict[int, int] | None = None) -> FederatedJob:
    """A deployment with keys, in which a node id stands for a key."""
    given = {"num_nodes": 1, "root_certificates": "ca.crt", "sites": listed or {}}
    return deployed(deployment=given)


def test_the_client_id_of_an_absent_site_is_not_taken_by_another_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sites = in_memory(keyed(), tmp_path)
    same_client = build_client_app(lambda *_: sites.site(1))
    with ComingAndGoing(same_client, (0, 1), workers=1, threads=1) as grid:
        grid.present = {1}
        fleet = open_fleet(grid, keyed(), tmp_path)
        grid.present = {2}
        assert fleet.roll_call(1) == {1: "its node is not connected"}
        assert fleet.clients == {1: 1}
        assert "client-id 1 belongs to node 1 (see" in caplog.text
        # Nor in a later run of the same folder.
        with pytest.raises(FederationError, match="client-id 1 belongs to node 1"):
            open_fleet(grid, keyed(), tmp_path)
        grid.present = {1}
        assert open_fleet(grid, keyed(), tmp_path).clients == {1: 1}


def test_one_key_is_one_client(tmp_path: Path) -> None:
    sites, own = in_memory(keyed(), tmp_path), {1: 0}
    app = build_client_app(lambda message, context: sites.site(own[context.node_id]))
    with ComingAndGoing(app, (0, 1), workers=1, threads=1) as grid:
        grid.present = {1}
        open_fleet(grid, keyed(), tmp_path)
        own[1] = 1
        with pytest.raises(FederationError, match="says it is client-id 1, but was client-id 0"):
            open_fleet(grid, keyed(), tmp_path)


def test_the_coordinators_list_decides_who_is_who(tmp_path: Path) -> None:
    sites = in_memory(keyed(), tmp_path)
    with ComingAndGoing(build_client_app(sites), (0, 1), workers=1, threads=1) as grid:
        grid.present = {1, 2}
        fleet = open_fleet(grid, keyed({1: 2}), tmp_path)
        assert fleet.clients == {2: 1}
        with pytest.raises(FederationError, match=r"client-id 1 belongs to node 77 \(see fed"):
            open_fleet(grid, keyed({1: 77}), tmp_path)


def test_a_claimed_number_of_images_counts_for_a_multiple_of_the_median(tmp_path: Path) -> None:
    told = deployed(deployment={"num_nodes": 2, "max_count_ratio": 10.0})
    sites = in_memory(told, tmp_path)
    app = build_client_app(sites)

    def boasting(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if context.node_id == 2:
            reply.content["metrics"]["num-examples"] = 10**9
        return reply

    with NodesHere(boasting, (0, 1), 1, threads=1) as grid:  # type: ignore[arg-type]
        fleet = open_fleet(grid, told, tmp_path)
        assert fleet.sizes == {0: 12, 1: 120}
        result = run_program(told, tmp_path / "r", fleet, Watch())
    assert result.rounds["num_examples"].tolist() == [12, 120] * 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("client-id", math.inf),
        ("num-examples", math.inf),
        ("num-examples", 2**62),
        ("client-id", -1),
    ],
)
def test_nonsense_at_the_roll_call_costs_only_who_says_it(
    name: str, value: float, tmp_path: Path
) -> None:
    told = deployed(deployment={"num_nodes": 1})
    app = build_client_app(in_memory(told, tmp_path))

    def spoiling(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if context.node_id == 2:
            reply.content["metrics"][name] = value
        return reply

    with NodesHere(spoiling, (0, 1), 1, threads=1) as grid:  # type: ignore[arg-type]
        assert open_fleet(grid, told, tmp_path).clients == {1: 0}


class Scrambled(ComingAndGoing):
    """What is pulled for node 2 is ``garbage``, or raises it."""

    garbage: Any

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(super().pull_messages(message_ids))
        if replies[0].metadata.src_node_id != 2:
            return replies
        if isinstance(self.garbage, Exception):
            raise self.garbage
        return [self.garbage]


@pytest.mark.parametrize("garbage", [ConfigRecord(), UnicodeDecodeError("utf-8", b"x", 0, 1, "")])
def test_bytes_that_are_no_message_cost_only_who_sent_them(garbage: Any, tmp_path: Path) -> None:
    told = deployed(deployment={"num_nodes": 1})
    with Scrambled(build_client_app(in_memory(told, tmp_path)), (0, 1), 1, threads=1) as grid:
        grid.present, grid.garbage = {1, 2}, garbage
        assert open_fleet(grid, told, tmp_path).clients == {1: 0}


LEAK = "<class 'OSError'>:<'[Errno 28] No space left on device: '/home/jdoe/.flwr/apps/x''>"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, LEAK), "Flower failed at the site before"),
        (Error(ErrorCode.LOAD_CLIENT_APP_EXCEPTION, LEAK), "its program could not be loaded"),
        (Error(ErrorCode.CLIENT_APP_CRASHED, LEAK), "its program ended without an answer"),
        (Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "fault: " + LEAK), "fault: its program fai"),
        (Error(77, LEAK), "no error that this program knows (Flower's error 77)"),
        (Error(ErrorCode.NODE_UNAVAILABLE), "its node is not connected"),
    ],
)
def test_no_text_of_an_error_is_passed_on(error: Error, said: str, tmp_path: Path) -> None:
    """Flower answers for a program that did not run, with the text of any exception."""
    with NodesHere(
        lambda message, context: Message(error, reply_to=message), (0,), 1, threads=1
    ) as grid:
        content = RecordDict({"config": ConfigRecord({"settings": "{}"})})
        (reply,) = NodeGrid(grid).send_and_receive([Message(content, 1, "query.describe")])
    assert reply.error.reason.startswith(said)
    assert "jdoe" not in reply.error.reason


def test_ids_of_messages_cannot_be_computed_by_another_node(tmp_path: Path) -> None:
    ids: list[str] = []

    class Listening(ComingAndGoing):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            sent = list(messages)
            ids.extend(message.object_id for message in sent)
            return super().push_messages(sent)

    config = RecordDict({"config": ConfigRecord({"settings": settings().model_dump_json()})})
    app = build_client_app(in_memory(deployed(), tmp_path))
    with Listening(app, (0, 1), 1, threads=1) as grid:
        same_message = Message(config, 1, "query.describe")
        for _ in range(2):
            list(NodeGrid(grid).send_and_receive([same_message]))
    assert len(set(ids)) == 2


def keeping(sites: Sites, releasing: tuple[int, ...]) -> OpenSite:
    def open_site(message: Message, context: Context) -> Site:
        site = sites(message, context)
        return replace(site, releases_personal_layers=site.client_id in releasing)

    return open_site


def test_too_few_released_layers_are_told_before_training(tmp_path: Path) -> None:
    told = settings(("conv_out",))
    strict = deployed(settings=told)
    sites = in_memory(strict, tmp_path / "c")
    with NodesHere(build_client_app(keeping(sites, ())), (0, 1), 1, threads=1) as grid:
        with pytest.raises(FederationError, match=r"0 of 2 .*release-personal-layers"):
            open_fleet(grid, strict, tmp_path)
        lenient = {"min_released": 0}
        with pytest.raises(FederationError, match="1 must"):
            open_fleet(
                grid, deployed(settings=told, deployment=lenient, final_average="raw"), tmp_path
            )
        open_fleet(grid, deployed(settings=told, deployment=lenient), tmp_path)
        open_fleet(grid, deployed(), tmp_path)


def test_layers_come_from_those_that_release_them(tmp_path: Path) -> None:
    told = deployed(settings=settings(("conv_out",)), final_average="raw", rounds=1)
    sites = in_memory(told, tmp_path / "c")
    with NodesHere(build_client_app(keeping(sites, (1,))), (0, 1), 1, threads=1) as grid:
        fleet = open_fleet(grid, told, tmp_path)
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

    with NodesHere(spoiling, (0, 1), 1, threads=1) as grid:  # type: ignore[arg-type]
        fleet = Fleet(grid, grid.clients, sites.sizes(), sites.state)
        result = run_program(told, tmp_path / "r", fleet, Watch())
        heard = list(ask_for_layers(told, result.run_key, fleet, (0, 1), "raw"))
    assert [upload.client_id for upload in heard] == [1]
