import pytest
import torch

from phoenix_pipeline.config import FederationConfig, ModelConfig, UNetConfig
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import FederationError, SettingsError
from phoenix_pipeline.federated.aggregation import PartialMean, WeightedMean
from phoenix_pipeline.federated.compression.partial_updates import (
    assign_halves,
    check_split,
    kept_prefixes,
    layers_that_stay,
    sent_names,
)
from phoenix_pipeline.federated.personal_layers import split_personal
from phoenix_pipeline.gan.dcgan import build_dcgan

UNET = build_unet(UNetConfig(block_out_channels=(8, 16), norm_num_groups=4), 1, 8, 0).state_dict()


def test_halves_of_a_pair_are_the_model() -> None:
    encoder, decoder = (
        set(sent_names(UNET, half, ModelConfig())) for half in ("encoder", "decoder")
    )
    assert encoder | decoder == set(UNET)
    assert not encoder & decoder
    assert {"mid_block", "conv_in"} <= {name.split(".")[0] for name in encoder}
    assert sent_names(UNET, "all", ModelConfig()) == list(UNET)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_clients_are_paired_and_cover_the_model_in_every_round(count: int) -> None:
    clients = [3 * i + 1 for i in range(count)]
    for server_round in range(1, 20):
        halves = assign_halves(clients, "usplit", 7, server_round)
        assert list(halves) == clients
        kinds = list(halves.values())
        assert kinds.count("encoder") == kinds.count("decoder") == count // 2
        assert kinds.count("all") == count % 2


def test_pairs_are_seeded_and_change_over_the_rounds() -> None:
    clients = list(range(10))
    drawn = [assign_halves(clients, "usplit", 7, r) for r in range(1, 30)]
    assert drawn == [assign_halves(clients, "usplit", 7, r) for r in range(1, 30)]
    assert drawn[0] != assign_halves(clients, "usplit", 8, 1)
    # Each sends either half about every second time.
    shares = [sum(halves[c] == "encoder" for halves in drawn) / len(drawn) for c in clients]
    assert 0.2 < min(shares) and max(shares) < 0.8
    assert set(assign_halves(clients, "full", 7, 1).values()) == {"all"}


def test_layers_that_are_never_exchanged_are_personal() -> None:
    top = {
        scheme: {
            n.split(".")[0] for n in split_personal(UNET, kept_prefixes(scheme, ModelConfig()))[0]
        }
        for scheme in ("full", "usplit", "ulatdec", "udec")
    }
    assert top["udec"] == {"up_blocks", "conv_norm_out", "conv_out"}
    assert top["ulatdec"] == top["udec"] | {"mid_block"}
    assert top["full"] == top["usplit"] == {name.split(".")[0] for name in UNET}


def test_other_models_have_no_halves() -> None:
    model = ModelConfig(family="dcgan")
    dcgan = build_dcgan(ModelConfig().dcgan, 1, 8, 0).state_dict()
    assert sent_names(dcgan, "all", model) == list(dcgan)
    with pytest.raises(SettingsError, match=r"model\.family to diffusion"):
        sent_names(dcgan, "encoder", model)


def federation(scheme: str, **options: object) -> FederationConfig:
    return FederationConfig(compression={"partial_update": scheme}, **options)


def test_layers_that_stay_add_to_the_personal_ones() -> None:
    def kept(scheme: str, *personal: str) -> tuple[str, ...]:
        return layers_that_stay(personal, federation(scheme), ModelConfig(), UNET)

    assert kept("full", "conv_out") == kept("usplit", "conv_out") == ("conv_out",)
    assert kept("ulatdec", "conv_out", "conv_in") == (
        "conv_out",
        "conv_in",
        "time_embedding",
        "down_blocks",
    )
    assert kept("udec") == ("conv_in", "time_embedding", "down_blocks", "mid_block")


DECODER = ("up_blocks", "conv_norm_out", "conv_out")


@pytest.mark.parametrize(
    ("config", "model", "personal", "said"),
    [
        (federation("udec", pooled=True), {}, (), "pooled puts all data in one place"),
        (
            FederationConfig(pooled=True, compression={"up": {"codec": "fp16"}}),
            {},
            (),
            "pooled puts all data in one place",
        ),
        (federation("usplit"), {"family": "dcgan"}, (), "model.family is dcgan"),
        (federation("udec"), {}, DECODER, "leaves nothing to send of the model"),
        (federation("usplit"), {}, DECODER, "leaves nothing to send of the decoder"),
    ],
)
def test_senseless_combinations_are_refused(
    config: FederationConfig, model: dict, personal: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        layers_that_stay(personal, config, ModelConfig(**model), UNET)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_usplit_needs_two_clients_in_a_round() -> None:
    check_split(federation("usplit"), 2)
    check_split(federation("full"), 1)
    with pytest.raises(SettingsError, match="1 client trains in one"):
        check_split(federation("usplit"), 1)


@pytest.mark.parametrize("aggregation", [{"rule": "median"}, {"clip_norm": {"bound": 1.0}}])
def test_usplit_and_rules_that_need_whole_replies_are_refused(aggregation: dict) -> None:
    with pytest.raises(ValueError, match="usplit averages each array over those who sent it"):
        federation("usplit", aggregation=aggregation)


BASE = {"a": torch.tensor([9.0, 9.0]), "b": torch.tensor([9.0]), "n": torch.tensor(4)}


def test_each_array_is_averaged_over_those_who_sent_it() -> None:
    mean = PartialMean(BASE)
    mean.add({"a": torch.tensor([0.0, 3.0])}, 1.0)
    mean.add({"a": torch.tensor([4.0, 3.0]), "n": torch.tensor(8)}, 3.0)
    result = mean.result()
    assert result["a"].tolist() == [3.0, 3.0]
    assert result["b"].tolist() == [9.0]
    assert result["n"].item() == 8


def test_whole_models_have_the_same_mean_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    base = {"a": torch.zeros(50), "b": torch.zeros(7, 3)}
    partial, whole = PartialMean(base), WeightedMean(base)
    for weight in (3.0, 11.0, 7.0):
        arrays = {n: torch.randn(t.shape, generator=generator) for n, t in base.items()}
        partial.add(arrays, weight)
        whole.add(arrays, weight)
    expected = whole.result()
    assert all(torch.equal(t, expected[n]) for n, t in partial.result().items())


@pytest.mark.parametrize(
    ("arrays", "weight", "said"),
    [
        ({}, 1.0, "there are none"),
        ({"z": torch.zeros(1)}, 1.0, "z"),
        ({"a": torch.ones(2), "b": torch.tensor([float("nan")])}, 1.0, "not finite"),
        ({"a": torch.ones(2), "b": torch.ones(2)}, 1.0, r"array b is torch.float32 \(2,\)"),
        ({"a": torch.ones(2)}, 0.0, "0 examples"),
    ],
)
def test_a_refused_reply_changes_nothing(arrays: dict, weight: float, said: str) -> None:
    mean = PartialMean(BASE)
    with pytest.raises(FederationError, match=said):
        mean.add(arrays, weight)
    assert mean.result()["a"].tolist() == [9.0, 9.0]
