"""Which of an arm's models draws how many images, and the images, one seed per image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from phoenix_pipeline.config import ModelConfig, SamplingConfig
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.families import family_of
from phoenix_pipeline.families.classes import (
    check_classes,
    class_shares,
    labels_by_number,
    spread_labels,
)
from phoenix_pipeline.families.model_folder import load_network, read_description
from phoenix_pipeline.families.provenance import ModelDescription
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import GLOBAL_MODEL, apportion
from phoenix_pipeline.optimization.compilation import SAMPLING, compile_network
from phoenix_pipeline.progress import progress_bar
from phoenix_pipeline.seeding import image_seeds

# Images uint8 [B, C, H, W], the client whose model drew them, their seeds, and, of a conditional
# model, the classes that they are to show.
Batch = tuple[np.ndarray, int, list[int], list[int] | None]


def plan_samples(metadata: ModelDescription, num_images: int) -> dict[int, int]:
    """Return images by client's model (-1: global) by what they hold; raises SettingsError."""
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


def plan_main_samples(
    metadata: ModelDescription, num_images: int, client_id: int | None = None
) -> dict[int, int]:
    """Return images by model, or ``client_id`` alone; raises CheckpointError, SettingsError."""
    if client_id is None:
        # An arm with client models is sampled by these; its average is one for comparison.
        main: ModelDescription = {**metadata, "has_global_model": not metadata["clients"]}
        return plan_samples(main, num_images)
    if client_id not in metadata["clients"]:
        has = ", ".join(map(str, metadata["clients"])) or "none; all share one model"
        raise CheckpointError(f"there is no model of client {client_id}; clients with one: {has}")
    return {client_id: num_images}


def plan_labels(
    metadata: ModelDescription,
    plan: Mapping[int, int],
    sampling: SamplingConfig,
    asked: Sequence[int | str] | None = None,
) -> list[int] | None:
    """Return the class that each image of ``plan`` is to show, in its order.

    ``asked``: the classes, by number or name; None: those of ``sampling``, of which image ``i`` of
    a model has the same one however many are drawn. None is returned for an unconditional model.
    Raises SettingsError: classes are asked for that the model does not have.
    """
    model = ModelConfig.model_validate(metadata["settings"]["model"])
    names = class_names_of(metadata)
    check_classes(model, sampling, names)
    if asked is not None:
        return labels_by_number(asked, names)
    if not names:
        return None
    shares = {client: class_shares(metadata, sampling, client) for client in plan}
    parts = (spread_labels(shares[client], count) for client, count in plan.items())
    # Plain numbers, since what is drawn is also written down as JSON.
    return [label for part in parts for label in part.tolist()]


def class_names_of(metadata: ModelDescription) -> tuple[str, ...]:
    """Return the classes of a conditional model in the order of its labels; empty for any other."""
    return tuple(metadata["settings"]["class_names"])


@dataclass(frozen=True, eq=False)
class Drawing:
    """Images to draw from the models in ``folder``, which ``metadata`` describes.

    ``plan``: of :func:`plan_samples`; in its order ``seeds`` of the images and, of a conditional
    model, ``labels``: the classes that they are to show.
    """

    folder: Path
    metadata: ModelDescription
    sampling: SamplingConfig
    plan: Mapping[int, int]
    seeds: list[int]
    labels: list[int] | None
    device: torch.device

    @classmethod
    def of(
        cls,
        folder: Path,
        metadata: ModelDescription,
        sampling: SamplingConfig,
        plan: Mapping[int, int],
        seed: int,
        device: str,
        role: str = "sample",
        asked: Sequence[int | str] | None = None,
    ) -> "Drawing":
        """Return what is drawn with ``seed`` for the purpose ``role``; ``asked`` as above."""
        seeds = list(image_seeds(seed, role, sum(plan.values())))
        labels = plan_labels(metadata, plan, sampling, asked)
        return cls(folder, metadata, sampling, plan, seeds, labels, resolve_device(device))

    @cached_property
    def model(self) -> ModelConfig:
        """The settings of the models."""
        return ModelConfig.model_validate(self.metadata["settings"]["model"])

    def batches(self, done: int = 0) -> Iterator[Batch]:
        """Yield the images, but for the first ``done``, which are whole batches."""
        settings, model, device = self.metadata["settings"], self.model, self.device
        shape = (settings["channels"], settings["image_size"], settings["image_size"])
        family, compiled, end = family_of(model), self.compiles(), 0
        for client_id, count in self.plan.items():
            at, end = max(done, end), end + count
            if at >= end:
                continue
            network = load_network(self.folder, client_id).to(device)
            if compiled:
                compile_network(network)
            own, shown = self.seeds[at:end], self.labels[at:end] if self.labels else None
            for batch in family.sample_images(
                network, model, self.sampling, shape, own, device, labels=shown
            ):
                part = slice(at, at + len(batch))
                yield batch, client_id, self.seeds[part], self.labels[part] if self.labels else None
                at += len(batch)

    def compiles(self) -> bool:
        """Return whether networks are compiled: for the whole plan, also where a part is done."""
        if self.sampling.compile != "auto":
            return self.sampling.compile
        batches = sum(-(-count // self.sampling.batch_size) for count in self.plan.values())
        why_not = family_of(self.model).why_not_compiled
        return SAMPLING.pays(batches * self.sampling.num_steps, self.device.type, why_not)


def draw_images(
    model_folder: Path,
    num_images: int,
    sampling: SamplingConfig,
    seed: int,
    device: str = "auto",
    client_id: int | None = None,
    labels: Sequence[int | str] | None = None,
    role: str = "sample",
) -> np.ndarray:
    """Return uint8 images [N, C, H, W]: those that the stage ``sampling`` draws with ``seed``.

    ``labels``: the class of each image, by number or name; None: as ``sampling`` says. ``role``:
    ``export`` gives those that ``kedro export-samples`` writes for that seed.
    Raises CheckpointError: ``client_id`` has no model.
    Raises SettingsError: there is no complete model.
    """
    metadata = read_description(model_folder)
    plan = plan_main_samples(metadata, num_images, client_id)
    drawing = Drawing.of(model_folder, metadata, sampling, plan, seed, device, role, labels)
    drawn = []
    with progress_bar("sampling", num_images) as advance:
        for images, *_ in drawing.batches():
            drawn.append(images)
            advance(len(images))
    return np.concatenate(drawn)
