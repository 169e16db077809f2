"""Draw images from an arm's model, one seed per image."""

from collections.abc import Callable, Iterator
from pathlib import Path

from PIL.Image import Image

from phoenix_pipeline.arms.sampling import (
    Batch,
    class_names_of,
    follow_plan,
    plan_labels,
    plan_samples,
)
from phoenix_pipeline.config import ArmSettings, ModelConfig, RunConfig
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import (
    SampleWriter,
    image_grid,
    pick_evenly,
    read_samples,
)
from phoenix_pipeline.pipelines.sampling.parts import SampleParts
from phoenix_pipeline.progress import progress_bar
from phoenix_pipeline.seeding import image_seeds


def draw_samples(model_folder: Path, arm: ArmSettings, run: RunConfig) -> Callable[[Path], None]:
    """Return a function that streams the samples into a Parquet file, batch by batch.

    They come from the global model, or from the clients' models in proportion to what they hold;
    where there are both, from the clients first and then as many from the global model. What the
    model is, its own folder says. The file says how its samples were drawn, and from which weights.
    After a kill the same function goes on behind the last part that was kept.
    """
    from phoenix_pipeline.families.model_folder import read_metadata, weights_digest

    device, sampling = resolve_device(run.device), arm.sampling
    metadata = read_metadata(model_folder)
    settings = metadata["settings"]
    model = ModelConfig.model_validate(settings["model"])
    shape = (settings["channels"], settings["image_size"], settings["image_size"])
    plan = plan_samples(metadata, sampling.num_images)
    labels = plan_labels(metadata, plan, sampling)
    total = sum(plan.values())
    seeds = list(image_seeds(run.seed, "sample", total))
    digest = weights_digest(model_folder)
    drawn = {
        "weights_digest": digest,
        "weights": metadata["weights"],
        "family": model.family,
        "sampling": sampling.model_dump(mode="json"),
        "seed": run.seed,
    }
    identity = {
        "weights": digest,
        "model": model.model_dump(mode="json"),
        "sampling": sampling.model_dump(mode="json", exclude={"grid_images"}),
        "plan": sorted(plan.items()),
        "labels": labels,
        "seed": run.seed,
        "device": str(device),
    }

    def draw(done: int) -> Iterator[Batch]:
        return follow_plan(plan, seeds, model_folder, model, sampling, shape, device, done, labels)

    def write(path: Path) -> None:
        parts = SampleParts(path, identity)
        names = class_names_of(metadata)
        with SampleWriter(path, drawn, names) as writer, progress_bar("sampling", total) as advance:
            for batch in parts.continued(draw):
                writer.write(*batch)
                advance(len(batch[0]))
        parts.remove()

    return write


def draw_grid(samples_file: Path, arm: ArmSettings) -> Image:
    """Return samples spread evenly over the file, none picked, in one picture."""
    return image_grid(pick_evenly(read_samples(samples_file), arm.sampling.grid_images))
