"""Parts of a deployment without its processes: node configuration, Grid, and the shared folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from phoenix_pipeline.config import ThresholdFilterConfig
from phoenix_pipeline.errors import CheckpointError, DataError, FederationError, PhoenixError
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.engines.exchange import (
    ProgressFile,
    has_ended,
    read_failure,
    read_job,
    read_result,
    write_failure,
    write_job,
    write_result,
)
from phoenix_pipeline.federated.engines.node_app import open_node
from phoenix_pipeline.federated.job import FederatedResult
from phoenix_pipeline.federated.site_errors import SiteRefusal
from phoenix_pipeline.federated.sites import Site
from phoenix_pipeline.images import ImageSet, write_images
from phoenix_pipeline.latents.autoencoder import load_autoencoder
from phoenix_pipeline.metrics.monitoring import MonitorReference
from tests.federated.tiny import federate, job, make_images, same, settings
from tests.latents.tiny import make_autoencoder
from tests.latents.tiny import told as latent_settings

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
    site.states.save(4, 2, 0, ClientState(personal={"w": torch.ones(2)}))
    assert open_with(folder).states.load(4, 3).personal["w"].tolist() == [1.0, 1.0]
    assert open_with(folder, {"run": KEY[::-1]}).states.load(4, 3).personal == {}


def test_the_shared_pool_is_a_file_of_the_node(folder: Path) -> None:
    site = open_with(folder, **{"shared-pool": str(folder / "pool.parquet")})
    assert torch.equal(site.images, torch.from_numpy(make_images(8).images))


def test_a_base_model_is_named_by_the_node_alone(folder: Path) -> None:
    assert open_with(folder).own.base is None
    assert open_with(folder, **{"base-model": str(folder / "base")}).own.base == folder / "base"


def test_a_node_encodes_its_images_once_by_its_own_autoencoder(folder: Path) -> None:
    own = make_autoencoder(folder / "autoencoder")
    asked = {"settings": latent_settings(own).model_dump_json()}
    with pytest.raises(SiteRefusal, match="set autoencoder in the node configuration"):
        open_with(folder, asked)
    other = make_autoencoder(folder / "other", seed=2)
    with pytest.raises(SiteRefusal, match="has the digest"):
        open_with(folder, asked, autoencoder=str(other))
    site = open_with(folder, asked, autoencoder=str(own))
    pixels = torch.from_numpy(make_images(5).images)
    assert torch.equal(site.images, load_autoencoder(own).encode(pixels))
    assert site.own.autoencoder == own
    (kept,) = (folder / "state").glob("latents-*.safetensors")
    written = kept.stat().st_mtime_ns
    assert torch.equal(open_with(folder, asked, autoencoder=str(own)).images, site.images)
    assert kept.stat().st_mtime_ns == written


def test_images_are_resized_as_the_run_wants_them(folder: Path) -> None:
    other = settings().model_copy(update={"image_size": 16, "channels": 3})
    site = open_with(folder, {"settings": other.model_dump_json()})
    assert site.images.shape == (5, 3, 16, 16)


def test_labels_of_a_node_are_numbered_as_the_server_numbers_them(folder: Path) -> None:
    named = ImageSet(make_images(5).images, np.array([0, 1, 1, 0, 1]), ("owl", "cat"))
    write_images(named, folder / "own.parquet")
    told = settings().model_copy(update={"class_names": ("cat", "dog", "owl")})
    site = open_with(folder, {"settings": told.model_dump_json()})
    assert site.labels is not None
    assert site.labels.tolist() == [2, 0, 0, 2, 0]
    other = told.model_copy(update={"class_names": ("cat", "dog")})
    with pytest.raises(DataError, match="'owl' is not among the training classes"):
        open_with(folder, {"settings": other.model_dump_json()})
    with pytest.raises(DataError, match=r"pool.parquet has no column 'label'"):
        pool = {"shared-pool": str(folder / "pool.parquet")}
        open_with(folder, {"settings": told.model_dump_json()}, **pool)
    assert open_with(folder).labels is None


def test_a_warm_up_finds_the_labels_of_the_pool(tmp_path: Path) -> None:
    labelled = ImageSet(make_images().images, np.arange(48) % 3, ("a", "b", "c"))
    told = settings().model_copy(update={"class_names": labelled.class_names})
    warmed = job(images=labelled, settings=told, pool=np.array([4, 6, 7]), warmup_steps=2)
    write_job(tmp_path, warmed)
    again = read_job(tmp_path).images
    assert again.labels is not None
    assert again.labels.tolist() == [1, 0, 1]
    assert np.array_equal(again.images, labelled.images[[4, 6, 7]])


@pytest.mark.parametrize(
    ("told", "config", "said"),
    [
        ({"run": "../../etc"}, {}, "16 hex digits"),
        ({"run": KEY + "/.."}, {}, "16 hex digits"),
        ({}, {"client-id": -1}, "'client-id'"),
        ({}, {"client-id": "one"}, "allowed keys are client-id"),
        ({}, {"clientid": 1}, "'clientid': unknown key; did you mean client-id?"),
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
    writer, reader = ProgressFile(tmp_path), ProgressFile(tmp_path)
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
