"""A real federation over TLS on loopback: a SuperLink and three SuperNodes with keys."""

import json
import re
import signal
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from phoenix_pipeline.config import DeploymentConfig
from phoenix_pipeline.errors import FederationError, SettingsError
from phoenix_pipeline.federated.engines.superlink import SuperLink, is_loopback
from phoenix_pipeline.federated.job import FederatedResult
from phoenix_pipeline.images import ImageSet
from tests.federated.adapted import make_base
from tests.federated.adapted import told as adapter_settings
from tests.federated.engines.loopback import START_S, Consortium, run
from tests.federated.test_conditional import conditional, told
from tests.federated.test_conditional import images as conditional_images
from tests.federated.tiny import client_table, federate, make_images, same, settings
from tests.latents.tiny import make_autoencoder
from tests.latents.tiny import told as latent_settings

SIZES = (12, 24, 18)
TOLD = settings(("conv_out",), optimizer_state="keep")


def site(client: int) -> Any:
    images, rows = make_images(sum(SIZES)), client_table(SIZES)
    return images.images[rows.loc[rows["client_id"] == client, "image_index"].to_numpy()]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with Consortium(tmp_path_factory.mktemp("consortium")) as running:
        yield running


def start_sites(consortium: Consortium, count: int) -> None:
    for client in range(count):
        consortium.make_key(f"site{client}")
        consortium.start_node(f"site{client}", site(client), client, **own(client))


def own(client: int) -> dict[str, str]:
    """Return a site's own wishes: only site 1 releases its personal layers."""
    return {"release_personal_layers": "true"} if client == 1 else {}


def here(folder: Path, sizes: tuple[int, ...]) -> FederatedResult:
    whole = {"images": make_images(sum(SIZES)), "client_images": client_table(sizes)}
    return federate(folder, settings=TOLD, rounds=2, threads_per_client=1, **whole)


def train(consortium: Consortium, folder: Path, **options: Any) -> FederatedResult:
    """Train over the nodes; what is given here of images must not matter."""
    sites = sum(name.startswith("site") for name in consortium.nodes)
    given = {
        "engine": "deployment",
        "deployment": consortium.config(num_nodes=sites),
        "settings": TOLD,
        "rounds": 2,
        "round_timeout_s": START_S,
    } | options
    try:
        return federate(folder, images=make_images(1), client_images=client_table((1,)), **given)
    except FederationError as error:
        raise AssertionError(consortium.log("superlink")[-6000:]) from error


def check(apart: FederatedResult, whole: FederatedResult) -> None:
    assert same(apart.raw, whole.raw)
    assert same(apart.ema, whole.ema)
    assert apart.rounds.drop(columns="seconds").equals(whole.rounds.drop(columns="seconds"))
    # Site 1 alone releases its personal layers.
    assert apart.connected == (1,)
    assert same(apart.client_state(1).personal, whole.client_state(1).personal)
    assert same(apart.client_state(1).personal_ema, whole.client_state(1).personal_ema)
    assert apart.client_state(0).personal == {}


@pytest.mark.slow
def test_nodes_over_tls_give_the_bits_of_in_process(consortium: Consortium, tmp_path: Path) -> None:
    heard: list[int] = []
    start_sites(consortium, 3)
    apart = train(consortium, tmp_path / "apart", on_round=lambda number, _: heard.append(number))
    check(apart, here(tmp_path / "here", SIZES))
    assert heard == [1, 2]
    kept = list((consortium.folder / "site0" / "state" / apart.run_key).rglob("*.safetensors"))
    assert {path.parent.name for path in kept} == {"0"}


