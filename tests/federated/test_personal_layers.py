"""Personal layers: named by prefixes, kept by the client, absent from every message."""

from pathlib import Path

import pytest
import torch

from phoenix_pipeline.config import DcganConfig, ModelConfig, PersonalLayersConfig, UNetConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.federated.personal_layers import (
    is_personal,
    personal_prefixes,
    samples_are_personal,
    split_personal,
)
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.seeding import derive_seed
from tests.federated.tiny import (
    UNET,
    arrays_of,
    client_table,
    federate,
    interrupt,
    make_images,
    same,
    settings,
    train_each_alone,
)

TWO_LEVELS = ModelConfig(
    unet=UNetConfig(block_out_channels=(8, 8), attention_resolutions=(), norm_num_groups=4)
)
NAMES = tuple(build_unet(TWO_LEVELS.unet, 1, 8, 0).state_dict())
OUTPUT = ("conv_norm_out", "conv_out")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (None, ()),
        ("output", OUTPUT),
        ("last_up_block", ("up_blocks.1", *OUTPUT)),
        ("decoder", ("up_blocks", *OUTPUT)),
        ("time_embedding", ("time_embedding",)),
        (("down_blocks.0", "conv_in.bias"), ("down_blocks.0", "conv_in.bias")),
    ],
)
def test_presets_and_lists(layers: str | tuple[str, ...] | None, expected: tuple[str, ...]) -> None:
    config = PersonalLayersConfig(layers=layers)
    assert personal_prefixes(config, TWO_LEVELS, NAMES) == expected


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (
            "head",
            r"'head'; with model.family diffusion allowed are output, last_up_block",
        ),
        (("conv",), r"'conv', which no layer .* conv_in, time_embedding, down_blocks\.0"),
        (("up_blocks.2",), r"up_blocks\.0, up_blocks\.1"),
        (tuple(sorted({n.split(".")[0] for n in NAMES})), "names every layer"),
    ],
)
def test_wrong_names_are_refused_with_what_exists(layers: str | tuple[str, ...], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        personal_prefixes(PersonalLayersConfig(layers=layers), TWO_LEVELS, NAMES)


def test_a_prefix_ends_at_a_dot() -> None:
    assert is_personal("up_blocks.1.conv.weight", ("up_blocks.1",))
    assert not is_personal("up_blocks.10.conv.weight", ("up_blocks.1",))


def test_a_discriminator_stays_but_draws_no_samples() -> None:
    model = ModelConfig(family="dcgan", dcgan=DcganConfig(federate="generator"))
    names = ["generator.0.weight", "discriminator.0.weight"]
    prefixes = personal_prefixes(PersonalLayersConfig(), model, names)
    assert prefixes == ("discriminator",)
    assert not samples_are_personal(prefixes, model)
    assert samples_are_personal(("conv_out",), TWO_LEVELS)
    with pytest.raises(
        SettingsError, match=r"with model\.family dcgan allowed are class_embedding"
    ):
        personal_prefixes(PersonalLayersConfig(layers="output"), model, names)


def test_one_round_averages_the_shared_layers_and_leaves_the_personal_ones(tmp_path: Path) -> None:
    told = settings(("conv_out",))
    trained = train_each_alone(told)
    result = federate(tmp_path, rounds=1, settings=told)
    assert not any(name.startswith("conv_out") for name in result.raw)
    for name, tensor in result.raw.items():
        expected = 0.25 * trained[0][name] + 0.75 * trained[1][name]
        torch.testing.assert_close(tensor, expected, rtol=0.0, atol=3e-5)
    for client in (0, 1):
        kept = result.client_state(client).personal
        assert kept.keys() == {"conv_out.weight", "conv_out.bias"}
        for name, tensor in kept.items():
            torch.testing.assert_close(tensor, trained[client][name], rtol=0.0, atol=3e-5)


def test_personal_layers_survive_rounds_and_have_their_own_average(tmp_path: Path) -> None:
    told = settings(("conv_out",), ema_horizon=0.5)
    one = federate(tmp_path / "one", rounds=2, settings=told, checkpoint_every=9)
    first = federate(tmp_path / "cut", rounds=2, settings=told)  # the same run
    assert same(arrays_of(one.client_state(1)), arrays_of(first.client_state(1)))
    state = first.client_state(1)
    assert state.updates == 2
    # With horizon 1/2 the second update's decay is (1 - 1/2) ** 1: the plain mean of two rounds.
    assert not same(state.personal, state.personal_ema)
    half = federate(tmp_path / "half", rounds=2, settings=told, client_fraction=0.5)
    trained = half.rounds.groupby("client_id").size()
    assert {c: half.client_state(c).updates for c in trained.index} == trained.to_dict()


def test_a_client_goes_on_with_its_own_layers_in_the_shared_body(tmp_path: Path) -> None:
    told = settings(OUTPUT)
    result = federate(tmp_path, settings=told, rounds=2)
    images, schedule = make_images().images, NoiseSchedule.from_config(told.model.noise, "cpu")
    rows = [part["image_index"].to_numpy() for _, part in client_table().groupby("client_id")]
    unets = [build_unet(UNET, 1, 8, told.seed) for _ in rows]
    for server_round in (1, 2):
        for client, unet in enumerate(unets):
            seed = derive_seed(told.seed, "local_training", client, server_round)
            work = LocalWork(2, (server_round - 1) / 2, server_round / 2, seed)
            train_locally(
                unet, torch.from_numpy(images[rows[client]]), work, schedule, told.training
            )
        after = [unet.state_dict() for unet in unets]
        weights = [len(own) / len(images) for own in rows]
        shared = {
            name: sum(w * own[name] for w, own in zip(weights, after, strict=True))
            for name in after[0]
            if not is_personal(name, OUTPUT)
        }
        for unet in unets:
            unet.load_state_dict(shared, strict=False)
    for client, unet in enumerate(unets):
        own = result.client_state(client).personal
        expected = {name: unet.state_dict()[name] for name in own}
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)


