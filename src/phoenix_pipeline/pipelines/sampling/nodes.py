"""Draw images from an arm's model, one seed per image, going on behind what was drawn before.

Until the samples' file is complete, parts of it lie beside it. A part holds whole batches, so that
the batches after it are those of an undisturbed run. Samplings that take less than half a minute
write none.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from phoenix_pipeline.arms.sampling import Batch, Drawing, class_names_of, plan_samples
from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.config import ArmSettings, RunConfig
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.images import SampleWriter, image_grid, pick_evenly, read_samples
from phoenix_pipeline.progress import progress_bar

logger = logging.getLogger(__name__)

BETWEEN_PARTS_S = 30.0


class SampleParts:
    """The parts of one sampling; ``identity`` is everything that its images depend on."""

    def __init__(self, samples_file: Path, identity: Mapping[str, Any]) -> None:
        self._folder = samples_file.with_name(f".{samples_file.stem}.parts")
        self._identity = hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def continued(self, draw: Callable[[int], Iterator[Batch]]) -> Iterator[Batch]:
        """Yield the stored batches, then ``draw(their number)``'s; raises StorageError."""
        written = done = 0
        for batches in self._stored():
            written += 1
            for batch in batches:
                done += len(batch[0])
                yield batch
        if done:
            logger.info("%s samples were drawn before; continuing after them", done)
        pending: list[Batch] = []
        since = time.monotonic()
        for batch in draw(done):
            yield batch
            pending.append(batch)
            if time.monotonic() - since >= BETWEEN_PARTS_S:
                self._write(written, pending)
                written, pending, since = written + 1, [], time.monotonic()

    def remove(self) -> None:
        """Remove all parts: the samples are complete."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _stored(self) -> Iterator[list[Batch]]:
        """Yield the batches of each intact part of this sampling; remove what follows them."""
        number = 0
        while self._path(number).exists():
            try:
                tensors, metadata = load_tensors(self._path(number))
            except CheckpointError as error:
                logger.warning("%s; the images from there on are drawn again", error)
                break
            if metadata["identity"] != self._identity:
                break
            yield [
                (
                    tensors[f"images/{i}"].numpy(),
                    client_id,
                    tensors[f"seeds/{i}"].tolist(),
                    tensors[f"labels/{i}"].tolist() if f"labels/{i}" in tensors else None,
                )
                for i, client_id in enumerate(metadata["clients"])
            ]
            number += 1
        # From the last on, so that a kill in between leaves no gap.
        for path in sorted(self._folder.glob("part-*"), reverse=True):
            if path >= self._path(number):
                path.unlink()

    def _write(self, number: int, batches: Sequence[Batch]) -> None:
        import torch

        tensors = {f"images/{i}": torch.from_numpy(b[0]) for i, b in enumerate(batches)}
        tensors |= {f"seeds/{i}": torch.tensor(b[2]) for i, b in enumerate(batches)}
        tensors |= {f"labels/{i}": torch.tensor(b[3]) for i, b in enumerate(batches) if b[3]}
        clients = [batch[1] for batch in batches]
        save_tensors(self._path(number), tensors, {"identity": self._identity, "clients": clients})

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.safetensors"


def draw_samples(model_folder: Path, arm: ArmSettings, run: RunConfig) -> Callable[[Path], None]:
    """Return a function that streams the samples into a Parquet file, batch by batch.

    They come from the global model, or from the clients' models in proportion to what they hold;
    where there are both, from the clients first and then as many from the global model. What the
    model is, its own folder says. The file says how its samples were drawn, and from which weights.
    """
    from phoenix_pipeline.families.model_folder import read_description, weights_digest

    sampling, metadata = arm.sampling, read_description(model_folder)
    plan = plan_samples(metadata, sampling.num_images)
    drawing = Drawing.of(model_folder, metadata, sampling, plan, run.seed, run.device)
    digest = weights_digest(model_folder)
    drawn = {
        "weights_digest": digest,
        "weights": metadata["weights"],
        "family": drawing.model.family,
        "sampling": sampling.model_dump(mode="json"),
        "seed": run.seed,
    }
    identity = {
        "weights": digest,
        "model": drawing.model.model_dump(mode="json"),
        "sampling": sampling.model_dump(mode="json", exclude={"grid_images"}),
        "plan": sorted(plan.items()),
        "labels": drawing.labels,
        "seed": run.seed,
        "device": str(drawing.device),
    }

    def write(path: Path) -> None:
        parts = SampleParts(path, identity)
        writes = SampleWriter(path, drawn, class_names_of(metadata))
        with writes as writer, progress_bar("sampling", len(drawing.seeds)) as advance:
            for batch in parts.continued(drawing.batches):
                writer.write(*batch)
                advance(len(batch[0]))
        parts.remove()

    return write


def draw_grid(samples_file: Path, arm: ArmSettings) -> Image:
    """Return samples spread evenly over the file, none picked, in one picture."""
    return image_grid(pick_evenly(read_samples(samples_file), arm.sampling.grid_images))
