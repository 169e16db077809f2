"""Samples that a killed process had drawn: kept in parts beside the file that they belong to.

A part holds whole batches, so that the batches after it are those of an undisturbed run. Samplings
that take less than half a minute write none.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phoenix_pipeline.arms.sampling import Batch
from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.errors import CheckpointError

logger = logging.getLogger(__name__)

BETWEEN_PARTS_S = 30.0


class SampleParts:
    """The parts of one sampling; ``identity`` is everything that its images depend on."""

    def __init__(self, samples_file: Path, identity: Mapping[str, Any]) -> None:
        """Name the folder of the parts; nothing is read or written yet."""
        self._folder = samples_file.with_name(f".{samples_file.stem}.parts")
        self._identity = hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def continued(self, draw: Callable[[int], Iterator[Batch]]) -> Iterator[Batch]:
        """Yield the stored batches, and then those of ``draw(images already there)``.

        Raises StorageError when a part cannot be written.
        """
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