def test_the_bytes_show_what_stays(tmp_path: Path) -> None:
    everything = federate(tmp_path / "all", rounds=1).rounds
    shared = federate(tmp_path / "some", rounds=1, settings=settings(("conv_out",))).rounds
    _, personal = split_personal(build_unet(UNET, 1, 8, 0).state_dict(), ("conv_out",))
    weights = 4 * sum(t.numel() for t in personal.values())
    for column in ("bytes_up", "bytes_down"):
        saved = everything[column] - shared[column]
        # Settings name the layers, and the header of the one array has other digits.
        assert ((saved - weights).abs() <= 20).all()


@pytest.mark.parametrize("state", ["keep", "reset"])
def test_an_interrupted_run_finds_its_personal_layers_again(tmp_path: Path, state: str) -> None:
    told = settings(("conv_out",), optimizer_state=state)
    undisturbed = federate(tmp_path / "whole", rounds=3, settings=told)

    interrupt(tmp_path / "cut", after=2, rounds=3, settings=told)
    resumed = federate(tmp_path / "cut", rounds=3, settings=told)
    assert same(resumed.ema, undisturbed.ema)
    for client in (0, 1):
        expected = arrays_of(undisturbed.client_state(client))
        assert same(arrays_of(resumed.client_state(client)), expected)


def test_final_average_uploads_the_layers_once_and_counts_them(tmp_path: Path) -> None:
    told = settings(("conv_out",))
    plain = federate(tmp_path / "plain", settings=told)
    result = federate(tmp_path / "final", settings=told, final_average="raw")
    assert result.averaged_personal is not None
    states = [result.client_state(client).personal for client in (0, 1)]
    for name, tensor in result.averaged_personal.items():
        expected = 0.25 * states[0][name] + 0.75 * states[1][name]
        torch.testing.assert_close(tensor, expected)
    extra = result.rounds["bytes_up"] - plain.rounds["bytes_up"]
    weights = 4 * sum(t.numel() for t in states[0].values())
    assert extra[:2].tolist() == [0, 0]
    assert (extra[2:] > weights).all()


def test_a_warm_up_gives_clients_its_personal_layers_to_start_from(tmp_path: Path) -> None:
    pool = make_images().images.shape[0] // 2
    options = {"settings": settings(("conv_out",)), "rounds": 1}
    cold = federate(tmp_path / "cold", **options)
    warm = federate(tmp_path / "warm", **options, warmup_steps=3, pool=torch.arange(pool).numpy())
    down = warm.rounds[warm.rounds["round"] == 1]["bytes_down"].to_numpy()
    assert (down > cold.rounds["bytes_down"].to_numpy()).all()
    assert not same(warm.client_state(0).personal, cold.client_state(0).personal)


def test_who_never_trained_has_no_model_of_its_own(tmp_path: Path) -> None:
    told = settings(("conv_out",))
    result = federate(tmp_path, settings=told, final_average="raw", attendance={1: "9"})
    assert result.connected == (0,)
    assert result.averaged_personal is not None
    for name, tensor in result.client_state(0).personal.items():
        torch.testing.assert_close(result.averaged_personal[name], tensor)


def test_the_upload_of_who_sat_out_the_last_round_is_counted(tmp_path: Path) -> None:
    told = {"settings": settings(("conv_out",)), "rounds": 4, "client_fraction": 0.5}
    counted = federate(tmp_path / "counted", final_average="raw", **told).rounds
    plain = federate(tmp_path / "plain", **told).rounds
    more = counted["bytes_up"] - plain["bytes_up"]
    newest = counted.drop_duplicates("client_id", keep="last").index
    assert len(newest) == 2
    assert more[more > 0].index.tolist() == sorted(newest)
    assert more.max() == more[more > 0].min()
