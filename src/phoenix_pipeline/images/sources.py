"""What a path holds: Parquet shards, class folders or loose images; no image is opened here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from phoenix_pipeline.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
SPLIT_NAMES = ("train", "test", "validation", "valid", "val")


@dataclass(frozen=True)
class ImageSource:
    """The files of one split, in reading order.

    ``kind``: "parquet", "class_folders" (the class is the name of a file's folder) or
    "flat_folder" (unlabelled). ``path``: what the user named.
    """

    kind: Literal["parquet", "class_folders", "flat_folder"]
    path: Path
    files: tuple[Path, ...]


def find_image_source(path: Path | str) -> ImageSource:
    """Tell what ``path`` holds.

    Raises DataError when it is missing, empty, ambiguous, holds several splits (see
    :func:`find_splits`), or has a class folder without an image.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"there are no images at {path}: expected a Parquet file, a folder of Parquet files, "
            f"or a folder of images by class; put the data there or change the path in the catalog"
        )
    if path.is_file():
        return ImageSource("parquet", path, (path,))
    shards, images, folders = _list_folder(path)
    kinds = [
        kind
        for kind, found in (
            ("Parquet files", shards), ("loose images", images), ("class folders", folders)
        )
        if found
    ]  # fmt: skip
    if len(kinds) != 1:
        raise DataError(
            f"{path} holds {' and '.join(kinds) or 'no images'}; allowed is one of: Parquet files, "
            f"one folder of images per class, or images ({' '.join(IMAGE_SUFFIXES)})"
        )
    if shards:
        _refuse_several_splits(path, {_split_of(shard) for shard in shards})
        return ImageSource("parquet", path, tuple(shards))
    if images:
        return ImageSource("flat_folder", path, tuple(images))
    if all(folder.name in SPLIT_NAMES for folder in folders):
        _refuse_several_splits(path, {folder.name for folder in folders})
    return ImageSource("class_folders", path, _list_classes(folders))


def find_splits(path: Path | str) -> tuple[ImageSource, ImageSource | None]:
    """Return the training and the test source of a path; None where there is no test split.

    Splits are told by subfolders ``train/`` and ``test/``, or by Parquet files named ``train*``
    and ``test*``; anything else is one source. Validation splits are left alone.
    Raises DataError like :func:`find_image_source`, and when there is a test but no training split.
    """
    path = Path(path)
    if not path.is_dir():
        return find_image_source(path), None
    shards, _, folders = _list_folder(path)
    splits: dict[str | None, ImageSource] = {}
    if folders and all(folder.name in SPLIT_NAMES for folder in folders):
        splits = {
            folder.name: find_image_source(folder)
            for folder in folders
            if folder.name in ("train", "test")
        }
    elif len({_split_of(shard) for shard in shards}) > 1:
        nameless = [shard.name for shard in shards if _split_of(shard) is None]
        if nameless:
            raise DataError(
                f"{path} holds {nameless[0]} beside files of named splits; rename it to start with "
                f"train or test, or name one split's file or folder"
            )
        for name in ("train", "test"):
            files = tuple(shard for shard in shards if _split_of(shard) == name)
            if files:
                splits[name] = ImageSource("parquet", path, files)
    if not splits:
        return find_image_source(path), None
    if "train" not in splits:
        raise DataError(f"{path} has a test split but no training split named train")
    return splits["train"], splits.get("test")


def _list_folder(path: Path) -> tuple[list[Path], list[Path], list[Path]]:
    try:
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{path} cannot be listed: {error.strerror}") from error
    files = [entry for entry in entries if entry.is_file()]
    return (
        [file for file in files if file.suffix.lower() == ".parquet"],
        [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES],
        [entry for entry in entries if entry.is_dir()],
    )


def _list_classes(folders: list[Path]) -> tuple[Path, ...]:
    """List every class's images; folders named by numbers in numeric order."""
    numeric = all(folder.name.isdecimal() for folder in folders)
    files: list[Path] = []
    for folder in sorted(folders, key=lambda f: (int(f.name), f.name) if numeric else (0, f.name)):
        _, images, _ = _list_folder(folder)
        if not images:
            raise DataError(
                f"class folder {folder} has no image ({' '.join(IMAGE_SUFFIXES)}); "
                f"add images or remove the folder"
            )
        files.extend(images)
    return tuple(files)


def _split_of(shard: Path) -> str | None:
    """Return the split in a shard's name (``test-00000-of-00001.parquet``), else None."""
    name = shard.stem.replace(".", "-").replace("_", "-").split("-")[0]
    return name if name in SPLIT_NAMES else None


def _refuse_several_splits(path: Path, splits: set[str | None] | set[str]) -> None:
    if len(splits) > 1:
        raise DataError(
            f"{path} holds several splits ({', '.join(sorted(str(s) for s in splits))}), which "
            f"would be mixed; name one split's file or folder"
        )
