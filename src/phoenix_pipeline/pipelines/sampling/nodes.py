"""Draw images from an arm's model, one seed per image."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from phoenix_pipeline.config import ModelConfig, RunConfig, SamplingConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import (
    GLOBAL_MODEL,
    SampleWriter,
    apportion,
    image_grid,
    pick_evenly,
    read_samples,
)
from phoenix_pipeline.pipelines.progress import progress_bar
from phoenix_pipeline.pipelines.sampling.parts import Batch, SampleParts
from phoenix_pipeline.seeding import derive_seed

if TYPE_CHECKING:
    import torch


def draw_samples(
    model_folder: Path, sampling: SamplingConfig, run: RunConfig
) -> Callable[[Path], None]:
    """Return a function that streams the samples into a Parquet file, batch by batch.

    They come from the global model, or from the clients' models in proportion to what they hold;
    where there are both, from the clients first and then as many from the global model. What the
    model is, its own folder says. The file says how its samples were drawn, and from which weights.
    After a kill the same function goes on behind the last part that was kept.
    """
    from phoenix_pipeline.families.model_folder import read_metadata, weights_digest

    device = resolve_device(run.device)
    metadata = read_metadata(model_folder)
    settings = metadata["settings"]
    model = ModelConfig.model_validate(settings["model"])
    shape = (settings["channels"], settings["image_size"], settings["image_size"])
    plan = plan_samples(metadata, sampling.num_images)
    total = sum(plan.values())
    seeds = [derive_seed(run.seed, "sample", i) for i in range(total)]
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
        "seed": run.seed,
        "device": str(device),
    }

    def draw(done: int) -> Iterator[Batch]:
        return follow_plan(plan, seeds, model_folder, model, sampling, shape, device, done)

    def write(path: Path) -> None:
        parts = SampleParts(path, identity)
        with SampleWriter(path, drawn) as writer, progress_bar("sampling", total) as advance:
            for batch in parts.continued(draw):
                writer.write(*batch)
                advance(len(batch[0]))
        parts.remove()

    return write


def follow_plan(
    plan: Mapping[int, int],
    seeds: Iterable[int],
    model_folder: Path,
    model: ModelConfig,
    sampling: SamplingConfig,
    shape: tuple[int, int, int],
    device: "torch.device",
    done: int = 0,
) -> Iterator[Batch]:
    """Yield batches: uint8 images [B, C, H, W], the client whose model drew them, their seeds.

    ``plan`` is of :func:`plan_samples`; ``seeds`` are used up in its order. The first ``done``
    images, which are whole batches, are left out.
    """
    from phoenix_pipeline.families import family_of
    from phoenix_pipeline.families.model_folder import load_network

    supply = iter(seeds)
    for client_id, count in plan.items():
        own = list(islice(supply, count))
        begun = min(done, count)
        done -= begun
        if begun == count:
            continue
        network = load_network(model_folder, client_id).to(device)
        if sampling.compile:
            network.compile()
        left = own[begun:]
        for batch in family_of(model).sample_images(network, model, sampling, shape, left, device):
            yield batch, client_id, own[begun : begun + len(batch)]
            begun += len(batch)


def plan_samples(metadata: Mapping[str, Any], num_images: int) -> dict[int, int]:
    """Return how many images come from which client's model, -1 being the global one.

    Raises:
        SettingsError: there is no complete model.
    """
    clients = metadata["clients"]
    plan: dict[int, int] = {}
    if clients:
        sizes = [metadata["num_examples"][str(client)] for client in clients]
        counts = apportion(sizes, num_images)
        plan = {client: int(n) for client, n in zip(clients, counts, strict=True) if n}
    if metadata["has_global_model"]:
        plan[GLOBAL_MODEL] = num_images
    if not plan:
        raise SettingsError(
            "there is no model to sample: only the shared layers came back, since no node released "
            "its personal layers; set release-personal-layers=true in the node configuration of "
            "those that agree and run again (nothing is trained anew), or stop after training by "
            "--pipelines federated_training"
        )
    return plan


def draw_grid(samples_file: Path, sampling: SamplingConfig) -> Image:
    """Return samples spread evenly over the file, none picked, in one picture."""
    return image_grid(pick_evenly(read_samples(samples_file), sampling.grid_images))
