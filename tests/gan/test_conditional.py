"""Networks of the DCGAN that know classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from phoenix_pipeline.config import DcganConfig, ModelConfig, PrivacyAuditConfig, TrainingConfig
from phoenix_pipeline.families.dcgan import DcganFamily
from phoenix_pipeline.gan.dcgan import Dcgan, build_dcgan
from phoenix_pipeline.gan.sampling import export_networks, load_networks, sample_images
from phoenix_pipeline.gan.training import train_locally
from phoenix_pipeline.metrics.privacy.membership import membership_scores
from phoenix_pipeline.optimization.work import LocalWork

CLASSES = 3
MODEL = ModelConfig.model_validate(
    {
        "family": "dcgan",
        "conditioning": "labels",
        "dcgan": {"latent_dim": 5, "base_channels": 4, "layers_per_resolution": 1},
    }
)
ROWS = ("generator.class_embedding.weight", "discriminator.class_embedding.weight")


def network(seed: int = 0, config: DcganConfig = MODEL.dcgan) -> Dcgan:
    return build_dcgan(config, 1, 8, seed, CLASSES)


def test_the_projection_adds_what_a_class_has_to_do_with_the_features() -> None:
    judge = network().discriminator.eval()
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = judge.get_parameter("class_embedding.weight")
    features = judge.get_submodule("features")(images)
    alone = judge.get_submodule("head")(features)
    for label in range(CLASSES):
        logits = judge(images, torch.full((2,), label))
        expected = alone + features.sum(dim=(2, 3)) @ rows[label]
        torch.testing.assert_close(logits, expected)


def test_a_class_lengthens_the_latent_vector() -> None:
    gan, latent = network().eval(), torch.randn(2, 5, 1, 1)
    labels = torch.tensor([0, 2])
    rows = gan.generator.get_parameter("class_embedding.weight")
    given = torch.cat([latent, rows[labels][:, :, None, None]], dim=1)
    assert torch.equal(gan(latent, labels), gan.generator.get_submodule("layers")(given))
    assert rows.shape == (CLASSES, 5)


def test_embeddings_begin_as_small_as_all_weights() -> None:
    gan = build_dcgan(DcganConfig(), 1, 8, 0, 200)
    for name in ROWS:
        assert float(gan.get_parameter(name).detach().std()) == pytest.approx(0.02, rel=0.05)


def test_only_the_rows_of_classes_that_are_held_move(images: Tensor) -> None:
    gan = network()
    before = {name: gan.get_parameter(name).detach().clone() for name in ROWS}
    training = TrainingConfig(batch_size=4, weight_decay=0.5)
    labels = torch.tensor([0, 2]).repeat(6)
    train_locally(gan, images, LocalWork(3, 0.0, 1.0, 0), MODEL.dcgan, training, labels=labels)
    for name in ROWS:
        moved = (gan.get_parameter(name) != before[name]).any(dim=1)
        assert moved.tolist() == [True, False, True]


def test_each_class_gets_images_of_its_own() -> None:
    # Class 0 is dark, class 1 light: grey levels up to 95 and from 159.
    labels = torch.arange(2).repeat(32)
    noise = torch.randint(96, (64, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    images = (noise + labels.view(-1, 1, 1, 1) * 159).to(torch.uint8)
    gan = network(config=DcganConfig(latent_dim=5, base_channels=8, layers_per_resolution=1))
    training = TrainingConfig(batch_size=16, learning_rate=2e-3, lr_schedule="constant")
    train_locally(gan, images, LocalWork(100, 0.0, 1.0, 0), MODEL.dcgan, training, labels=labels)
    (drawn,) = sample_images(gan, 40, range(40), "cpu", labels=[0] * 20 + [1] * 20)
    assert drawn[:20].mean() < 100
    assert drawn[20:].mean() > 150


def test_an_image_depends_on_its_seed_and_class_alone() -> None:
    gan, seeds, labels = network(), [4, 5, 6, 7], [0, 1, 2, 1]
    # Untrained embeddings are too small for whole grey levels.
    torch.nn.init.normal_(gan.generator.get_parameter("class_embedding.weight"), std=100.0)
    whole = np.concatenate(list(sample_images(gan, 4, seeds, "cpu", labels)))
    parts = np.concatenate(list(sample_images(gan, 3, seeds, "cpu", labels)))
    np.testing.assert_array_equal(whole, parts)
    (other,) = sample_images(gan, 4, seeds, "cpu", [1, 1, 2, 1])
    assert (other[0] != whole[0]).any()
    np.testing.assert_array_equal(other[1:], whole[1:])


def test_an_export_has_the_classes(tmp_path: Path) -> None:
    gan = network(1)
    export_networks(tmp_path / "model", gan, MODEL, {})
    loaded = load_networks(tmp_path / "model")
    assert loaded.num_classes == CLASSES
    assert all(torch.equal(loaded.state_dict()[n], v) for n, v in gan.state_dict().items())


def test_the_attack_gives_the_discriminator_the_labels(images: Tensor) -> None:
    gan, labels = network().eval(), np.arange(12) % CLASSES
    audit = PrivacyAuditConfig(batch_size=5)
    scores = membership_scores(gan, MODEL, images.numpy(), audit, seed=0, labels=labels)
    pixels = images.float() / 127.5 - 1
    expected = gan.discriminator(pixels, torch.from_numpy(labels)).detach().numpy()
    np.testing.assert_allclose(scores["discriminator"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_what_training_differentiates_runs_once(classes: int) -> None:
    family = DcganFamily()
    assert family.run_once(family.build(MODEL, 1, 8, 0, classes), 1, 8) == 2
