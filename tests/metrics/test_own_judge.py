"""Label judges from files: what they see, that they are measured, and what is refused."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from phoenix_pipeline.config import ClassifierConfig, EvaluationConfig, JudgeFileConfig
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.components import available_extractors
from phoenix_pipeline.metrics.label_judge import load_judge, measure_own_judge, save_judge
from phoenix_pipeline.metrics.network_file import prepare_images

CPU = torch.device("cpu")
Digits = tuple[ImageSet, ImageSet]


class Nearest(nn.Module):
    """Logits: negative squared distances of images in 0..1 to the mean image of each class."""

    def __init__(self, train: ImageSet) -> None:
        super().__init__()
        assert train.labels is not None
        flat = torch.from_numpy(train.images).flatten(1).float() / 255
        labels = torch.from_numpy(train.labels)
        means = torch.stack([flat[labels == c].mean(0) for c in range(train.num_classes)])
        self.layer = nn.Linear(flat.shape[1], train.num_classes)
        self.layer.weight = nn.Parameter(2 * means)
        self.layer.bias = nn.Parameter(-means.square().sum(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


@pytest.fixture(scope="module")
def script(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judges") / "nearest.pt"
    save_script(Nearest(digits[0]), path)
    return path


def save_script(network: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; its files are still around
        torch.jit.save(torch.jit.script(network.eval()), path)


def save_onnx(network: Nearest, path: Path, shape: tuple[str | int, ...]) -> None:
    import onnx

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    arrays = {
        "w": network.layer.weight.detach().numpy().T.copy(),
        "b": network.layer.bias.detach().numpy(),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["y"]),
        ],
        "nearest",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info("y", kind, [shape[0], 10])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def config(path: Path, **file: Any) -> ClassifierConfig:
    return ClassifierConfig(file=JudgeFileConfig(path=str(path), **file))


def expected(digits: Digits) -> tuple[np.ndarray, float]:
    """Class probabilities of the test images by the nearest mean, and their accuracy."""
    test = digits[1]
    with torch.no_grad():
        logits = Nearest(digits[0])(torch.from_numpy(test.images).float() / 255)
    accuracy = (logits.argmax(1).numpy() == test.labels).mean()
    return logits.softmax(1).numpy(), float(accuracy)


def test_torchscript_and_onnx_give_the_networks_own_answers(
    digits: Digits, script: Path, tmp_path: Path
) -> None:
    save_onnx(Nearest(digits[0]), tmp_path / "nearest.onnx", ("n", 1, 8, 8))
    probabilities, accuracy = expected(digits)
    assert accuracy > 0.85
    for path in (script, tmp_path / "nearest.onnx"):
        judge = measure_own_judge(*digits, config(path), CPU)
        np.testing.assert_allclose(
            judge.probabilities(digits[1].images), probabilities, rtol=1e-3, atol=1e-5
        )
        assert (judge.test_accuracy, judge.origin) == (pytest.approx(accuracy), path.name)
        assert judge.class_counts == tuple(np.bincount(digits[0].labels).tolist())


def test_outputs_in_another_order_and_probabilities_are_understood(
    digits: Digits, tmp_path: Path
) -> None:
    class Reversed(Nearest):
        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1)).softmax(1).flip(1)

    path = tmp_path / "reversed.pt"
    save_script(Reversed(digits[0]), path)
    names = tuple(reversed(digits[0].class_names))
    settings = config(path, classes=names, outputs="probabilities")
    judge = measure_own_judge(*digits, settings, CPU)
    probabilities, accuracy = expected(digits)
    np.testing.assert_allclose(
        judge.probabilities(digits[1].images), probabilities, rtol=1e-3, atol=1e-5
    )
    assert judge.test_accuracy == pytest.approx(accuracy)


def test_images_are_prepared_as_described() -> None:
    grey = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)
    rgb = torch.tensor([255, 0, 51], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)

    def prepared(images: Tensor, **file: Any) -> list[float]:
        return prepare_images(images, JudgeFileConfig(**file)).flatten().tolist()

    assert prepared(grey) == pytest.approx([0, 1, 0.2, 0.4])
    assert prepared(grey, value_range="-1..1") == pytest.approx([-1, 1, -0.6, -0.2])
    assert prepared(grey, value_range="0..255") == [0, 255, 51, 102]
    assert prepared(grey, mean=(0.5,), std=(0.25,)) == pytest.approx([-2, 2, -1.2, -0.4])
    assert prepared(grey, channels=3) == pytest.approx([0, 1, 0.2, 0.4] * 3)
    luma = 0.299 + 0.114 * 0.2
    assert prepared(rgb, channels=1) == pytest.approx([luma] * 4)
    normalised = prepared(rgb, mean=(0.5, 0.25, 0.2), std=(0.5, 0.5, 2.0))
    assert normalised == pytest.approx([1] * 4 + [-0.5] * 4 + [0] * 4)
    assert prepare_images(rgb, JudgeFileConfig(image_size=5)).shape == (1, 3, 5, 5)
    assert prepared(rgb, image_size=5, channels=1) == pytest.approx([luma] * 25)


def test_a_measurement_is_kept_until_the_file_or_the_images_change(
    digits: Digits, script: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.pt"
    own.write_bytes(script.read_bytes())
    judge = measure_own_judge(*digits, config(own), CPU)
    assert load_judge(tmp_path, *digits, config(own), CPU) is None
    save_judge(tmp_path, judge)
    again = load_judge(tmp_path, *digits, config(own), CPU)
    assert again is not None
    assert (again.test_accuracy, again.fingerprint) == (judge.test_accuracy, judge.fingerprint)
    train, test = digits
    assert load_judge(tmp_path, train, test.subset(slice(9)), config(own), CPU) is None
    settings = config(own, value_range="-1..1")
    assert load_judge(tmp_path, *digits, settings, CPU) is None
    save_script(Nearest(train.subset(slice(100, None))), own)
    assert load_judge(tmp_path, *digits, config(own), CPU) is None


def test_such_a_judge_gives_no_features(digits: Digits, script: Path) -> None:
    judge = measure_own_judge(*digits, config(script), CPU)
    asked = EvaluationConfig(extractors=("fid_classifier", "fid_pixels"))
    found, skipped = available_extractors(asked, 1, 8, judge, CPU)
    assert [extractor.name for extractor in found] == ["fid_pixels"]
    assert "from a file" in skipped["fid_classifier"]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"outputs": "probabilities"}, "set it to logits"),
        ({"classes": ("a", "b")}, "file.classes is .'a', 'b'.; allowed are the images' classes"),
        ({"mean": (0.5,) * 3, "std": (1.0,) * 3}, "3 values for 1 channel"),
        ({"image_size": 16}, "does not take images of shape .8, 1, 16, 16"),
        ({"channels": 3}, "does not take images of shape .8, 3, 8, 8"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    digits: Digits, script: Path, file: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        measure_own_judge(*digits, config(script, **file), CPU)
    assert "\n" not in str(caught.value)


def test_other_numbers_of_classes_and_outputs_are_refused(digits: Digits, tmp_path: Path) -> None:
    train, test = digits
    few = ImageSet(test.images[test.labels < 9], test.labels[test.labels < 9], tuple("012345678"))
    save_script(Nearest(train), tmp_path / "ten.pt")
    with pytest.raises(SettingsError, match="has 10 outputs, and the images have 9 classes"):
        measure_own_judge(train, few, config(tmp_path / "ten.pt"), CPU)
    save_script(nn.Identity(), tmp_path / "identity.pt")
    with pytest.raises(SettingsError, match=r"gives \(8, 1, 8, 8\) for 8 images"):
        measure_own_judge(*digits, config(tmp_path / "identity.pt"), CPU)


def test_onnx_of_a_fixed_batch_is_refused(digits: Digits, tmp_path: Path) -> None:
    save_onnx(Nearest(digits[0]), tmp_path / "one.onnx", (1, 1, 8, 8))
    with pytest.raises(SettingsError, match="export it with any batch size"):
        measure_own_judge(*digits, config(tmp_path / "one.onnx"), CPU)


@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
def test_broken_files_are_named(digits: Digits, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    with pytest.raises(SettingsError, match="not a file"):
        measure_own_judge(*digits, config(path), CPU)
    path.write_bytes(b"no network" * 100)
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        measure_own_judge(*digits, config(path), CPU)
    assert "\n" not in str(caught.value)


def test_weights_alone_are_no_judge(digits: Digits, tmp_path: Path) -> None:
    torch.save(Nearest(digits[0]).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="not its weights alone"):
        measure_own_judge(*digits, config(tmp_path / "weights.pt"), CPU)


@pytest.mark.parametrize("suffix", [".pt2", ".pth", ".safetensors", ".pkl"])
def test_other_kinds_are_refused_unread(digits: Digits, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"judge{suffix}"
    path.write_bytes(b"")
    with pytest.raises(SettingsError, match=r"torch\.onnx\.export"):
        measure_own_judge(*digits, config(path), CPU)


def test_a_judge_no_better_than_chance_is_pointed_out(
    digits: Digits, script: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rolled = tuple([*digits[0].class_names[5:], *digits[0].class_names[:5]])
    judge = measure_own_judge(*digits, config(script, classes=rolled), CPU)
    assert judge.test_accuracy < 0.2
    assert "compare value_range" in caplog.text


@pytest.mark.parametrize(
    "file",
    [
        {"mean": (0.5,)},
        {"mean": (0.5, 0.5), "std": (1.0, 1.0)},
        {"mean": (0.5,), "std": (0.0,)},
        {"classes": ("a", "a")},
        {"value_range": "0..2"},
    ],
)
def test_impossible_descriptions_are_refused(file: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"allowed|Input should be"):
        JudgeFileConfig(**file)
