"""What an error advises works when it is followed: every name is a setting, every remedy helps.

A message that advises and that no case here raises fails the last test: add a case for it.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from phoenix_pipeline.arms.setup import assign_images, check_arm
from phoenix_pipeline.config import ARM_GROUPS, SHARED_GROUPS, ArmSettings, ModelConfig, deep_merge
from phoenix_pipeline.errors import PhoenixError
from phoenix_pipeline.federated.compression.partial_updates import sent_names
from phoenix_pipeline.federated.privacy.client_level import _update_noise
from phoenix_pipeline.framework.sweeps.cells import nest
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import ImageSet, split_held_out, take_stratified
from phoenix_pipeline.metrics.class_frechet import class_frechet_distance
from phoenix_pipeline.metrics.frechet import gaussian_statistics
from phoenix_pipeline.metrics.inception_score import inception_score
from phoenix_pipeline.metrics.kid import kernel_distance
from phoenix_pipeline.metrics.manifold import manifold_scores
from phoenix_pipeline.partitioning import partition_clients

PACKAGE = Path(__file__).parents[1] / "src" / "phoenix_pipeline"
GROUPS: dict[str, type[BaseModel]] = {**SHARED_GROUPS, **ARM_GROUPS}
NAME = re.compile(rf"(?<![\w./])(?:{'|'.join(GROUPS)})(?:\.[a-z0-9_]+)+(?![\w/(])")
ADVISES = re.compile(r"\b(set|raise|lower|possible|allowed|use|give|name|change|audit|needs?)\b")
Settings = dict[str, Any]
SMALL: Settings = {
    "model.unet.block_out_channels": [8],
    "model.unet.attention_resolutions": [],
    "model.unet.norm_num_groups": 4,
    "partition.min_images_per_client": 1,
    "partition.num_clients": 5,
    "federation.local_work.unit": "steps",
    "run.device": "cpu",
}
BALANCED, RARE = [20] * 10, [20] * 9 + [3]


def groups_of(settings: Settings) -> dict[str, Any]:
    blocks = deep_merge(nest(SMALL), nest(settings))
    return {name: model.model_validate(blocks.get(name, {})) for name, model in GROUPS.items()}


def make_images(side: int, sizes: list[int] | None, count: int = 200) -> ImageSet:
    count = sum(sizes) if sizes else count
    pixels = np.random.default_rng(3).integers(0, 256, (count, 1, side, side), dtype=np.uint8)
    if sizes is None:
        return ImageSet(pixels)
    names = tuple(map(str, range(len(sizes))))
    return ImageSet(pixels, np.repeat(np.arange(len(sizes)), sizes), names)


def start_arm(settings: Settings, tmp_path: Path, sizes: list[int] | None, num_test: int) -> None:
    """Do what is done before an arm trains."""
    groups = groups_of(settings)
    train = make_images(groups["images"].image_size or 8, sizes)
    test = make_images(groups["images"].image_size or 8, None, num_test)
    partition = partition_clients(train.labels, train.num_images, groups["partition"], 0)
    arm = ArmSettings.model_validate({name: groups[name] for name in ARM_GROUPS})
    assign_images(train, partition, arm, groups["run"])
    check_arm(train, test, arm, groups["run"], tmp_path)


def measure(settings: Settings) -> None:
    groups = groups_of(settings)
    samples = np.random.default_rng(0).normal(size=(groups["sampling"].num_images, 4))
    reference = np.random.default_rng(1).normal(size=(100, 4))
    config = groups["evaluation"]
    gaussian_statistics(samples)
    kernel_distance(samples, reference, 2, config.kid_subset_size, 0)
    manifold_scores(samples, reference, config.nearest_k)
    inception_score(np.full((len(samples), 3), 1 / 3), 0)
    labels, known = np.arange(len(samples)) % 50, np.arange(len(reference)) % 50
    class_frechet_distance(samples, labels, reference, known)


class Case(NamedTuple):
    """Settings that are refused, and each remedy that the message names."""

    start: Settings
    remedies: list[Settings | Callable[[str], Settings]]
    sizes: list[int] | None = BALANCED
    num_test: int = 60
    attempt: Callable[[Settings], object] | None = None


def read(pattern: str, name: str) -> Callable[[str], Settings]:
    """Take the value of a remedy from the message."""
    return lambda message: {name: float(re.search(pattern, message)[1])}  # type: ignore[index]


DP = "federation.differential_privacy"
DP_ON = {f"{DP}.enabled": True, f"{DP}.noise_multiplier": 1.0}
KRUM = {"federation.aggregation.rule": "krum", "federation.aggregation.num_byzantine": 1}
FILTER = {"threshold_filter.enabled": True}
PERSONAL, PARTIAL = "personal_layers.layers", "federation.compression.partial_update"
GAN = {"model.family": "dcgan"}
FLOW = {"model.noise.prediction_type": "flow", "sampling.sampler": "euler"}
CONDITION, SHARES, GUIDANCE = (
    "model.conditioning",
    "sampling.class_distribution",
    "sampling.guidance_scale",
)
LABELS = {CONDITION: "labels"}
U_NET_LAYERS = ["conv_in", "time_embedding", "down_blocks", "mid_block", "up_blocks"]
U_NET_LAYERS += ["conv_norm_out", "conv_out"]
IID = {"partition.scheme": "iid"}

CASES = {
    "more clients than images": Case(
        {**IID, "partition.num_clients": 201}, [{"partition.num_clients": 200}]
    ),
    "too many for the minimum": Case(
        {**IID, "partition.num_clients": 30, "partition.min_images_per_client": 8},
        [{"partition.num_clients": 25}, {"partition.min_images_per_client": 6}],
    ),
    "no labels": Case(
        {"partition.scheme": "pathological"},
        [{"partition.scheme": "iid"}, {"partition.scheme": "quantity"}],
        sizes=None,
    ),
    "more classes per client than classes": Case(
        {"partition.classes_per_client": 11}, [{"partition.classes_per_client": 10}]
    ),
    "classes of no one": Case(
        {"partition.num_clients": 2},
        [{"partition.classes_per_client": 5}, {"partition.num_clients": 5}],
    ),
    "a rare class for many owners": Case(
        {"partition.num_clients": 20},
        [{"partition.num_clients": 15}, {"partition.classes_per_client": 1}],
        sizes=RARE,
    ),
    "a client below the minimum": Case(
        {
            "partition.num_clients": 10,
            "partition.classes_per_client": 1,
            "partition.min_images_per_client": 8,
        },
        [{"partition.min_images_per_client": 3}],
        sizes=RARE,
    ),
    "a skewed draw": Case(
        {
            "partition.scheme": "dirichlet",
            "partition.dirichlet_alpha": 0.01,
            "partition.num_clients": 10,
            "partition.min_images_per_client": 8,
        },
        [
            read(r"dirichlet_alpha of about ([\d.]+\d)", "partition.dirichlet_alpha"),
            {"partition.num_clients": 2},
        ],
    ),
    "a pool without some classes": Case({"shared_pool.beta": 0.004}, [{"shared_pool.beta": 0.05}]),
    "a share of nothing": Case(
        {"shared_pool.beta": 0.05, "shared_pool.alpha": 0.01}, [{"shared_pool.alpha": 0.1}]
    ),
    "all images set aside": Case(
        {
            **IID,
            "partition.num_clients": 60,
            "shared_pool.beta": 0.99,
            "shared_pool.alpha": 0.0,
            "shared_pool.source": "held_out",
        },
        [{"shared_pool.alpha": 0.5}, {"shared_pool.beta": 0.1}, {"shared_pool.source": "clients"}],
    ),
    "all images given away": Case(
        {
            **IID,
            "partition.num_clients": 60,
            "shared_pool.beta": 0.99,
            "shared_pool.alpha": 0.0,
            "shared_pool.keep_private_copy": False,
        },
        [{"shared_pool.keep_private_copy": True}],
    ),
    "warm-up without a pool": Case(
        {"shared_pool.warmup_steps": 3},
        [{"shared_pool.beta": 0.1}, {"shared_pool.warmup_steps": 0}],
    ),
    "a share of a training that is set in numbers": Case(
        {"federation.budget": 0.5, "federation.num_rounds": 2, "federation.local_work.amount": 3},
        [{"federation.num_rounds": "auto"}, {"federation.budget": 1}],
    ),
    "too few clients in a round": Case(
        {"federation.min_clients": 6}, [{"federation.min_clients": 5}]
    ),
    "a client that there is not": Case(
        {"federation.attendance": {7: "2-"}}, [{"federation.attendance": {4: "2-"}}]
    ),
    "too few replies for the rule": Case(
        {**KRUM, "partition.num_clients": 10, "federation.client_fraction": 0.4},
        [
            {"federation.client_fraction": 0.5},
            {"partition.num_clients": 13},
            {"federation.aggregation.rule": "mean"},
        ],
    ),
    "half a pair": Case(
        {PARTIAL: "usplit", "partition.num_clients": 5, "federation.client_fraction": 0.2},
        [{"federation.client_fraction": 0.4}, {"partition.num_clients": 10}, {PARTIAL: "full"}],
    ),
    "compression in one place": Case(
        {
            "federation.pooled": True,
            PARTIAL: "ulatdec",
            "federation.compression.up.codec": "int8",
            "federation.compression.down.codec": "int8",
        },
        [
            {
                PARTIAL: "full",
                "federation.compression.up.codec": "none",
                "federation.compression.down.codec": "none",
            }
        ],
    ),
    "a partial update of a GAN": Case({**GAN, PARTIAL: "udec"}, [{PARTIAL: "full"}]),
    "half of a GAN": Case(
        {PARTIAL: "usplit"},
        [{PARTIAL: "full"}],
        attempt=lambda s: sent_names(
            ["generator.0"], "all" if s[PARTIAL] == "full" else "encoder", ModelConfig()
        ),
    ),
    "nothing left to send": Case(
        {PARTIAL: "udec", PERSONAL: ["up_blocks", "conv_norm_out", "conv_out"]},
        [{PARTIAL: "full"}, {PERSONAL: ["conv_out"]}],
    ),
    "nothing shared": Case({PERSONAL: U_NET_LAYERS}, [{PERSONAL: U_NET_LAYERS[1:]}]),
    "no such preset": Case(
        {PERSONAL: "tail"},
        [{PERSONAL: "last_up_block"}, {PERSONAL: ["up_blocks.0"]}, {PERSONAL: None}],
    ),
    "no such layer": Case({PERSONAL: ["tail"]}, [{PERSONAL: "output"}, {PERSONAL: ["conv_in"]}]),
    "a preset for a GAN": Case(
        {**GAN, PERSONAL: "output"}, [{PERSONAL: ["generator"]}, {PERSONAL: None}]
    ),
    "personal layers in one place": Case(
        {"federation.pooled": True, PERSONAL: "output", **FILTER},
        [{PERSONAL: None, "threshold_filter.enabled": False}],
    ),
    "an average of nothing": Case(
        {"personal_layers.final_average": True},
        [{PERSONAL: "output"}, {"personal_layers.final_average": False}],
    ),
    "a filter that ends the run": Case(
        {**FILTER, "threshold_filter.min_clients": 2, "federation.min_clients": 3},
        [{"threshold_filter.min_clients": 3}, {"federation.min_clients": 2}],
    ),
    "a filter below the rule": Case(
        {**KRUM, **FILTER, "threshold_filter.min_clients": 2},
        [{"threshold_filter.min_clients": 5}, {"federation.aggregation.rule": "mean"}],
    ),
    "a threshold below real images": Case(
        {**FILTER, "threshold_filter.absolute_threshold": 1.001},
        [
            {"threshold_filter.absolute_threshold": 100.0},
            {"threshold_filter.absolute_threshold": None},
        ],
    ),
    "few reference images": Case(FILTER, [{"threshold_filter.enabled": False}], num_test=40),
    "more levels than halvings": Case(
        {"model.unet.block_out_channels": [8] * 5},
        [
            {"model.unet.block_out_channels": [8] * 4},
            {"model.unet.block_out_channels": "auto"},
            {"images.image_size": 16},
        ],
    ),
    "attention at no level": Case(
        {"model.unet.attention_resolutions": [3]},
        [
            {"model.unet.attention_resolutions": [8]},
            {"model.unet.attention_resolutions": []},
            {"model.unet.attention_resolutions": "auto"},
        ],
    ),
    "no GAN of this size": Case(
        {**GAN, "images.image_size": 13},
        [read(r"images\.image_size=(\d+)", "images.image_size")],
    ),
    "groups that do not divide what auto gives": Case(
        {"model.unet.block_out_channels": "auto", "model.unet.norm_num_groups": 32},
        [{"model.unet.norm_num_groups": 8}, {"model.unet.block_out_channels": [32]}],
    ),
    "an amount of auto in another unit": Case(
        {"federation.local_work.amount": "auto"},
        [
            {"federation.local_work.amount": 5},
            {"federation.local_work.unit": "images_per_round"},
        ],
    ),
    "more steps than timesteps": Case(
        {"sampling.num_steps": 2000},
        [
            read(r"possible are sampling.num_steps=(\d+)", "sampling.num_steps"),
            {"model.noise.num_train_timesteps": 2500},
        ],
    ),
    "steps that start late": Case(
        {
            "sampling.num_steps": 600,
            "sampling.sampler": "ddim",
            "sampling.timestep_spacing": "leading",
        },
        [
            read(r"possible are sampling.num_steps=(\d+)", "sampling.num_steps"),
            read(r"or sampling.num_steps=(\d+)", "sampling.num_steps"),
            {"sampling.timestep_spacing": "trailing"},
            {"sampling.timestep_spacing": "linspace"},
        ],
    ),
    "two kinds of privacy": Case(
        {
            **DP_ON,
            "training.dp_sgd.enabled": True,
            "training.dp_sgd.noise_multiplier": 1.0,
        },
        [{f"{DP}.enabled": False}, {"training.dp_sgd.enabled": False}],
    ),
    "unknown steps": Case(
        {
            "training.dp_sgd.enabled": True,
            "training.dp_sgd.target_epsilon": 3.0,
            "federation.local_work.unit": "images_per_round",
        },
        [
            {"federation.local_work.unit": "steps"},
            {"federation.local_work.unit": "epochs"},
            {"training.dp_sgd.noise_multiplier": 1.0, "training.dp_sgd.target_epsilon": None},
        ],
    ),
    "rounds made twice": Case(
        {**DP_ON, "federation.secret_noise": True, "federation.checkpoint_every": 2},
        [{"federation.checkpoint_every": 1}, {"federation.secret_noise": False}],
    ),
    "privacy with BatchNorm": Case({**DP_ON, **GAN}, [{"model.family": "diffusion"}]),
    "privacy with scores": Case({**DP_ON, **FILTER}, [{"threshold_filter.enabled": False}]),
    "noise of counts": Case(
        {f"{DP}.adaptive.count_noise": 0.4},
        [{f"{DP}.adaptive.count_noise": 0.51}],
        attempt=lambda s: _update_noise(1.0, s[f"{DP}.adaptive.count_noise"]),
    ),
    "halves under a rule": Case(
        {PARTIAL: "usplit", **KRUM},
        [{"federation.aggregation.rule": "mean"}, {PARTIAL: "full"}],
    ),
    "halves that are clipped": Case(
        {PARTIAL: "usplit", "federation.aggregation.clip_norm.bound": 1.0},
        [{"federation.aggregation.clip_norm.bound": None}],
    ),
    "one client is not private": Case(
        {**DP_ON, "federation.pooled": True},
        [{f"{DP}.enabled": False}, {"federation.pooled": False}],
    ),
    "two aggregations": Case(
        {**DP_ON, "federation.aggregation.clip_norm.bound": 1.0},
        [{"federation.aggregation.clip_norm.bound": None}, {f"{DP}.placement": "local"}],
    ),
    "work that depends on others": Case(
        {**DP_ON, "federation.local_work.unit": "images_per_round"},
        [{"federation.local_work.unit": "steps"}, {"federation.local_work.unit": "epochs"}],
    ),
    "classes without labels": Case({**LABELS, **IID}, [{CONDITION: "none"}], sizes=None),
    "shares that nobody knows": Case(
        {**LABELS, "federation.engine": "deployment"},
        [{SHARES: "uniform"}, {SHARES: [0.1] * 10}],
    ),
    "a rule that drowns rare classes": Case(
        {**LABELS, **KRUM},
        [{"federation.aggregation.rule": "mean"}, {PERSONAL: ["class_embedding"]}],
    ),
    "weights of a GAN's timesteps": Case(
        {**GAN, "training.loss_weighting": "min_snr"}, [{"training.loss_weighting": "none"}]
    ),
    "timesteps of a GAN": Case(
        {**GAN, "training.timestep_distribution": "logit_normal"},
        [{"training.timestep_distribution": "uniform"}],
    ),
    "adapters of a GAN": Case({**GAN, "model.lora.rank": 2}, [{"model.lora.rank": 0}]),
    "nothing to adapt": Case({"model.lora.rank": 2}, [{"model.lora.rank": 0}]),
    "weights of a flow": Case(
        {**FLOW, "training.loss_weighting": "min_snr"},
        [{"training.loss_weighting": "none"}],
    ),
    "a flow by a sampler of others": Case(
        {"model.noise.prediction_type": "flow"},
        [{"sampling.sampler": "euler"}, {"sampling.sampler": "heun"}],
    ),
    "a flow in other steps": Case(
        {**FLOW, "sampling.timestep_spacing": "leading"},
        [{"sampling.timestep_spacing": "trailing"}],
    ),
    "no signal in the noise": Case(
        {"model.noise.zero_terminal_snr": True, "model.noise.prediction_type": "epsilon"},
        [
            {"model.noise.prediction_type": "v_prediction"},
            {"model.noise.zero_terminal_snr": False},
        ],
    ),
    "gradients of a GAN's single images": Case(
        {**GAN, "training.dp_sgd.enabled": True, "training.dp_sgd.noise_multiplier": 1.0},
        [{"training.dp_sgd.enabled": False}],
    ),
    "guidance of a GAN": Case({**LABELS, **GAN, GUIDANCE: 2.0}, [{GUIDANCE: 1.0}]),
    "labels that a GAN hides": Case(
        {**LABELS, **GAN, "model.label_dropout": 0.2}, [{"model.label_dropout": 0.1}]
    ),
    "a label to hide": Case({"model.label_dropout": 0.2}, [{CONDITION: "labels"}]),
    "a bound that is not used": Case(
        {"training.min_snr_gamma": 2.0}, [{"training.loss_weighting": "min_snr"}]
    ),
    "noise that images choose": Case(
        {
            "training.dp_sgd.enabled": True,
            "training.dp_sgd.noise_multiplier": 1.0,
            "training.noise_assignment": "immiscible",
        },
        [{"training.noise_assignment": "random"}],
    ),
    "guidance away from nothing": Case(
        {**LABELS, "model.label_dropout": 0.0, GUIDANCE: 2.0},
        [{"model.label_dropout": 0.1}, {GUIDANCE: 1.0}],
    ),
    "shares of other classes": Case(
        {**LABELS, SHARES: [0.5, 0.5]},
        [{SHARES: [0.1] * 10}, {SHARES: "as_training"}, {SHARES: "uniform"}],
    ),
    "guidance without classes": Case({GUIDANCE: 2.0}, [{CONDITION: "labels"}, {GUIDANCE: 1.0}]),
    "strategies in one place": Case(
        {"federation.pooled": True, "federation.strategies": {"fedprox": {}}},
        [{"federation.strategies": None}],
    ),
    "variates of classes": Case(
        {"model.conditioning": "labels", "federation.strategies": {"scaffold": {}}},
        [{"model.conditioning": "none"}],
    ),
    "variates of halves": Case(
        {PARTIAL: "usplit", "federation.strategies": {"scaffold": {}}},
        [{PARTIAL: "full"}],
    ),
    "attendance of nodes": Case(
        {"federation.engine": "deployment", "federation.attendance": {0: "2-"}},
        [{"federation.attendance": {}}, {"federation.engine": "in_process"}],
    ),
    "compiled gradients by image": Case(
        {
            "training.dp_sgd.enabled": True,
            "training.dp_sgd.noise_multiplier": 1.0,
            "training.compile": True,
        },
        [{"training.compile": False}],
    ),
    "few samples": Case(
        {"sampling.num_images": 1, "evaluation.kid_subset_size": 50},
        [{"sampling.num_images": 250}],
        attempt=measure,
    ),
    "few samples for the Inception Score": Case(
        {"sampling.num_images": 15, "evaluation.kid_subset_size": 10},
        [{"sampling.num_images": 250}],
        attempt=measure,
    ),
    "few samples of a class": Case(
        {"sampling.num_images": 60, "evaluation.kid_subset_size": 50},
        [{"sampling.num_images": 250}],
        attempt=measure,
    ),
    "subsets of KID": Case(
        {"sampling.num_images": 150},
        [read(r"2 to (\d+)", "evaluation.kid_subset_size")],
        attempt=measure,
    ),
    "many neighbours": Case(
        {"evaluation.nearest_k": 100, "evaluation.kid_subset_size": 50},
        [{"evaluation.nearest_k": 99}],
        attempt=measure,
    ),
    "a subset without some classes": Case(
        {"images.max_train_images": 9},
        [{"images.max_train_images": 10}],
        attempt=lambda s: take_stratified(
            make_images(8, BALANCED), s["images.max_train_images"], 0
        ),
    ),
    "a split without some classes": Case(
        {"images.test_fraction": 0.01},
        [{"images.test_fraction": 0.05}],
        attempt=lambda s: split_held_out(make_images(8, BALANCED), s["images.test_fraction"], 0),
    ),
    "no such GPU": Case(
        {"run.device": "cuda:93"},
        [{"run.device": "auto"}, {"run.device": "cpu"}],
        attempt=lambda s: resolve_device(s["run.device"]),
    ),
    "a late attack": Case(
        {"privacy_audit.secmi_timestep": 0.95},
        [{"privacy_audit.secmi_timestep": 0.8}],
        attempt=groups_of,
    ),
}


def start(name: str, settings: Settings, tmp_path: Path) -> str:
    """Return the message that ``settings`` get; empty where they are taken."""
    case = CASES[name]
    try:
        if case.attempt is not None:
            case.attempt(settings)
        else:
            start_arm(settings, tmp_path, case.sizes, case.num_test)
    except ValidationError as error:
        return str(error)
    except PhoenixError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", CASES)
def test_every_remedy_that_a_message_names_helps(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    message = start(name, case.start, tmp_path)
    assert message
    for remedy in case.remedies:
        advised = remedy(message) if callable(remedy) else remedy
        for setting in advised:
            named = setting.removeprefix("federation.") if "Value error" in message else setting
            assert named in message or setting.rpartition(".")[0] in message, setting
        assert start(name, {**case.start, **advised}, tmp_path) == ""


# Where following the advice takes more than a moment, or what a test machine need not have.
ELSEWHERE = {
    "arms/checks.py: model.conditioning is \x00, but models of": "a family of one's own",
    "images/": "tests/images follow them with files of each kind",
    "federated/engines/": "Ray, or nodes",
    "api/dry_run.py": "tests/api/test_dry_run.py",
    "federated/run_state.py": "tests/federated/test_resuming.py",
    "federated/strategy.py": "clients that are away",
    "federated/aggregation/robust.py": "clients that are away",
    "federated/aggregation/private_mean.py": "no model here has integers beside BatchNorm",
    "metrics/inception.py": "a file of weights",
    "metrics/network_file.py": "tests/metrics/test_own_judge.py, with files",
    "metrics/feature_extractor.py": "an argument, no setting",
    "metrics/label_judge.py": "an argument, no setting",
    "metrics/monitoring.py: samples": "an argument, no setting",
    "metrics/utility.py": "tests/metrics/test_utility.py: two trainings",
    "metrics/judge_training.py": "a training that diverges",
    "optimization/work.py": "a training that diverges",
    "diffusion/sampling.py": "a training that diverged",
    "diffusion/dp_sgd.py": "an argument, no setting",
    "gan/training.py": "a training that diverges",
    "gan/sampling.py": "a training that diverged",
    "families/dcgan.py": "an argument, no setting",
    "families/one_loss.py": "a training that diverges",
    "families/family.py": "tests/diffusion/test_start.py, with folders",
    "arms/splits.py": "test images of another size",
    "diffusion/start.py": "tests/diffusion/test_start.py, with folders",
    "families/classes.py: sampling.class_distribution is as_training": "samples of a deployment",
    "federated/privacy/client_level.py": "a training that diverges",
    "diffusion/lora.py": "an extra that is not installed",
    "registry.py": "tests/test_extending.py",
    "pipelines/privacy_audit/subject.py": "a deployment",
    "arms/checks.py: model.start_from": "tests/federated/test_latents.py, with folders",
    "families/latents.py": "tests/federated/test_latents.py, with folders",
    "latents/space.py": "tests/latents/test_autoencoder.py, with folders",
    "latents/training.py": "a training that diverges",
}


def test_every_message_that_advises_is_followed_here(tmp_path: Path) -> None:
    raised = [" ".join(start(name, CASES[name].start, tmp_path).split()) for name in CASES]
    left = []
    for place, template in advising_messages():
        known = any(f"{place}: {template}".startswith(prefix) for prefix in ELSEWHERE)
        pattern = re.escape(template).replace(re.escape(HOLE), ".*")
        if not known and not any(re.search(pattern, message) for message in raised):
            left.append(f"{place}: {template}")
    assert left == []


def test_every_name_in_a_message_is_a_setting() -> None:
    unknown = [
        f"{place}: {name}"
        for place, template in messages()
        for name in NAME.findall(template)
        if not is_setting(name)
    ]
    assert unknown == []


def is_setting(name: str) -> bool:
    group, *path = name.split(".")
    model: Any = GROUPS[group]
    for step in path:
        fields = getattr(model, "model_fields", {})
        if step not in fields:
            return False
        model = fields[step].annotation
    return True


HOLE = "\x00"


def advising_messages() -> Iterator[tuple[str, str]]:
    return ((p, text) for p, text in messages() if NAME.search(text) and ADVISES.search(text))


def messages() -> Iterator[tuple[str, str]]:
    """Yield (file, text) of every exception that is raised; what is filled in is a hole."""
    for path in sorted(PACKAGE.rglob("*.py")):
        place = str(path.relative_to(PACKAGE))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                yield place, " ".join(written(node.exc.args[0], constants).split())


def written(node: ast.AST, constants: Mapping[str, Any]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(written(part, constants) for part in node.values)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        return str(constants.get(node.value.id, HOLE))
    if isinstance(node, ast.BinOp):
        return written(node.left, constants) + written(node.right, constants)
    return HOLE
