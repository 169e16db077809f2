"""What a path holds: splits, Parquet shards, class folders or loose images; nothing is decoded."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images.folders import (
    Folder,
    check_complete,
    count_left_out,
    list_classes,
    read_folder,
    split_of_folder,
    split_of_shard,
)
from phoenix_pipeline.images.formats import IMAGE_SUFFIXES, is_image_suffix
from phoenix_pipeline.images.labels import readable_name

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_ALLOWED = (
    f"allowed is one of: Parquet files, one folder of images per class, images with a "
    f"metadata.csv, or images alone ({' '.join(IMAGE_SUFFIXES)})"
)


@dataclass(frozen=True)
class ImageSource:
    """The files of one split, in reading order.

    ``kind``: "parquet", "class_folders", "metadata" (labels stand in ``tables``) or "flat_folder"
    (unlabelled). ``path``: where it lies. ``classes``: the class of each file of class folders.
    ``left_out``: number of files below ``path`` that are not read, by reason. ``remarks``: what a
    reader should know of how the files were found.
    """

    kind: Literal["parquet", "class_folders", "metadata", "flat_folder"]
    path: Path
    files: tuple[Path, ...]
    classes: tuple[str, ...] = ()
    tables: tuple[Path, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def find_image_source(path: Path | str) -> ImageSource:
    """Tell what ``path`` holds; raises DataError when it is missing, empty or ambiguous."""
    splits = _find_all(Path(path))
    if len(splits) > 1:
        raise DataError(
            f"{readable_name(path)} holds several splits ({', '.join(map(str, splits))}), which "
            f"would be mixed; name one split's file or folder"
        )
    return next(iter(splits.values()))


def find_splits(path: Path | str) -> tuple[ImageSource, ImageSource | None]:
    """Return the training and the test source of a path; None where there is no test split.

    Splits are told by subfolders or Parquet files with the words that the library `datasets`
    knows (``train``, ``test``, ``val``, ...), in any case. A validation split is the test split
    where there is no other; else it is counted as left out.
    Raises DataError like :func:`find_image_source`, and when there is no training split.
    """
    path = Path(path)
    splits = _find_all(path)
    if None in splits:
        return splits[None], None
    train, test, validation = (splits.get(role) for role in ("train", "test", "validation"))
    if train is None:
        raise DataError(
            f"{readable_name(path)} has a {next(iter(splits))} split but no training split named "
            "train; name its folder or file alone to train on it"
        )
    if test is None and validation is not None:
        remarks = (*validation.remarks, "the validation split is the test split")
        return train, replace(validation, remarks=remarks)
    if validation is not None:
        unused = {"of the validation split (there is a test split)": len(validation.files)}
        train = replace(train, left_out={**train.left_out, **unused})
    return train, test


def _find_all(path: Path) -> dict[str | None, ImageSource]:
    """Return the source of each split; a single one that is not named under None."""
    if not path.exists():
        raise DataError(
            f"there are no images at {readable_name(path)}: expected a Parquet file, a folder of "
            f"Parquet files, or a folder of images by class; put the data there, or name another "
            "path: train_images or test_images of a run, data of a site's node configuration"
        )
    if path.is_file():
        _refuse_other_files(path)
        return {None: ImageSource("parquet", path, (path,))}
    given = read_folder(path)
    folder = _inside_wrappers(given)
    if not given.has_data:
        raise DataError(f"{readable_name(path)} holds no images{count_left_out(given)}; {_ALLOWED}")
    splits = _split_folders(folder) or _split_shards(folder) or {None: _one_source(folder, [])}
    first = next(iter(splits))
    outside = _left_out_beside(given, [source.path for source in splits.values()])
    if outside:
        own = Counter(splits[first].left_out) + outside
        splits[first] = replace(splits[first], left_out=dict(own))
    return splits


def _refuse_other_files(path: Path) -> None:
    """Raise DataError for a file that is no Parquet by its name, with the way out."""
    suffix, shown = path.suffix.lower(), readable_name(path)
    if suffix in _ARCHIVES:
        raise DataError(f"{shown} is an archive; unpack it and name the folder")
    if is_image_suffix(suffix):
        raise DataError(f"{shown} is one image; name the folder that holds all of them")


def _inside_wrappers(folder: Folder) -> Folder:
    """Return the first folder below which there is more than one way to go on."""
    while not (folder.images or folder.shards or folder.tables):
        filled = folder.filled()
        if len(filled) != 1 or split_of_folder(filled[0].path.name):
            break
        if filled[0].images and not filled[0].tables:
            break  # a folder of images is a class
        folder = filled[0]
    return folder


def _split_folders(folder: Folder) -> dict[str | None, ImageSource]:
    """Return the splits that lie in folders of their own; empty if there are none."""
    filled = [] if folder.images or folder.shards else folder.filled()
    roles = [(split_of_folder(inner.path.name), inner) for inner in filled]
    named = [(role, inner) for role, inner in roles if role]
    if not named or (len({role for role, _ in named}) < 2 and len(named) < len(roles)):
        return {}
    splits: dict[str | None, ImageSource] = {}
    for role, inner in sorted(named, key=lambda pair: pair[0] != "train"):
        if role in splits:
            raise DataError(
                f"{readable_name(folder.path)} has two {role} splits, {splits[role].path.name} and "
                f"{inner.path.name}; merge them or name one of them"
            )
        splits[role] = _one_source(_inside_wrappers(inner), folder.tables)
    for name, inner in roles:
        if name is None:
            _leave_out(folder, inner)
    return splits


def _leave_out(folder: Folder, inner: Folder) -> None:
    name = readable_name(inner.path.name)
    count = len(inner.all_images()) + sum(len(f.shards) for f in inner.walk())
    folder.left_out[f"in {name}/ (neither train nor test)"] += count


def _split_shards(folder: Folder) -> dict[str | None, ImageSource]:
    """Return the splits that the names of Parquet files tell; empty if there are not several."""
    found: dict[str | None, list[Path]] = {}
    for shard in folder.shards:
        found.setdefault(split_of_shard(shard), []).append(shard)
    if len(found) < 2 or folder.images or folder.filled():
        return {}
    if None in found:
        raise DataError(
            f"{readable_name(folder.path)} holds {readable_name(found[None][0].name)} beside files "
            "of named splits; rename it to start with train or test, or name one split's file or "
            "folder"
        )
    left_out = dict(folder.all_left_out())
    splits: dict[str | None, ImageSource] = {}
    for role, shards in sorted(found.items(), key=lambda item: item[0] != "train"):
        check_complete(shards)
        splits[role] = ImageSource("parquet", folder.path, tuple(shards), left_out=left_out)
        left_out = {}
    return splits


def _one_source(folder: Folder, tables_above: list[Path]) -> ImageSource:
    tables = folder.tables or tables_above
    filled = folder.filled()
    holds = {
        "Parquet files": folder.shards,
        "loose images": folder.images,
        "class folders": filled if not tables else (),
    }
    kinds = [kind for kind, found in holds.items() if found]
    if len(kinds) > 1 or any(f.shards for inner in filled for f in inner.walk()):
        raise DataError(_ambiguous(folder, kinds))
    left_out = dict(folder.all_left_out())
    if folder.shards:
        check_complete(folder.shards)
        files = tuple(folder.shards)
        return ImageSource("parquet", folder.path, files, left_out=left_out)
    if tables:
        files = tuple(folder.all_images())
        return ImageSource("metadata", folder.path, files, tables=tuple(tables), left_out=left_out)
    if folder.images:
        return ImageSource("flat_folder", folder.path, tuple(folder.images), left_out=left_out)
    files, classes = list_classes(folder)
    return ImageSource(
        "class_folders", folder.path, files, classes, (), left_out, _remarks(folder, classes)
    )


def _remarks(folder: Folder, classes: tuple[str, ...]) -> tuple[str, ...]:
    nested = sum(
        inner.path != file.parent for inner in folder.folders for file in inner.all_images()
    )
    splits = [name for name in dict.fromkeys(classes) if split_of_folder(name)]
    return (
        *([f"{nested} in subfolders of their class"] if nested else []),
        *(f"{name} is taken for a class, not for a split" for name in splits),
    )


def _ambiguous(folder: Folder, kinds: list[str]) -> str:
    where = readable_name(folder.path)
    deep = [f for inner in folder.filled() for f in inner.walk() if f.shards]
    if not deep:
        return f"{where} holds {' and '.join(kinds)}; {_ALLOWED}"
    places = ", ".join(readable_name(f.path.relative_to(folder.path)) for f in deep[:3])
    return (
        f"{where} holds Parquet files in {places}, beside other data; name one of these folders or "
        f"one file"
    )


def _left_out_beside(given: Folder, sources: list[Path]) -> Counter[str]:
    """Return what is left out in the folders of ``given`` that no source lies in or under."""
    return sum(
        (
            folder.left_out
            for folder in given.walk()
            if not any(folder.path == s or s in folder.path.parents for s in sources)
        ),
        Counter(),
    )
