"""What a server may try to get past a site's own demands, on the site's own program."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from pydantic import ValidationError

from phoenix_pipeline.config import DcganConfig, DpSgdConfig, ModelConfig
from phoenix_pipeline.families.diffusion import DiffusionFamily
from phoenix_pipeline.federated.client_app import build_client_app
from phoenix_pipeline.federated.engines.in_process import InProcessGrid
from phoenix_pipeline.federated.engines.node_app import open_node
from phoenix_pipeline.federated.personal_layers import split_personal
from phoenix_pipeline.federated.privacy.accountant import epsilon_spent
from phoenix_pipeline.federated.records import (
    ARRAYS,
    CONFIG,
    REFERENCE,
    ClientSettings,
    LocalNoise,
    pack_arrays,
    pack_weights,
)
from phoenix_pipeline.federated.site_demands import Release, SiteDemands, SpentEpsilon
from phoenix_pipeline.federated.site_errors import SiteRefusal, answer_with_code
from phoenix_pipeline.federated.wire import Layout
from phoenix_pipeline.images import encode_png, write_images
from phoenix_pipeline.metrics.monitoring import build_monitor_reference
from tests.federated.tiny import make_images, settings

KEY = "0123456789abcdef"
NOISE = LocalNoise(clip_norm=1.0, noise_multiplier=4.0)
DP_SGD = DpSgdConfig(enabled=True, noise_multiplier=4.0)
RELEASE = {"release-personal-layers": True}
TOLD = settings(("conv_out",)).model_dump_json()
PERSONAL = RecordDict(
    {CONFIG: ConfigRecord({"round": 2, "weights": "raw", "run": KEY, "settings": TOLD})}
)


def secret(told: ClientSettings, **changes: object) -> ClientSettings:
    return told.model_copy(update={"secret_noise": True, **changes})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write_images(make_images(12), tmp_path / "own.parquet")
    return tmp_path


def ask(site: Path, content: RecordDict, kind: str = "train", **config: Any) -> Message:
    """Return the answer of a site that demands noise to a message of a server."""
    given = {"client-id": 4, "data": str(site / "own.parquet"), "device": "cpu"}
    given |= {"state-folder": str(site / "state"), "min-noise-multiplier": 2.0} | config
    app = build_client_app(open_node, answer_with_code)

    def node(message: Message, context: Context) -> Message:
        return app(message, Context(1, 1, given, RecordDict(), {}))

    with InProcessGrid(node, (0,), 1, threads=1) as grid:  # type: ignore[arg-type]
        return next(grid.send_and_receive([Message(content, 1, kind)]))


def training(told: ClientSettings, *, steps: int = 2) -> RecordDict:
    """Return a message of round 1, as the server of a run writes it."""
    shared, _ = split_personal(told.build_network().state_dict(), told.personal_layers)
    config = {
        "settings": told.model_dump_json(),
        "layout": Layout.of(shared).fingerprint,
        "run": KEY,
        "round": 1,
        "steps": steps,
        "run-steps": 4,
        "progress-start": 0.0,
        "progress-end": 0.5,
        "oldest-checkpoint": 0,
    }
    return RecordDict({ARRAYS: pack_weights(shared), CONFIG: ConfigRecord(config)})


def refusal(answer: Message) -> str:
    assert answer.has_error()
    return answer.error.reason.split(":")[0]


def spent(site: Path) -> dict[str, Any]:
    return json.loads((site / "state/spent.json").read_text())


def test_a_site_that_demands_noise_tells_no_loss(site: Path) -> None:
    told = ask(site, training(secret(settings(dp_sgd=DP_SGD)))).content["metrics"]
    assert set(told) == {"client-id", "num-examples", "images-trained", "seconds"}


def test_steps_below_one_give_no_epsilon_back(site: Path) -> None:
    told = secret(settings(dp_sgd=DP_SGD))
    assert ask(site, training(told)).has_content()
    for steps in (0, -1_000_000):
        assert refusal(ask(site, training(told, steps=steps))) == "message-unusable"
    assert spent(site)["dp_sgd"]["releases"] == 2


def test_dp_sgd_of_a_network_that_mixes_images_is_no_noise(site: Path) -> None:
    model = ModelConfig(family="dcgan", dcgan=DcganConfig(base_channels=4, latent_dim=4))
    told = secret(settings(dp_sgd=DP_SGD), model=model)
    assert refusal(ask(site, training(told))) == "noise-too-small"
    assert not (site / "state/spent.json").exists()


def test_dp_sgd_of_a_family_that_has_none_is_no_noise(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiffusionFamily, "private", False)
    assert refusal(ask(site, training(secret(settings(dp_sgd=DP_SGD))))) == "noise-too-small"
    assert not (site / "state/spent.json").exists()


def test_a_score_of_a_model_without_noise_is_not_sent(site: Path) -> None:
    reference = pack_arrays(build_monitor_reference(make_images(60), 0).arrays())
    few = {"monitor_samples": 8, "monitor_steps": 2}
    noisy = training(secret(settings(), local_noise=NOISE, **few))
    assert "score" not in ask(site, noisy).content["metrics"]
    noisy[REFERENCE] = reference
    assert refusal(ask(site, noisy)) == "noise-too-small"
    assert spent(site)["local"]["releases"] == 1
    private = training(secret(settings(dp_sgd=DP_SGD), **few))
    private[REFERENCE] = reference
    assert "score" in ask(site, private).content["metrics"]
    # Samples of classes in the site's own shares tell these shares.
    demands = SiteDemands(ledger=site / "spent.json", min_noise_multiplier=1.0)
    with pytest.raises(SiteRefusal, match="without noise"):
        demands.check_score(secret(settings(dp_sgd=DP_SGD), class_names=("even", "odd")))


def test_a_score_is_work_too(site: Path) -> None:
    told = secret(settings(dp_sgd=DP_SGD), monitor_samples=12, monitor_steps=6)
    content = training(told)
    content[REFERENCE] = pack_arrays(build_monitor_reference(make_images(60), 0).arrays())
    # 12 x 6 evaluations are 24 images' work, or 4 steps of 6 images.
    assert refusal(ask(site, content, **{"max-steps-per-round": 3})) == "too-much-work"
    assert "score" in ask(site, content, **{"max-steps-per-round": 4}).content["metrics"]


def test_layers_that_were_trained_without_noise_are_not_released(site: Path) -> None:
    release = "query.personal_layers"
    # From before the site demanded anything.
    assert refusal(ask(site, PERSONAL, release, **RELEASE)) == "noise-too-small"
    private = secret(settings(("conv_out",), dp_sgd=DP_SGD))
    assert ask(site, training(private)).has_content()
    assert ask(site, PERSONAL, release, **RELEASE).has_content()
    noisy = secret(settings(("conv_out",)), local_noise=NOISE)
    assert ask(site, training(noisy)).has_content()
    assert refusal(ask(site, PERSONAL, release, **RELEASE)) == "noise-too-small"
    assert refusal(ask(site, PERSONAL, release)) == "not-released"


def test_layers_are_released_of_images_of_all_sizes(site: Path) -> None:
    (site / "photos").mkdir()
    for side in (8, 12, 16):
        pixels = np.full((1, side, side), side, np.uint8)
        (site / f"photos/{side}.png").write_bytes(encode_png(pixels))
    own = {**RELEASE, "data": str(site / "photos")}
    assert ask(site, training(secret(settings(("conv_out",), dp_sgd=DP_SGD))), **own).has_content()
    released = ask(site, PERSONAL, "query.personal_layers", **own)
    assert released.content["metrics"]["num-examples"] == 3
    without = RecordDict({CONFIG: ConfigRecord({"round": 2, "weights": "raw", "run": KEY})})
    assert refusal(ask(site, without, "query.personal_layers", **own)) == "message-unusable"


def test_a_model_without_the_layers_that_stay_is_refused(site: Path) -> None:
    told = secret(settings(("conv_out", "head")), local_noise=NOISE)
    assert refusal(ask(site, training(told), **{"keep-layers": "head"})) == "layers-not-kept"
    assert ask(site, training(told), **{"keep-layers": "conv_out"}).has_content()


@pytest.mark.parametrize("noise", [(0.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_noise_has_a_positive_norm_and_no_negative_multiplier(noise: tuple[float, float]) -> None:
    with pytest.raises(ValidationError):
        LocalNoise(clip_norm=noise[0], noise_multiplier=noise[1])


def test_runs_side_by_side_are_all_counted(tmp_path: Path) -> None:
    release = Release("local", 1, 2.0, 1.0)

    def charge(_: int) -> None:
        SpentEpsilon(tmp_path / "spent.json").charge(release, 1e-5, lambda epsilon: None)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(charge, range(100)))
    assert json.loads((tmp_path / "spent.json").read_text())["local"]["releases"] == 100


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_all_releases_count_at_the_least_noise_and_the_largest_share(
    order: tuple[int, int], tmp_path: Path
) -> None:
    releases = (Release("dp_sgd", 3, 1.5, 0.1), Release("dp_sgd", 4, 2.5, 0.4))
    reached: list[float] = []
    for place in order:
        SpentEpsilon(tmp_path / "spent.json").charge(releases[place], 1e-5, reached.append)
    assert reached[-1] == epsilon_spent(1.5, 0.4, 7, 1e-5)


@pytest.mark.parametrize(
    "named", [{"start_from": "/etc"}, {"autoencoder": "an/other"}, {"allow_download": True}]
)
def test_a_server_names_no_folder_and_no_download(site: Path, named: dict[str, Any]) -> None:
    told = settings()
    asked = told.model_copy(update={"model": told.model.model_copy(update=named)})
    answer = ask(site, training(asked))
    assert answer.error.reason.startswith("settings-unusable")
