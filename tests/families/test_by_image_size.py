"""Settings that follow the images: what `auto` becomes, and that what was set stays."""

import pytest
import torch
from pydantic import ValidationError

from phoenix_pipeline.config import ArmSettings, FederationConfig, ModelConfig, TrainingConfig
from phoenix_pipeline.diffusion.unet import build_unet, feature_map_sides
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families.by_image_size import (
    IMAGES_IN_ALL,
    list_settled,
    settle_arm,
    settle_federation,
    settle_model,
    settle_training,
)
from phoenix_pipeline.gan.dcgan import build_dcgan

AUTO_UNET = {"block_out_channels": "auto", "attention_resolutions": "auto"}
AUTO_GAN = {"latent_dim": "auto", "base_channels": "auto", "layers_per_resolution": "auto"}
MODEL = ModelConfig.model_validate({"unet": AUTO_UNET, "dcgan": AUTO_GAN})
TRAINING = TrainingConfig.model_validate({"batch_size": "auto", "learning_rate": "auto"})


def federation(**settings: object) -> FederationConfig:
    work = {"unit": "images_per_round", "amount": "auto"}
    return FederationConfig.model_validate({"local_work": work, **settings})


def test_the_digits_keep_their_settings() -> None:
    model = settle_model(MODEL, 8)
    assert model.unet.block_out_channels == (16, 32) and model.unet.attention_resolutions == (4,)
    dcgan = model.dcgan
    assert (dcgan.latent_dim, dcgan.base_channels, dcgan.layers_per_resolution) == (32, 64, 2)
    training = settle_training(TRAINING, model, 8, pooled=False)
    assert (training.batch_size, training.learning_rate) == (16, 2e-3)
    pooled = settle_training(TRAINING, model, 8, pooled=True)
    assert (pooled.batch_size, pooled.learning_rate) == (64, 2e-3)
    gan = settle_training(TRAINING, model.model_copy(update={"family": "dcgan"}), 8, pooled=False)
    assert (gan.batch_size, gan.learning_rate) == (32, 1e-3)
    assert settle_federation(federation(num_rounds=48), 8).local_work.amount == 2880
    saved = {"checkpoint_every": "auto"}
    assert settle_federation(federation(**saved), 8).checkpoint_every == 10
    assert settle_federation(federation(**saved), 16).checkpoint_every == 1
    assert settle_federation(federation(**saved, secret_noise=True), 8).checkpoint_every == 1
    threads = {"threads_per_client": "auto"}
    assert settle_federation(federation(**threads), 8).threads_per_client == 1
    assert settle_federation(federation(**threads), 32).threads_per_client is None


def test_alignment_doubles_the_step_size_and_halves_batches_up_to_48_pixels() -> None:
    model = settle_model(MODEL, 8)
    aligned = settle_training(TRAINING, model, 8, pooled=False, aligned=True)
    assert (aligned.batch_size, aligned.learning_rate) == (8, 4e-3)
    in_one_place, clients = (settle_training(TRAINING, model, 32, pooled=p) for p in (True, False))
    assert (in_one_place.batch_size, clients.batch_size) == (8, 16)
    larger = settle_training(TRAINING, model, 32, pooled=False, aligned=True)
    assert (larger.batch_size, larger.learning_rate) == (8, 2e-3)
    for told, rate in (({}, 4e-3), ({"share": 0.25}, 4e-3), ({"share": 0.0}, 2e-3)):
        arm = ArmSettings(training=TRAINING, federation={"strategies": {"alignment": told}})
        assert settle_arm(arm, 8).training.learning_rate == rate


@pytest.mark.parametrize(
    ("told", "side", "rounds", "amount"),
    [
        ({}, 8, 60, 2304),
        ({"pooled": True}, 8, 60, 2304),
        ({"strategies": {"alignment": {"share": 0.0}}}, 8, 60, 2304),
        ({"strategies": {"alignment": {}}}, 8, 96, 1440),
        ({"strategies": {"alignment": {}}}, 16, 60, 1638.4),
        # Half of the clients in twice the rounds: as many images, and as many messages.
        ({"strategies": {"alignment": {}}, "client_fraction": 0.5}, 8, 192, 720),
        ({"client_fraction": 0.3}, 8, 200, 691.2),
        ({"client_fraction": 0.5, "pooled": True}, 8, 60, 2304),
        ({"strategies": {"alignment": {}}, "num_rounds": 48}, 8, 48, 2880),
    ],
)
def test_rounds_follow_the_size_and_alignment(
    told: dict[str, object], side: int, rounds: int, amount: float
) -> None:
    arm = ArmSettings(federation=federation(**{"num_rounds": "auto", **told}))
    settled = settle_arm(arm, side).federation
    assert (settled.num_rounds, settled.local_work.amount) == (rounds, pytest.approx(amount))


@pytest.mark.parametrize(
    ("side", "channels", "attention"),
    [
        (10, (16, 32), (5,)),
        (15, (16,), (15,)),
        (16, (16, 32, 64), (4,)),
        (28, (16, 32, 64), (7,)),
        (32, (16, 32, 64), (8,)),
        (50, (16, 32), ()),
        (64, (16, 32, 64, 64), (8,)),
        (128, (16, 32, 64, 64, 128), (8,)),
        (256, (16, 32, 32, 64, 64, 128), (8,)),
    ],
)
def test_networks_by_size(side: int, channels: tuple[int, ...], attention: tuple[int, ...]) -> None:
    unet = settle_model(MODEL, side).unet
    assert (unet.block_out_channels, unet.attention_resolutions) == (channels, attention)


