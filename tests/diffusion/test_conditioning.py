"""A conditional U-Net: which labels a step sees, which rows move, and what guidance predicts."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from phoenix_pipeline.config import (
    DpSgdConfig,
    ModelConfig,
    NoiseConfig,
    SamplingConfig,
    TrainingConfig,
    UNetConfig,
)
from phoenix_pipeline.diffusion.batches import Condition
from phoenix_pipeline.diffusion.dp_sgd import per_image_gradients
from phoenix_pipeline.diffusion.noise import Batch
from phoenix_pipeline.diffusion.sampling import Guidance, sample_images
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.diffusion.unet_inference import predict_at
from phoenix_pipeline.families.diffusion import DiffusionFamily
from phoenix_pipeline.optimization.class_rows import EMBEDDING
from phoenix_pipeline.optimization.corrections import StepPull
from phoenix_pipeline.optimization.work import ClientTask, LocalWork

UNET = UNetConfig(block_out_channels=(8, 16), attention_resolutions=(4,), norm_num_groups=4)
MODEL = ModelConfig(unet=UNET, conditioning="labels", label_dropout=0.5)
CLASSES, NULL = 4, 4
SHAPE = (1, 8, 8)


def network(seed: int = 0) -> Any:
    return build_unet(UNET, 1, 8, seed, CLASSES)


def images(count: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, *SHAPE), generator=generator, dtype=torch.uint8)


def settings(**options: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"batch_size": 4, "lr_warmup": 0.0, **options})


def labels_of(*held: int) -> Tensor:
    return torch.tensor([held[i % len(held)] for i in range(12)])


def work(seed: int = 3, **options: Any) -> LocalWork:
    return LocalWork(4, 0.0, 0.5, seed, **options)


def test_labels_follow_their_images_and_are_dropped_as_often_as_asked() -> None:
    labels, generator = torch.arange(4), torch.Generator().manual_seed(0)
    assert Condition(labels, NULL, 0.0).at(torch.tensor([2, 0])).draw(generator).tolist() == [2, 0]
    drawn = Condition(labels, NULL, 0.25).at(torch.full((4000,), 3)).draw(generator)
    assert set(drawn.tolist()) == {3, NULL}
    assert float((drawn == NULL).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_only_rows_of_held_classes_and_the_null_class_move() -> None:
    unet = network()
    before = unet.get_parameter(EMBEDDING).detach().clone()
    everywhere = {n: torch.ones_like(p) for n, p in unet.named_parameters()}
    told = settings(weight_decay=0.1)
    pull = (lambda shared, _: StepPull(shared, everywhere, 0.5),)
    given = work(from_server=frozenset(everywhere), corrections=pull)
    DiffusionFamily().train_locally(
        unet, ClientTask(images(), given, labels=labels_of(1, 3)), MODEL, told
    )
    moved = (unet.get_parameter(EMBEDDING) != before).any(dim=1)
    assert moved.tolist() == [False, True, False, True, True]


def test_dp_sgd_moves_all_rows_alike_since_rest_would_tell_the_classes() -> None:
    unet = network()
    before = unet.get_parameter(EMBEDDING).detach().clone()
    private = DpSgdConfig(enabled=True, clip_norm=1.0, noise_multiplier=1.0)
    given = work(noise_multiplier=1.0)
    told = settings(dp_sgd=private)
    DiffusionFamily().train_locally(
        unet, ClientTask(images(), given, labels=labels_of(1)), MODEL, told
    )
    assert (unet.get_parameter(EMBEDDING) != before).any(dim=1).all()


def test_gradients_image_by_image_are_those_of_each_alone() -> None:
    unet = network()
    generator = torch.Generator().manual_seed(1)
    x, target = torch.randn(2, 3, *SHAPE, generator=generator)
    batch = Batch(x, torch.tensor([3, 500, 999]), target, torch.tensor([1, 4, 0]))
    gradients, _ = per_image_gradients(unet, batch, settings())
    for i, label in enumerate((1, 4, 0)):
        rows = gradients[EMBEDDING][i].abs().sum(dim=1)
        assert (rows > 0).nonzero().flatten().tolist() == [label]


def test_stacked_clients_end_where_they_end_one_after_another() -> None:
    config = settings(weight_decay=0.1)
    ends = []
    for held, seed in (((0, 1), 7), ((2,), 8)):
        unet = network()
        DiffusionFamily().train_locally(
            unet, ClientTask(images(), work(seed), labels=labels_of(*held)), MODEL, config
        )
        ends.append(unet.state_dict())
    unet = network()
    tasks = [
        ClientTask(
            images(),
            work(seed),
            labels=labels_of(*held),
            weights={n: p.clone() for n, p in unet.state_dict().items()},
        )
        for held, seed in (((0, 1), 7), ((2,), 8))
    ]
    DiffusionFamily().train_stacked(unet, tasks, MODEL, config)
    for task, expected in zip(tasks, ends, strict=True):
        for name, value in expected.items():
            # Its gradient is zero: AdamW makes steps of its rounding.
            if not name.endswith("to_k.bias"):
                torch.testing.assert_close(task.weights[name], value, rtol=1e-3, atol=2e-4)
        rest = task.weights[EMBEDDING][3]
        assert torch.equal(rest, unet.get_parameter(EMBEDDING)[3])


@torch.inference_mode()
@pytest.mark.parametrize("labels", [[0, 3, 1], [2, 2, 2], [NULL, 0, NULL]])
def test_fast_predictions_are_those_of_diffusers(labels: list[int]) -> None:
    unet, steps = network().eval(), torch.tensor([999, 500, 0])
    x, classes = torch.randn(3, *SHAPE), torch.tensor(labels)
    predict = predict_at(unet, steps, 8, torch.float32, classes)
    for i, t in enumerate(steps):
        expected = unet(x, t, classes, return_dict=False)[0]
        torch.testing.assert_close(predict(x, i), expected, rtol=1e-4, atol=2e-5)


@torch.inference_mode()
def test_guidance_goes_from_any_class_through_one_class_and_beyond() -> None:
    unet, steps = network().eval(), torch.tensor([500])
    x, classes = torch.randn(2, *SHAPE), torch.tensor([1, 3])
    of_class = unet(x, steps[0], classes, return_dict=False)[0]
    of_any = unet(x, steps[0], torch.full_like(classes, NULL), return_dict=False)[0]
    for scale in (0.0, 1.0, 2.5):
        guidance = Guidance.of(unet, classes, scale)
        assert len(guidance.labels) == (4 if scale == 2.5 else 2)
        predict = guidance.guided(predict_at(unet, steps, 8, torch.float32, guidance.labels))
        expected = of_any + scale * (of_class - of_any)
        torch.testing.assert_close(predict(x, 0), expected, rtol=1e-4, atol=1e-4)


def draw(seeds: list[int], labels: list[int], **options: Any) -> np.ndarray:
    unet = network(1)
    torch.nn.init.normal_(unet.get_parameter(EMBEDDING), std=3.0)
    told = SamplingConfig.model_validate({"num_steps": 3, "batch_size": 2, **options})
    noise = NoiseConfig()
    batches = sample_images(unet, noise, told, SHAPE, seeds, "cpu", labels=labels)
    return np.concatenate(list(batches))


def test_an_image_depends_on_its_seed_and_its_class_alone() -> None:
    torch.manual_seed(0)
    whole = draw([1, 2, 3, 4, 5], [0, 1, 2, 3, 0], guidance_scale=2.0)
    torch.manual_seed(0)
    alone = draw([4], [3], guidance_scale=2.0)
    assert np.abs(whole[3].astype(int) - alone[0]).max() <= 1
    torch.manual_seed(0)
    other = draw([4], [1], guidance_scale=2.0)
    assert np.abs(alone[0].astype(int) - other[0]).max() > 3
