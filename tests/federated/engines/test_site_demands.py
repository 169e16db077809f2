"""What a node refuses by its own configuration, and what it says of its failures."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from phoenix_pipeline.config import DpSgdConfig
from phoenix_pipeline.errors import DataError, SettingsError, TrainingError
from phoenix_pipeline.federated.client_app import build_client_app
from phoenix_pipeline.federated.engines.in_process import InProcessGrid
from phoenix_pipeline.federated.engines.node_app import open_node
from phoenix_pipeline.federated.privacy.accountant import epsilon_spent
from phoenix_pipeline.federated.records import ClientSettings, LocalNoise
from phoenix_pipeline.federated.round_memory import round_bytes
from phoenix_pipeline.federated.site_demands import SiteDemands
from phoenix_pipeline.federated.site_errors import SENTENCES, SiteRefusal, answer_with_code, code_of
from phoenix_pipeline.images import count_images, write_images
from phoenix_pipeline.optimization.work import LocalWork
from tests.federated.tiny import make_images, settings

WORK = LocalWork(steps=4, progress_start=0.0, progress_end=0.1, seed=1, noise_multiplier=1.5)


def noisy(multiplier: float, **changes: object) -> ClientSettings:
    noise = LocalNoise(clip_norm=1.0, noise_multiplier=multiplier)
    return settings().model_copy(update={"local_noise": noise, "secret_noise": True, **changes})


def with_dp_sgd() -> ClientSettings:
    told = settings(dp_sgd=DpSgdConfig(enabled=True, noise_multiplier=1.5))
    return told.model_copy(update={"secret_noise": True})


def refusal(demands: SiteDemands, told: ClientSettings, work: LocalWork = WORK) -> str:
    with pytest.raises(SiteRefusal) as caught:
        demands.begin_round(told, work, num_images=60)
    return caught.value.code


def test_a_site_takes_no_less_noise_than_it_accepts(tmp_path: Path) -> None:
    demands = SiteDemands(ledger=tmp_path / "spent.json", min_noise_multiplier=2.0)
    assert refusal(demands, settings()) == "noise-too-small"
    assert refusal(demands, noisy(1.99)) == "noise-too-small"
    assert refusal(demands, noisy(2.0, secret_noise=False)) == "noise-not-secret"
    assert refusal(demands, with_dp_sgd()) == "noise-too-small"
    demands.begin_round(noisy(2.0), WORK, 60)
    SiteDemands(ledger=tmp_path / "s.json", min_noise_multiplier=1.5).begin_round(
        with_dp_sgd(), WORK, 60
    )


def test_a_site_counts_its_epsilon_over_all_runs(tmp_path: Path) -> None:
    most = epsilon_spent(1.0, 1.0, 2, 1e-5)
    demands = SiteDemands(ledger=tmp_path / "spent.json", max_epsilon=most * 1.001)
    demands.begin_round(noisy(2.0), WORK, 60)
    demands.begin_round(noisy(2.0), WORK, 60)
    # As after a restart of the node, in another run.
    again = SiteDemands(ledger=tmp_path / "spent.json", max_epsilon=most * 1.001)
    assert refusal(again, noisy(2.0)) == "epsilon-spent"
    assert json.loads((tmp_path / "spent.json").read_text())["local"]["releases"] == 2


def test_epsilon_of_dp_sgd_follows_its_steps_and_sampling(tmp_path: Path) -> None:
    after = [epsilon_spent(1.5, 6 / 60, steps, 1e-5) for steps in (4, 8)]
    demands = SiteDemands(ledger=tmp_path / "spent.json", max_epsilon=(after[0] + after[1]) / 2)
    demands.begin_round(with_dp_sgd(), WORK, 60)
    assert refusal(demands, with_dp_sgd()) == "epsilon-spent"


def test_both_kinds_of_noise_add_up(tmp_path: Path) -> None:
    local, images = epsilon_spent(1.0, 1.0, 1, 5e-6), epsilon_spent(1.5, 0.1, 4, 5e-6)
    most = SiteDemands(ledger=tmp_path / "spent.json", max_epsilon=0.99 * (local + images))
    most.begin_round(noisy(2.0), WORK, 60)
    assert refusal(most, with_dp_sgd()) == "epsilon-spent"


@pytest.mark.parametrize(
    ("keep", "personal", "accepted"),
    [
        (("conv_out",), ("conv_out",), True),
        (("up_blocks.1.resnets",), ("up_blocks.1",), True),
        (("conv_out",), (), False),
        (("up_blocks.1",), ("up_blocks.1.resnets",), False),
        (("up_blocks.10",), ("up_blocks.1",), False),
    ],
)
def test_layers_that_a_site_keeps_must_be_personal(
    keep: tuple[str, ...], personal: tuple[str, ...], accepted: bool, tmp_path: Path
) -> None:
    demands = SiteDemands(ledger=tmp_path / "spent.json", keep_layers=keep)
    if accepted:
        demands.begin_round(settings(personal), WORK, 60)
    else:
        assert refusal(demands, settings(personal)) == "layers-not-kept"


def test_work_has_a_bound(tmp_path: Path) -> None:
    demands = SiteDemands(ledger=tmp_path / "spent.json", max_steps_per_round=3)
    assert refusal(demands, settings()) == "too-much-work"
    SiteDemands(ledger=tmp_path / "spent.json", max_steps_per_round=4).begin_round(
        settings(), WORK, 60
    )
    assert not (tmp_path / "spent.json").exists()


def answer(folder: Path, told: ClientSettings, **config: Any) -> Message:
    """Return what a node in ``folder`` answers to the roll call."""
    given = {"client-id": 4, "data": str(folder / "JOHN_DOE_1961.parquet"), "device": "cpu"}
    given |= {"state-folder": str(folder / "state")} | config
    app = build_client_app(open_node, answer_with_code)

    def node(message: Message, context: Context) -> Message:
        return app(message, Context(1, 1, given, RecordDict(), {}))

    with InProcessGrid(node, (0,), 1, threads=1) as grid:  # type: ignore[arg-type]
        content = RecordDict({"config": ConfigRecord({"settings": told.model_dump_json()})})
        return next(grid.send_and_receive([Message(content, 1, "query.describe")]))


def test_a_node_refuses_at_the_roll_call_what_its_configuration_does_not_allow(
    tmp_path: Path,
) -> None:
    write_images(make_images(5), tmp_path / "JOHN_DOE_1961.parquet")
    assert answer(tmp_path, settings()).content["metrics"]["client-id"] == 4
    refused = answer(tmp_path, settings(), **{"min-noise-multiplier": 1.0})
    assert refused.error.reason == (
        "noise-too-small: the run offers less noise than it accepts; details are in the site's own "
        "log"
    )
    assert answer(tmp_path, noisy(1.0), **{"min-noise-multiplier": 1.0}).has_content()
    kept = answer(tmp_path, settings(), **{"keep-layers": "conv_out, conv_in"})
    assert kept.error.reason.startswith("layers-not-kept: ")


def test_a_run_that_takes_more_memory_than_a_site_gives_is_refused_unread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write_images(make_images(5), tmp_path / "JOHN_DOE_1961.parquet")
    wide = settings().model_copy(update={"channels": 3, "image_size": 256})
    assert round_bytes(wide, 5, 1 << 60) > 0.03 * (1 << 30)
    refused = answer(tmp_path, wide, **{"max-memory-gib": 0.03})
    assert refused.error.reason.startswith("too-much-memory: the run would take more memory")
    assert "GiB by the estimate" in caplog.text
    too_large = wide.model_copy(update={"image_size": 1 << 20})
    assert answer(tmp_path, too_large).error.reason.startswith("settings-unusable: ")
    assert "Read 5 images" not in caplog.text
    assert answer(tmp_path, settings(), **{"max-memory-gib": 0.03}).has_content()
    assert "Read 5 images" in caplog.text


def test_images_of_a_folder_are_counted_unread(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(b"no image")
    assert count_images(tmp_path) == 3
    with pytest.raises(DataError):
        count_images(tmp_path / "absent")


def test_no_name_of_a_file_leaves_a_site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "JOHN_DOE_1961.parquet").write_bytes(b"no parquet")
    reason = answer(tmp_path, settings()).error.reason
    assert reason == (
        "images-unreadable: its images could not be read; details are in the site's own log"
    )
    assert "JOHN_DOE_1961" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("x"), "images-unreadable"),
        (TrainingError("x"), "training-diverged"),
        (SettingsError("x"), "settings-unusable"),
        (MemoryError(), "out-of-memory"),
        (torch.OutOfMemoryError(), "out-of-memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out-of-memory"),
        (SiteRefusal("not-released", "x"), "not-released"),
        (KeyError("JOHN_DOE"), "fault"),
    ],
)
def test_every_error_has_a_code_of_the_list(error: Exception, code: str) -> None:
    assert code_of(error) == code
    assert code in SENTENCES
