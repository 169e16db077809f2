"""A real federation over TLS on loopback: a SuperLink and three SuperNodes with keys."""

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phoenix_pipeline.config import DeploymentConfig
from phoenix_pipeline.errors import FederationError, SettingsError
from phoenix_pipeline.federated.engines.superlink import SuperLink, is_loopback
from phoenix_pipeline.federated.job import FederatedResult
from tests.federated.engines.loopback import START_S, Consortium
from tests.federated.tiny import client_table, federate, make_images, same, settings

SIZES = (12, 24, 18)
PERSONAL = ("conv_out",)


def site(client: int) -> Any:
    images, rows = make_images(sum(SIZES)), client_table(SIZES)
    return images.images[rows.loc[rows["client_id"] == client, "image_index"].to_numpy()]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with Consortium(tmp_path_factory.mktemp("consortium")) as running:
        for client in range(3):
            running.make_key(f"site{client}")
            running.start_node(f"site{client}", site(client), client)
        yield running


def train(consortium: Consortium, folder: Path, **options: Any) -> FederatedResult:
    given = {"engine": "deployment", "deployment": consortium.config()} | options
    try:
        return federate(folder, images=make_images(1), client_images=client_table((1,)), **given)
    except FederationError as error:
        raise AssertionError(consortium.log("superlink")[-6000:]) from error


@pytest.mark.slow
def test_nodes_give_the_bits_of_in_process_though_run_and_node_are_interrupted(
    consortium: Consortium, tmp_path: Path
) -> None:
    told = settings(PERSONAL, optimizer_state="keep")
    whole = {"images": make_images(sum(SIZES)), "client_images": client_table(SIZES)}
    here = federate(tmp_path / "here", settings=told, rounds=3, workers=2, **whole)

    def interrupt(number: int, means: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(consortium, tmp_path / "apart", settings=told, rounds=3, on_round=interrupt)
    consortium.stop("site1", signal.SIGKILL)
    consortium.restart_node("site1", site(1), 1, release_personal_layers="true")
    heard: list[int] = []
    apart = train(
        consortium,
        tmp_path / "apart",
        settings=told,
        rounds=3,
        on_round=lambda number, _: heard.append(number),
    )
    assert heard == [1, 2, 3]
    assert same(apart.raw, here.raw)
    assert same(apart.ema, here.ema)
    assert apart.rounds.drop(columns="seconds").equals(here.rounds.drop(columns="seconds"))
    # The node that was killed found its personal layers again, and alone releases them.
    assert apart.connected == (1,)
    assert same(apart.client_state(1).personal, here.client_state(1).personal)
    assert same(apart.client_state(1).personal_ema, here.client_state(1).personal_ema)
    assert apart.client_state(0).personal == {}
    kept = list((consortium.folder / "site0" / "state").rglob("round-3.safetensors"))
    assert [path.parent.name for path in kept] == ["0"]


@pytest.mark.slow
def test_a_node_with_a_key_that_is_not_registered_is_refused(consortium: Consortium) -> None:
    consortium.make_key("stranger", register=False)
    before = len(consortium.log("superlink"))
    consortium.start_node("stranger", site(0), 7)
    process = consortium.nodes["stranger"]
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
    assert process.poll() not in (None, 0)
    assert "SuperNode ID" not in consortium.log("stranger")
    refusal = r'/v1/fleet/activate-node HTTP/1.1" 4\d\d'
    assert re.search(refusal, consortium.log("superlink")[before:])


@pytest.mark.slow
def test_a_superlink_of_another_authority_is_refused(
    consortium: Consortium, tmp_path: Path
) -> None:
    other = Consortium(tmp_path)
    import subprocess

    subprocess.run(
        ["deploy/make_certificates.sh", str(other.keys), "127.0.0.1"],
        check=True,
        capture_output=True,
    )
    config = consortium.config(root_certificates=str(other.keys / "ca.crt"))
    with pytest.raises(FederationError, match="did not take the command"):
        SuperLink(config, tmp_path / "flwr").status(1)


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:8000", True), ("localhost:1", True), ("[::1]:8", True), ("10.0.0.1:8000", False)],
)
def test_loopback_is_told_from_a_network(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


def test_plain_text_over_a_network_must_be_asked_for(tmp_path: Path) -> None:
    config = DeploymentConfig(address="superlink.example:8000")
    with pytest.raises(SettingsError, match="insecure: true"):
        SuperLink(config, tmp_path)
    SuperLink(config.model_copy(update={"insecure": True}), tmp_path)
    assert "insecure = true" in (tmp_path / "config.toml").read_text()


def test_the_certificate_must_be_there(tmp_path: Path) -> None:
    config = DeploymentConfig(root_certificates=str(tmp_path / "none.crt"))
    with pytest.raises(SettingsError, match=json.dumps("none.crt")[1:-1]):
        SuperLink(config, tmp_path)
