"""Draw images from an arm's model, one seed per image."""

from collections.abc import Callable
from pathlib import Path

from PIL.Image import Image

from phoenix_pipeline.config import ModelConfig, RunConfig, SamplingConfig
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import SampleWriter, image_grid, read_samples
from phoenix_pipeline.pipelines.progress import progress_bar
from phoenix_pipeline.seeding import derive_seed

GLOBAL_MODEL = -1


def draw_samples(
    model_folder: Path,
    model_summary: dict[str, int],
    model: ModelConfig,
    sampling: SamplingConfig,
    run: RunConfig,
) -> Callable[[Path], None]:
    """Return a function that streams the samples into a Parquet file, batch by batch."""
    from phoenix_pipeline.diffusion.export import load_unet
    from phoenix_pipeline.diffusion.sampling import sample_images

    device = resolve_device(run.device)
    unet = load_unet(model_folder).to(device)
    side = model_summary["image_size"]
    shape = (model_summary["channels"], side, side)
    seeds = [derive_seed(run.seed, "sample", i) for i in range(sampling.num_images)]

    def write(path: Path) -> None:
        with SampleWriter(path) as writer, progress_bar("sampling", len(seeds)) as advance:
            done = 0
            for batch in sample_images(unet, model.noise, sampling, shape, seeds, device):
                writer.write(batch, GLOBAL_MODEL, seeds[done : done + len(batch)])
                done += len(batch)
                advance(len(batch))

    return write


def draw_grid(samples_file: Path, sampling: SamplingConfig) -> Image:
    """Return the first samples, as drawn, in one picture."""
    return image_grid(read_samples(samples_file).images.images[: sampling.grid_images])