def test_every_side_has_a_network() -> None:
    for side in range(8, 257):
        unet = settle_model(MODEL, side).unet
        sides = feature_map_sides(unet, side)
        assert set(unet.attention_resolutions) <= {sides[-1]} and sides[-1] >= 4


@pytest.mark.parametrize("side", [8, 15, 16, 28, 30, 32, 64, 200, 256])
def test_networks_can_be_built(side: int) -> None:
    model = settle_model(MODEL, side)
    with torch.device("meta"):
        build_unet(model.unet, 3, side, 0)
        if side % 2 == 0:
            build_dcgan(model.dcgan, 3, side, 0)


def test_budgets_can_be_divided_into_rounds_and_shrink_with_the_size() -> None:
    totals = list(IMAGES_IN_ALL.values())
    assert totals == sorted(totals, reverse=True)
    assert all(total % 48 == 0 for total in totals)
    for side, images in IMAGES_IN_ALL.items():
        for rounds in (12, 48, 60):
            settled = settle_federation(federation(num_rounds=rounds), side)
            assert rounds * settled.local_work.amount == pytest.approx(images)


def test_a_budget_is_a_share_of_the_rounds_and_images_of_auto() -> None:
    auto = {"num_rounds": "auto", "client_fraction": 0.5}
    half = settle_federation(federation(**auto, budget=0.5), 8, aligned=True)
    assert (half.num_rounds, half.local_work.amount) == (96, 720)  # of 192 rounds of 720
    own_rounds = settle_federation(federation(num_rounds=10, budget=0.5), 8)
    assert (own_rounds.num_rounds, own_rounds.local_work.amount) == (10, 6912)
    own_work = {"num_rounds": "auto", "local_work": {"amount": 100}, "budget": 0.1}
    own = settle_federation(FederationConfig.model_validate(own_work), 8)
    assert (own.num_rounds, own.local_work.amount) == (6, 100)
    assert settle_federation(federation(**auto, budget=1e-6), 8).num_rounds == 1


def test_what_was_set_stays() -> None:
    unet = {"block_out_channels": [8, 16], "attention_resolutions": "auto", "norm_num_groups": 4}
    model = settle_model(ModelConfig.model_validate({"unet": unet}), 32)
    assert model.unet.block_out_channels == (8, 16)
    assert model.unet.attention_resolutions == (16,)  # of the channels that were set
    training = TrainingConfig.model_validate({"batch_size": 7, "learning_rate": "auto"})
    settled = settle_training(training, model, 32, pooled=False)
    assert (settled.batch_size, settled.learning_rate) == (7, 1e-3)
    work = {"unit": "epochs", "amount": 3}
    assert settle_federation(federation(local_work=work), 64).local_work.amount == 3


def test_waiting_settings_are_stored_as_auto_and_settled_ones_as_numbers() -> None:
    stored = MODEL.model_dump(mode="json")["unet"]
    assert (stored["block_out_channels"], stored["attention_resolutions"]) == ("auto", "auto")
    assert ModelConfig.model_validate(MODEL.model_dump(mode="json")) == MODEL
    settled = settle_model(MODEL, 32)
    assert settled.model_dump(mode="json")["unet"]["block_out_channels"] == [16, 32, 64]
    assert not settled.unet.auto and settled != MODEL
    assert ModelConfig.model_validate_json(settled.model_dump_json()) == settled
    assert settle_model(settled, 8) == settled


def test_what_waited_is_listed_with_what_it_became() -> None:
    given = ArmSettings(model=MODEL, training=TrainingConfig(batch_size=7))
    assert next(iter(MODEL.waiting())) == "unet.attention_resolutions"
    assert list_settled(given, settle_arm(given, 32)) == {
        "model.unet.attention_resolutions": [8],
        "model.unet.block_out_channels": [16, 32, 64],
        "model.dcgan.base_channels": 32,
        "model.dcgan.latent_dim": 100,
        "model.dcgan.layers_per_resolution": 1,
    }


def test_groups_must_divide_the_channels_that_auto_gives() -> None:
    model = ModelConfig.model_validate({"unet": {**AUTO_UNET, "norm_num_groups": 32}})
    with pytest.raises(SettingsError, match=r"norm_num_groups=32 does not divide 16"):
        settle_model(model, 32)


@pytest.mark.filterwarnings("error")
def test_what_was_not_settled_is_no_number() -> None:
    assert {getattr(MODEL.unet, name) for name in MODEL.unet.auto} == {"auto"}
    assert MODEL.model_dump()["unet"]["block_out_channels"] == "auto"
    assert settle_model(MODEL, 8).unet.block_out_channels == (16, 32)


def test_auto_is_for_the_keys_that_follow_the_images() -> None:
    with pytest.raises(ValidationError, match="dropout"):
        ModelConfig.model_validate({"unet": {"dropout": "auto"}})
    with pytest.raises(SettingsError, match="amount is auto, which is for unit images_per_round"):
        settle_federation(federation(local_work={"unit": "steps", "amount": "auto"}), 8)
