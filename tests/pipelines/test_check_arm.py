"""An unfinished run of other settings is refused before any arm trains."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoenix_pipeline.arms.arm_model import ArmModel
from phoenix_pipeline.arms.setup import check_arm
from phoenix_pipeline.config import ArmSettings, RunConfig
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.families.dcgan import DcganFamily
from phoenix_pipeline.federated.job import identify_settings
from phoenix_pipeline.federated.run_state import RunState
from phoenix_pipeline.images import ImageSet
from tests.federated.tiny import UNET, make_images

GROUPS: dict[str, Any] = {
    "model": {"unet": UNET},
    "federation": {"num_rounds": 2},
    "personal_layers": {"layers": "output"},
    "sampling": {"num_steps": 2},
}
RUN = RunConfig(device="cpu")


def check(folder: Path, **changed: Any) -> dict[str, Any]:
    settings = ArmSettings(**{**GROUPS, **changed})
    return check_arm(make_images(), make_images(60), settings, RUN, folder)


def store(folder: Path, rounds_done: int) -> None:
    """Leave a checkpoint as a training of these settings does."""
    settings = ArmSettings(**GROUPS)
    told = ArmModel.of(make_images(), settings, RUN).client_settings()
    assert told.personal_layers == tuple(check(folder)["personal_layers"]) != ()
    identity = identify_settings(settings.federation, told, None, 0)
    run = RunState(folder / "server", {**identity, "data": "these"}, {"w": torch.zeros(1)}, 0.1)
    run.rounds_done = rounds_done
    run.save()


def test_an_unfinished_run_of_other_settings_is_refused(tmp_path: Path) -> None:
    store(tmp_path, rounds_done=1)
    assert check(tmp_path)["channels"] == 1
    other = {"learning_rate": 0.5}
    with pytest.raises(CheckpointError, match=r"round 1 of 2: training\.learning_rate=0\.5, "):
        check(tmp_path, training=other)
    filtered = {"enabled": True}
    with pytest.raises(CheckpointError, match=r"threshold_filter\.enabled=true, stored null"):
        check(tmp_path, threshold_filter=filtered)
    check(tmp_path, training=other, federation={"num_rounds": 2, "resume": False})
    check(tmp_path, federation={"num_rounds": 2, "workers": 3, "checkpoint_every": 2})
    check(tmp_path, federation={"num_rounds": 2, "min_clients": 2})


def test_a_finished_run_is_no_obstacle(tmp_path: Path) -> None:
    store(tmp_path, rounds_done=2)
    assert check(tmp_path, training={"learning_rate": 0.5})


def test_a_share_of_a_training_that_nothing_leaves_to_auto_is_refused(tmp_path: Path) -> None:
    numbers = {"num_rounds": 2, "budget": 0.5}
    with pytest.raises(SettingsError, match=r"federation\.budget is 0\.5, which is a share"):
        check(tmp_path, federation=numbers)
    check(tmp_path, federation={**numbers, "budget": 1.0})
    told = check(tmp_path, federation={**numbers, "num_rounds": "auto"})
    assert told["settled"]["federation.num_rounds"] == 30  # of 60


def labelled() -> ImageSet:
    return ImageSet(make_images().images, np.arange(48) % 3, ("a", "b", "c"))


def check_conditional(folder: Path, train: ImageSet, **changed: Any) -> dict[str, Any]:
    model = {"unet": UNET, "conditioning": "labels"}
    settings = ArmSettings(**{"model": model, "sampling": {"num_steps": 2}, **changed})
    return check_arm(train, make_images(60), settings, RUN, folder)


def test_a_conditional_model_has_a_row_for_each_class_and_one_more(tmp_path: Path) -> None:
    plain, width = check(tmp_path)["num_parameters"], 4 * UNET.block_out_channels[0]
    assert check_conditional(tmp_path, labelled())["num_parameters"] == plain + 4 * width
    own = check_conditional(tmp_path, labelled(), personal_layers={"layers": "class_embedding"})
    assert own["num_personal_parameters"] == 4 * width


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"federation": {"engine": "deployment"}}, r"class_distribution is as_training, but with"),
        ({"federation": {"aggregation": {"rule": "median"}}}, r"median takes all clients for"),
        ({"sampling": {"class_distribution": [1.0]}}, r"1 shares, but there are 3 classes"),
    ],
)
def test_classes_that_cannot_be_learnt_or_drawn_are_refused(
    tmp_path: Path, changed: dict[str, Any], line: str
) -> None:
    with pytest.raises(SettingsError, match=line):
        check_conditional(tmp_path, labelled(), **changed)


def test_a_robust_rule_is_no_obstacle_to_embeddings_that_stay(tmp_path: Path) -> None:
    median = {"aggregation": {"rule": "median"}}
    own = {"layers": "class_embedding"}
    assert check_conditional(tmp_path, labelled(), federation=median, personal_layers=own)


def test_images_without_labels_cannot_be_learnt_by_class(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the training images have no labels; set"):
        check_conditional(tmp_path, make_images())


def test_an_unconditional_arm_is_asked_for_no_class(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"guidance_scale is 2.0, but the model has no classes"):
        check(tmp_path, sampling={"num_steps": 2, "guidance_scale": 2.0})


DCGAN = {"family": "dcgan", "dcgan": {"base_channels": 4, "latent_dim": 5}}


def test_a_family_without_classes_learns_no_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DcganFamily, "conditional", False)
    with pytest.raises(SettingsError, match=r"family dcgan learn no labels; set model\.cond"):
        check_conditional(tmp_path, labelled(), model={**DCGAN, "conditioning": "labels"})


def test_the_classes_of_a_gan_stay_where_both_networks_keep_them(tmp_path: Path) -> None:
    gan: dict[str, Any] = {"model": {**DCGAN, "conditioning": "labels"}}
    median = {"federation": {"aggregation": {"rule": "median"}}}
    for layers in (None, ["generator.class_embedding"]):
        with pytest.raises(SettingsError, match=r"median takes all clients for"):
            check_conditional(
                tmp_path, labelled(), **gan, **median, personal_layers={"layers": layers}
            )
    own = check_conditional(
        tmp_path, labelled(), **gan, **median, personal_layers={"layers": "class_embedding"}
    )
    # Three classes, by the latent vector's length and the discriminator's channels.
    assert own["num_personal_parameters"] == 3 * 5 + 3 * 4


def test_a_gan_has_no_timesteps_to_weigh(tmp_path: Path) -> None:
    asked = {"training": {"loss_weighting": "min_snr"}, "personal_layers": {"layers": None}}
    with pytest.raises(SettingsError, match=r"loss_weighting is min_snr, which is for diffusion"):
        check(tmp_path, model=DCGAN, **asked)
