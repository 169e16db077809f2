"""A sampling that was cut off goes on behind its last part, with the same images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phoenix_pipeline.arms.sampling import Drawing
from phoenix_pipeline.config import ArmSettings, RunConfig, SamplingConfig
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.families.model_folder import read_description, write_models
from phoenix_pipeline.images import read_samples
from phoenix_pipeline.pipelines.sampling import nodes
from tests.federated.tiny import UNET, settings
from tests.written import training_record

SAMPLING = SamplingConfig(num_images=10, batch_size=3, num_steps=2)


@pytest.fixture(params=[(), ("cat", "dog")], ids=["unconditional", "conditional"])
def models(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two clients' models; a part is written after each batch."""
    monkeypatch.setattr(nodes, "BETWEEN_PARTS_S", 0.0)
    names: tuple[str, ...] = request.param
    unet = build_unet(UNET, 1, 8, 0, len(names))
    state = unet.state_dict()
    layers = {name: tensor for name, tensor in state.items() if name.startswith("conv_out")}
    told = settings(("conv_out",))
    if names:
        model = told.model.model_copy(update={"conditioning": "labels"})
        told = told.model_copy(update={"model": model, "class_names": names})
    metadata = training_record(
        told.model_dump(mode="json"),
        class_counts={"0": [5, 2], "1": [0, 3]},
        num_examples={"0": 7, "1": 3},
    )
    body = {name: tensor for name, tensor in state.items() if name not in layers}
    others = {name: tensor + 0.1 for name, tensor in layers.items()}
    write_models(tmp_path / "model", body, [(0, layers), (1, others)], None, metadata)
    return tmp_path / "model"


def draw(models: Path, target: Path, **changes: Any) -> bytes:
    sampling = SAMPLING.model_copy(update=changes)
    nodes.draw_samples(models, ArmSettings(sampling=sampling), RunConfig(device="cpu"))(target)
    return target.read_bytes()


def cut_after(batches: int, monkeypatch: pytest.MonkeyPatch, seen: list[int]) -> None:
    """Let the next sampling end like a killed process; note how many batches it draws."""
    follow = Drawing.batches

    def cut(drawing: Drawing, done: int) -> Iterator[nodes.Batch]:
        for number, batch in enumerate(follow(drawing, done), start=1):
            seen.append(len(batch[0]))
            yield batch
            if number == batches:
                raise KeyboardInterrupt

    monkeypatch.setattr(Drawing, "batches", cut)


@pytest.mark.parametrize("batches", [1, 3, 4])
def test_a_cut_sampling_ends_with_the_same_file(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    whole = draw(models, tmp_path / "whole.parquet")
    seen: list[int] = []
    with monkeypatch.context() as patched:
        cut_after(batches, patched, seen)
        with pytest.raises(KeyboardInterrupt):
            draw(models, tmp_path / "cut.parquet")
        assert not (tmp_path / "cut.parquet").exists()
    folder = tmp_path / ".cut.parts"
    assert len(list(folder.iterdir())) == batches
    with monkeypatch.context() as patched:
        cut_after(99, patched, seen)
        assert draw(models, tmp_path / "cut.parquet") == whole
    assert seen == [3, 3, 1, 3]
    assert not folder.exists()


def test_parts_of_another_sampling_and_broken_ones_are_not_used(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "cut.parquet"
    whole = draw(models, tmp_path / "whole.parquet")
    other = draw(models, tmp_path / "other.parquet", num_steps=3)
    for expected, steps in ((whole, 2), (other, 3)):
        with monkeypatch.context() as patched:
            cut_after(3, patched, [])
            with pytest.raises(KeyboardInterrupt):
                draw(models, target)
        assert draw(models, target, num_steps=steps) == expected
    with monkeypatch.context() as patched:
        cut_after(3, patched, [])
        with pytest.raises(KeyboardInterrupt):
            draw(models, target)
    broken = tmp_path / ".cut.parts/part-00001.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    assert draw(models, target) == whole
    assert "the images from there on are drawn again" in caplog.text


def test_the_classes_of_the_samples_are_in_their_file(models: Path, tmp_path: Path) -> None:
    draw(models, tmp_path / "whole.parquet")
    labels = read_samples(tmp_path / "whole.parquet").labels
    if labels is None:
        assert not read_description(models)["settings"]["class_names"]
        return
    # Seven of client 0, which holds five cats and two dogs; three of client 1, which has dogs.
    assert sorted(labels[:7].tolist()) == [0, 0, 0, 0, 0, 1, 1]
    assert labels[7:].tolist() == [1, 1, 1]
