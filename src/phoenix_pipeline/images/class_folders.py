"""One folder per class: which images are of which class."""

from pathlib import Path

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images.folders import Folder, count_left_out, split_of_folder
from phoenix_pipeline.images.names import readable_name, readable_path


def list_classes(folder: Folder) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the images and the class of each; classes named by numbers in numeric order.

    Images at any depth below a class folder belong to it. Raises DataError for an empty class, two
    classes of the same readable name, and splits inside of classes.
    """
    _refuse_splits_in_classes(folder)
    numeric = all(inner.path.name.isdecimal() for inner in folder.folders)
    files: list[Path] = []
    classes: list[str] = []
    for inner in sorted(
        folder.folders,
        key=lambda f: (int(f.path.name), f.path.name) if numeric else (0, f.path.name),
    ):
        images, name = inner.all_images(), readable_name(inner.path.name)
        if not images:
            raise DataError(
                f"class folder {readable_path(inner.path)} has no image that can be read"
                f"{count_left_out(inner)}; add images or remove the folder"
            )
        if name in classes:
            raise DataError(
                f"two folders of {readable_path(folder.path)} are called {name}; rename one"
            )
        files += images
        classes += [name] * len(images)
    return tuple(files), tuple(classes)


def _refuse_splits_in_classes(folder: Folder) -> None:
    for inner in folder.filled():
        roles = [below.path.name for below in inner.filled() if split_of_folder(below.path.name)]
        if len({split_of_folder(name) for name in roles}) > 1:
            name = readable_name(inner.path.name)
            raise DataError(
                f"{readable_path(folder.path)} holds splits inside its class folders ({name}/"
                f"{roles[0]}, {name}/{roles[1]}); turn them round: {roles[0]}/{name}, "
                f"{roles[1]}/{name}"
            )
