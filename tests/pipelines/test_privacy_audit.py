"""The node on a tiny arm: a global model, and models at the clients."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

from phoenix_pipeline.config import (
    FederationConfig,
    ModelConfig,
    NoiseConfig,
    PrivacyAuditConfig,
    RunConfig,
    TrainingConfig,
    UNetConfig,
)
from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.families import family_of
from phoenix_pipeline.families.model_folder import read_description, weights_digest, write_models
from phoenix_pipeline.families.provenance import fingerprint_data
from phoenix_pipeline.federated.personal_layers import split_personal
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.images import GLOBAL_MODEL, ImageSet, SampleWriter
from phoenix_pipeline.pipelines.comparison.nodes import PARTS, collect
from phoenix_pipeline.pipelines.privacy_audit.nodes import audit_privacy
from phoenix_pipeline.pipelines.privacy_audit.reconstruction import reconstruct_images
from phoenix_pipeline.pipelines.privacy_audit.subject import Subject
from phoenix_pipeline.reporting.arm_results import (
    AUDIT_COMMAND,
    ArmResults,
    LeftOut,
    add_audits,
    gather,
)
from tests.written import arm_metrics, arm_results, network_settings, training_record

DIFFUSION = ModelConfig(
    unet=UNetConfig(block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4),
    noise=NoiseConfig(num_train_timesteps=50),
)
DCGAN = ModelConfig.model_validate({"family": "dcgan", "dcgan": {"base_channels": 8}})
CONFIG = PrivacyAuditConfig(timesteps=2, reconstructions=1, reconstruction_steps=2)
CLIENTS = pd.DataFrame({"client_id": np.repeat([0, 4], 60), "image_index": np.arange(120)})


@pytest.fixture(scope="module")
def images() -> tuple[ImageSet, ImageSet]:
    data = load_digits()
    pixels = np.round(data.images * 255 / 16).astype(np.uint8)[:, None]
    everything = ImageSet(pixels, data.target.astype(np.int64), tuple("0123456789"))
    # They come writer by writer: in that order, attacks would tell the writers apart.
    order = np.random.default_rng(0).permutation(everything.num_images)
    return everything.subset(order[:120]), everything.subset(order[120:260])


def audit(
    folder: Path,
    images: tuple[ImageSet, ImageSet],
    model: ModelConfig,
    personal: tuple[str, ...] = (),
    training: TrainingConfig | None = None,
    **federation: Any,
) -> dict[str, Any]:
    """Audit untrained models of clients 0 and 4, which hold 60 images each."""
    train, test = images
    names = train.class_names if model.conditioning == "labels" else ()
    network = family_of(model).build(model, 1, 8, 0, len(names))
    body, layers = split_personal(network.state_dict(), personal or ("conv_out",))
    settings = {"model": model.model_dump(mode="json"), "channels": 1, "image_size": 8, "seed": 0}
    settings["personal_layers"], settings["class_names"] = list(personal), list(names)
    settings["training"] = (training or TrainingConfig()).model_dump(mode="json")
    told = FederationConfig(**federation)
    settings["compression"] = told.compression.model_dump(mode="json")
    own = personal and model.family == "diffusion"
    metadata = training_record(
        settings,
        trained_with={"federation": told.model_dump(mode="json")},
        data=fingerprint_data(train, test, CLIENTS),
    )
    write_models(
        folder / "model",
        body,
        [(0, layers), (4, layers)] if own else [],
        None if own else network,
        metadata,
    )
    drawn = {"weights_digest": weights_digest(folder / "model")}
    with SampleWriter(folder / "samples.parquet", drawn) as writer:
        writer.write(train.images[:30], GLOBAL_MODEL, range(30))
    return audit_again(folder, images)


def audit_again(
    folder: Path, images: tuple[ImageSet, ImageSet], run: RunConfig | None = None
) -> dict[str, Any]:
    """Audit what lies in ``folder``."""
    device = run or RunConfig(device="cpu")
    files = folder / "model", folder / "samples.parquet"
    result = audit_privacy(*files, CLIENTS, *images, CONFIG, device)
    return json.loads(json.dumps(result, allow_nan=False))


def test_a_global_model_is_audited_for_all_and_for_each_client(
    tmp_path: Path, images: tuple[ImageSet, ImageSet]
) -> None:
    result = audit(tmp_path, images, DIFFUSION)
    assert set(result["membership"]["global_model"]) == {"all", "0", "4"}
    assert result["membership"]["client_models"] == {}
    scores = result["scores"]
    for attack in ("loss", "pia", "secmi"):
        whole = result["membership"]["global_model"]["all"][attack]
        assert scores[f"membership_auc_{attack}"] == whole["auc"]
        assert abs(whole["auc"] - 0.5) < 3 * whole["auc_standard_error"]
        assert scores[f"membership_auc_{attack}_worst_client"] == max(
            result["membership"]["global_model"][client][attack]["auc"] for client in ("0", "4")
        )
    # The samples are training images.
    assert scores["copied_share"] == 1.0
    (image,) = result["reconstruction"]["images"]
    assert scores["reconstruction_psnr_db"] == image["psnr_db"]
    assert image["seen"] == result["reconstruction"]["seen"] == "weights"
    assert scores["reconstruction_mean_image_psnr_db"] == image["mean_image_psnr_db"] > 5
    assert result["skipped"] == {}
    strongest = max(("loss", "pia", "secmi"), key=lambda attack: scores[f"membership_auc_{attack}"])
    assert scores["membership_auc"] == scores[f"membership_auc_{strongest}"]
    assert scores["membership_auc_low"] < scores["membership_auc"] < scores["membership_auc_high"]
    # Nothing was trained: nothing can be told.
    assert (scores["clients_exposed"], scores["clients_attacked"]) == (0, 2)
    assert abs(scores["membership_auc_blind"] - 0.5) < 0.15


def test_clients_models_are_audited_for_their_own_images(
    tmp_path: Path, images: tuple[ImageSet, ImageSet]
) -> None:
    result = audit(tmp_path, images, DIFFUSION, personal=("conv_out",))
    assert result["membership"]["global_model"] == {}
    own = result["membership"]["client_models"]
    assert set(own) == {"all", "0", "4"}
    members = sum(own[client]["loss"]["num_members"] for client in ("0", "4"))
    assert own["all"]["loss"]["num_members"] == members <= 120
    assert result["scores"]["membership_auc_pia"] == own["all"]["pia"]["auc"]
    assert result["scores"]["clients_attacked"] == 2


@pytest.mark.parametrize("personal", [(), ("class_embedding",)])
def test_a_conditional_model_is_attacked_by_who_knows_the_labels(
    tmp_path: Path, images: tuple[ImageSet, ImageSet], personal: tuple[str, ...]
) -> None:
    model = DIFFUSION.model_copy(update={"conditioning": "labels"})
    result = audit(tmp_path, images, model, personal)
    assert {"membership_auc_loss", "reconstruction_psnr_db"} <= result["scores"].keys()
    assert result["skipped"] == {}


def test_a_gan_has_its_own_attack_and_no_reconstruction(
    tmp_path: Path, images: tuple[ImageSet, ImageSet]
) -> None:
    result = audit(tmp_path, images, DCGAN)
    assert set(result["membership"]["global_model"]["all"]) == {"discriminator"}
    assert result["reconstruction"] is None
    assert result["skipped"].keys() == {"reconstruction"}
    assert "diffusion models" in result["skipped"]["reconstruction"]


def test_a_discriminator_that_stayed_at_the_clients_is_not_attacked(
    tmp_path: Path, images: tuple[ImageSet, ImageSet]
) -> None:
    result = audit(tmp_path, images, DCGAN, personal=("discriminator",))
    assert result["membership"] == {"global_model": {}, "client_models": {}}
    assert "untrained" in result["skipped"]["global_model"]
    assert "membership_auc" not in result["scores"]


def test_pooled_images_need_no_update(tmp_path: Path, images: tuple[ImageSet, ImageSet]) -> None:
    result = audit(tmp_path, images, DIFFUSION, pooled=True)
    assert result["reconstruction"] is None
    assert "one place" in result["skipped"]["reconstruction"]


def test_an_audit_of_another_model_is_left_out(
    tmp_path: Path, images: tuple[ImageSet, ImageSet]
) -> None:
    audited = audit(tmp_path, images, DCGAN)
    description = read_description(tmp_path / "model")

    def results(description: dict[str, Any]) -> list[ArmResults]:
        empty = arm_metrics({})
        return [arm_results(a, empty, description=description) for a in ("dcgan", "fedavg")]

    def kept(found: list[ArmResults]) -> dict[str, Any]:
        return {result.arm: result.audit for result in found if result.audit}

    audits = {"dcgan": audited}
    current, notes = add_audits(results(description), audits)
    assert (kept(current), notes) == (audits, [])
    network = family_of(DCGAN).build(DCGAN, 1, 8, 1)
    write_models(tmp_path / "later", {}, [], network, description)
    later = results(read_description(tmp_path / "later"))
    current, notes = add_audits(later, audits)
    assert kept(current) == {}
    assert notes == [
        "The privacy audit of dcgan is of an earlier model and is left out; run again: "
        f"{AUDIT_COMMAND}"
    ]
    current, notes = add_audits(later, {"dcgan": audited, "fedavg": audited})
    assert (len(notes), notes[0][:34]) == (1, "The privacy audit of dcgan, fedavg")
    earlier = {"dcgan": {name: value for name, value in audited.items() if name != "membership"}}
    current, (note,) = add_audits(results(description), earlier)
    assert kept(current) == {}
    assert "is left out: privacy.json of dcgan" in note
    assert note.endswith(f"make it again: {AUDIT_COMMAND}")


def test_an_arm_that_an_earlier_version_made_is_left_out_with_the_reason() -> None:
    scores = arm_metrics({"fid_pixels": 1.0})
    description = training_record({}, clients=[], has_global_model=True, weights_digest="abcd")
    made = {"metrics": scores, "description": description}
    others = {part: {} for part in PARTS if part not in made}
    assert collect("fedavg")(metrics={}, description={}, **others) == LeftOut("fedavg")
    old = collect("fedavg")(metrics=scores, description=description, **others)
    assert isinstance(old, LeftOut)
    assert "phoenix.json of fedavg" in old.reason and "no usable settings.model" in old.reason
    settings = network_settings(DCGAN)
    new = collect("dcgan")(
        metrics=scores, description={**description, "settings": settings}, **others
    )
    assert isinstance(new, ArmResults)
    found, lines = gather({"fedavg": old, "dcgan": new})
    assert (found, lines) == ([new], [old.reason])
    with pytest.raises(DataError, match="nothing to compare"):
        gather({"fedavg": old})


def test_what_was_trained_is_audited_whatever_the_command_says(
    tmp_path: Path, images: tuple[ImageSet, ImageSet]
) -> None:
    first = audit(tmp_path, images, DIFFUSION)
    assert audit_again(tmp_path, images, RunConfig(device="cpu", seed=7)) == first
    assert first["conditions"]["seed"] == 0


def test_what_is_not_there_is_left_out(
    tmp_path: Path, images: tuple[ImageSet, ImageSet], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model").mkdir()
    assert audit_again(tmp_path, images) == {}
    assert "model is not trained: it has no audit" in caplog.text
    audit(tmp_path, images, DCGAN)
    (tmp_path / "samples.parquet").unlink()
    assert audit_again(tmp_path, images)["skipped"]["copies"] == "there are no samples"


def test_images_of_another_training_are_refused(
    tmp_path: Path, images: tuple[ImageSet, ImageSet]
) -> None:
    audit(tmp_path, images, DCGAN)
    train, test = images
    with pytest.raises(DataError, match="test_images changed since the model was trained"):
        audit_again(tmp_path, (train, test.subset(slice(0, 100))))


def test_copies_are_not_looked_for_in_samples_of_an_earlier_model(
    tmp_path: Path, images: tuple[ImageSet, ImageSet]
) -> None:
    audit(tmp_path, images, DCGAN)
    with SampleWriter(tmp_path / "samples.parquet", {"weights_digest": "0"}) as writer:
        writer.write(images[0].images[:30], GLOBAL_MODEL, range(30))
    result = audit_again(tmp_path, images)
    assert "copied_share" not in result["scores"]
    assert "earlier model" in result["skipped"]["copies"]


def test_too_few_images_are_said_and_not_scored(
    tmp_path: Path, images: tuple[ImageSet, ImageSet]
) -> None:
    train, test = images
    result = audit(tmp_path, (train, test.subset(slice(0, 60))), DIFFUSION)
    assert "copied_share" not in result["scores"]
    assert "100 or more" in result["skipped"]["copies"]


def test_images_that_lie_at_nodes_are_not_audited(
    tmp_path: Path, images: tuple[ImageSet, ImageSet]
) -> None:
    with pytest.raises(SettingsError, match="they lie at the nodes"):
        audit(tmp_path, images, DIFFUSION, engine="deployment")


@pytest.mark.parametrize(
    ("training", "federation", "seen"),
    [
        (
            TrainingConfig(dp_sgd={"enabled": True, "noise_multiplier": 2.0}),
            {},
            "weights, of a noisy gradient",
        ),
        (
            None,
            {
                "local_work": {"unit": "steps", "amount": 1},
                "differential_privacy": {
                    "enabled": True,
                    "placement": "local",
                    "noise_multiplier": 2.0,
                },
            },
            "weights, clipped and noisy",
        ),
        (None, {"compression": {"up": {"codec": "int4"}}}, "int4, difference"),
        (None, {}, "weights"),
    ],
    ids=["dp_sgd", "local noise", "int4", "plain"],
)
def test_what_is_rebuilt_is_rebuilt_from_what_the_server_gets(
    tmp_path: Path,
    images: tuple[ImageSet, ImageSet],
    training: TrainingConfig | None,
    federation: dict[str, Any],
    seen: str,
) -> None:
    train, test = images
    told = FederationConfig(**federation)
    settings = {"model": DIFFUSION, "channels": 1, "image_size": 8, "seed": 0}
    settings |= {"training": training or TrainingConfig(), "compression": told.compression}
    plain = ClientSettings(**settings).model_dump(mode="json")
    network = family_of(DIFFUSION).build(DIFFUSION, 1, 8, 0)
    body = dict(network.state_dict())
    write_models(tmp_path, body, [], network, training_record(plain))
    trained_with = {"federation": told.model_dump(mode="json")}
    subject = Subject(
        folder=tmp_path,
        metadata={**read_description(tmp_path), "trained_with": trained_with},
        rows={0: np.arange(60), 4: np.arange(60, 120)},
        train=train,
        test=test,
        config=CONFIG.model_copy(update={"reconstruction_steps": 40}),
        device=torch.device("cpu"),
    )
    result = reconstruct_images(subject, {})
    assert result is not None and result["seen"] == seen
    scores = result["scores"]
    gain = scores["reconstruction_psnr_db"] - scores["reconstruction_mean_image_psnr_db"]
    if "noisy" in seen:
        assert gain < 0
    else:
        assert gain > 2