@pytest.mark.slow
def test_nodes_label_their_own_images_in_the_order_of_the_server(tmp_path: Path) -> None:
    """Site 0 holds a alone, and site 1 names b and c the other way round."""
    everything, rows = conditional_images(), client_table()
    with Consortium(tmp_path / "consortium") as consortium:
        for client, names in enumerate((("a",), ("c", "b"))):
            own = everything.subset(rows.index[rows["client_id"] == client].to_numpy())
            consortium.make_key(f"site{client}")
            consortium.start_node(f"site{client}", align_names(own, names), client)
        options = {"settings": told(), "rounds": 1}
        apart = train(consortium, tmp_path / "apart", **options)
    whole = conditional(tmp_path / "here", rounds=1, threads_per_client=1)
    assert same(apart.raw, whole.raw)


@pytest.mark.slow
def test_adapters_are_trained_on_the_base_of_each_site(tmp_path: Path) -> None:
    """Site 1 has another base: it is refused, and the others go on without it."""
    pytest.importorskip("peft")
    base, other = (make_base(tmp_path / f"base{seed}", seed) for seed in (77, 78))
    told = adapter_settings(base)
    with Consortium(tmp_path / "consortium") as consortium:
        for client, folder in ((0, base), (1, other), (2, base)):
            consortium.make_key(f"site{client}")
            own = {"base_model": f'"{folder}"'}
            consortium.start_node(f"site{client}", site(client), client, **own)
        options = {"settings": told, "rounds": 1}
        asked = consortium.config(num_nodes=2)
        apart = train(consortium, tmp_path / "apart", deployment=asked, **options)
        assert "other-base: its base model has other weights" in consortium.log("site1")
    rows = client_table(SIZES)
    two = {"images": make_images(sum(SIZES)), "client_images": rows[rows["client_id"] != 1]}
    here = federate(
        tmp_path / "here", settings=told, base=base, rounds=1, threads_per_client=1, **two
    )
    assert set(apart.num_examples) == {0, 2}
    assert same(apart.raw, here.raw)


@pytest.mark.slow
def test_latents_of_nodes_give_the_bits_of_in_process(tmp_path: Path) -> None:
    """Site 1 has another autoencoder: it is refused, and the others go on without it."""
    own, other = (make_autoencoder(tmp_path / f"ae{seed}", seed) for seed in (1, 2))
    told = latent_settings(own, horizontal_flip=True)
    with Consortium(tmp_path / "consortium") as consortium:
        for client, folder in ((0, own), (1, other), (2, own)):
            consortium.make_key(f"site{client}")
            consortium.start_node(f"site{client}", site(client), client, autoencoder=f'"{folder}"')
        options = {"settings": told, "rounds": 2, "autoencoder": own}
        asked = consortium.config(num_nodes=2)
        apart = train(consortium, tmp_path / "apart", deployment=asked, **options)
        assert "other-autoencoder: its autoencoder" in consortium.log("site1")
    rows = client_table(SIZES)
    two = {"images": make_images(sum(SIZES)), "client_images": rows[rows["client_id"] != 1]}
    here = federate(tmp_path / "here", threads_per_client=1, **options, **two)
    assert set(apart.num_examples) == {0, 2}
    assert same(apart.raw, here.raw)


def align_names(images: ImageSet, names: tuple[str, ...]) -> ImageSet:
    """Return ``images`` with the classes ``names`` alone, numbered in that order."""
    assert images.labels is not None
    numbers = [names.index(images.class_names[label]) for label in images.labels]
    return ImageSet(images.images, np.array(numbers), names)


@pytest.mark.slow
def test_a_run_outlives_who_submitted_it_a_node_and_the_superlink(tmp_path: Path) -> None:
    def interrupt(number: int, means: Any) -> None:
        raise KeyboardInterrupt

    restarted: list[int] = []

    def restart_superlink(number: int, means: Any) -> None:
        if not restarted:
            restarted.append(number)
            consortium.stop("superlink", signal.SIGKILL)
            consortium.start_superlink()

    with Consortium(tmp_path / "consortium", durable=True) as consortium:
        start_sites(consortium, 2)
        with pytest.raises(KeyboardInterrupt):
            train(consortium, tmp_path / "apart", on_round=interrupt)
        consortium.stop("site1", signal.SIGKILL)
        consortium.restart_node("site1", site(1), 1, **own(1))
        apart = train(consortium, tmp_path / "apart", on_round=restart_superlink)
    assert restarted == [1]
    # Site 1 found its personal layers again, or the bits would differ.
    check(apart, here(tmp_path / "here", SIZES[:2]))


@pytest.mark.slow
def test_a_stranger_with_the_authority_reaches_nothing_but_the_nodes_own_paths(
    consortium: Consortium,
) -> None:
    """What the gate shuts off works at the SuperLink itself, which only its machine reaches."""
    consortium.make_key("intruder", register=False)
    key = str(consortium.keys / "intruder.pub")
    assert consortium.flwr("supernode", "list").returncode == 0
    for command in (("supernode", "list"), ("supernode", "register", key), ("list",)):
        refused = consortium.flwr(*command, address=consortium.gate)
        assert refused.returncode != 0
        assert "404" in refused.stdout + refused.stderr
    listed = consortium.flwr("supernode", "list", "--format", "json")
    assert listed.returncode == 0
    consortium.start_node("intruder", site(0), 7)
    assert ended(consortium, "intruder", "no such sign")
    assert "SuperNode ID" not in consortium.log("intruder")


@pytest.mark.slow
def test_a_site_cannot_unregister_another_nor_register_itself(consortium: Consortium) -> None:
    """With a certificate of the consortium, straight at the gate's address."""
    authority = ssl.create_default_context(cafile=str(consortium.keys / "ca.crt"))
    base = f"https://{consortium.gate}"
    with httpx.Client(base_url=base, verify=authority, trust_env=False) as client:
        for path in (
            "/v1/control/unregister-node",
            "/v1/control/list-nodes",
            "/v1/control/start-run",
            "/v1/runtime/acquire-task",
            "/v1/fleet/register-node",
            "/v1/fleet/unregister-node",
        ):
            assert client.post(path, content=b"").status_code == 404, path
        # The nodes' own paths are the SuperLink's to judge: without a signature, no.
        heartbeat = client.post(
            "/v1/fleet/pull-messages",
            content=b"",
            headers={"content-type": "application/x-protobuf"},
        )
        assert heartbeat.status_code in (400, 401, 403, 415, 422)


def ended(consortium: Consortium, name: str, sign: str) -> bool:
    """Wait until a node gives up or logs ``sign``; return whether it ended with an error."""
    process, deadline = consortium.nodes[name], time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        if sign in consortium.log(name):
            return True
        time.sleep(0.5)
    return process.poll() not in (None, 0)


@pytest.mark.slow
def test_a_node_with_a_key_that_is_not_registered_is_refused(consortium: Consortium) -> None:
    consortium.make_key("stranger", register=False)
    before = len(consortium.log("superlink"))
    consortium.start_node("stranger", site(0), 7)
    assert ended(consortium, "stranger", "no such sign")
    assert "SuperNode ID" not in consortium.log("stranger")
    refusal = r'/v1/fleet/activate-node HTTP/1.1" 4\d\d'
    assert re.search(refusal, consortium.log("superlink")[before:])


@pytest.mark.slow
def test_a_certificate_of_another_authority_is_refused(
    consortium: Consortium, tmp_path: Path
) -> None:
    run("deploy/make_certificates.sh", str(tmp_path / "keys"), "127.0.0.1")
    other = tmp_path / "keys" / "ca.crt"
    config = consortium.config(root_certificates=str(other))
    with pytest.raises(FederationError, match="did not take the command"):
        SuperLink(config, tmp_path / "flwr").status(1)
    consortium.make_key("misled")
    consortium.start_node("misled", site(0), 7, authority=other)
    assert ended(consortium, "misled", "CERTIFICATE_VERIFY_FAILED")
    assert "SuperNode ID" not in consortium.log("misled")


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
