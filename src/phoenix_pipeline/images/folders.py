"""One walk over a folder that accounts for every file in it: what it is, or why it is left out."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images.formats import is_image_suffix, lacks_decoder
from phoenix_pipeline.images.labels import readable_name

# As the library `datasets` tells splits apart, in any case.
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
_ROLES = {word: role for role, words in _SPLIT_WORDS.items() for word in words}
_TABLES = ("metadata.csv", "metadata.jsonl")
# What operating systems and archives leave behind.
_LITTER = ("__macosx", "thumbs.db", "desktop.ini")
_NUMBERED = re.compile(r"(?P<name>.*)-(?P<number>\d+)-of-(?P<total>\d+)", re.DOTALL)
HIDDEN, BROKEN_LINK = "hidden", "broken links"


@dataclass
class Folder:
    """A folder and all below it, by name; ``left_out``: unread files of this one, by reason."""

    path: Path
    images: list[Path] = field(default_factory=list)
    shards: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def walk(self) -> Iterator["Folder"]:
        """Yield this folder and all below it."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def all_images(self) -> list[Path]:
        """Return the images of this folder, then those of each folder below."""
        return [image for folder in self.walk() for image in folder.images]

    def all_left_out(self) -> Counter[str]:
        """Return what is left out here and below, by reason."""
        return sum((folder.left_out for folder in self.walk()), Counter())

    @property
    def has_data(self) -> bool:
        """Whether there is an image or a Parquet file, here or below."""
        return any(folder.images or folder.shards for folder in self.walk())

    def filled(self) -> list["Folder"]:
        """Return the subfolders that have data."""
        return [folder for folder in self.folders if folder.has_data]


def read_folder(path: Path, above: tuple[Path, ...] = ()) -> Folder:
    """Return all below ``path``, links in a ring once (``above``); raises DataError."""
    folder = Folder(path)
    try:
        entries = sorted(path.iterdir())
        real = path.resolve()
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _LITTER:
                folder.left_out[HIDDEN] += 1
            elif entry.is_dir():
                if entry.is_symlink() and entry.resolve() in (*above, real):
                    folder.left_out["links to a folder above"] += 1
                else:
                    folder.folders.append(read_folder(entry, (*above, real)))
            else:
                _sort_in(folder, entry)
    except OSError as error:
        raise DataError(f"{readable_name(path)} cannot be listed: {error.strerror}") from error
    return folder


def _sort_in(folder: Folder, file: Path) -> None:
    suffix = file.suffix.lower()
    if not file.is_file():
        folder.left_out[BROKEN_LINK if file.is_symlink() else "no regular files"] += 1
    elif file.name.lower() in _TABLES:
        folder.tables.append(file)
    elif suffix == ".parquet":
        folder.shards.append(file)
    elif not is_image_suffix(suffix):
        name = readable_name(suffix) if suffix else "without a suffix"
        folder.left_out[f"{name} (not a format that is read)"] += 1
    elif missing := lacks_decoder(file):
        folder.left_out[f"{suffix} (no decoder: {missing.remedy})"] += 1
    else:
        folder.images.append(file)


def count_left_out(folder: Folder) -> str:
    """Return what is left out here and below, as `` (5 broken links)``; empty for nothing."""
    left_out = folder.all_left_out()
    if not left_out:
        return ""
    return f" ({', '.join(f'{count} {reason}' for reason, count in left_out.items())})"


def split_of_folder(name: str) -> str | None:
    """Return train, test or validation for a folder of such a name, else None."""
    return _ROLES.get(name.lower())


def split_of_shard(file: Path) -> str | None:
    """Return the split that a Parquet file's name tells (``test-00000-of-00001``), else None."""
    words = re.split(r"[^a-z]+", file.stem.lower())
    return next((_ROLES[word] for word in words if word in _ROLES), None)


def check_complete(shards: list[Path]) -> None:
    """Raise DataError when some of ``name-00000-of-00002.parquet`` are missing."""
    found: dict[tuple[Path, str, int], set[int]] = {}
    for shard in shards:
        if match := _NUMBERED.fullmatch(shard.stem):
            group = (shard.parent, match["name"], int(match["total"]))
            found.setdefault(group, set()).add(int(match["number"]))
    for (folder, name, total), numbers in found.items():
        missing = sorted(set(range(total)) - numbers)
        if missing:
            wanted = f"{name}-{missing[0]:05d}-of-{total:05d}.parquet"
            raise DataError(
                f"{readable_name(folder)} holds {len(numbers)} of the {total} Parquet files of "
                f"{readable_name(name)}; {readable_name(wanted)} is missing: add it, or name one "
                "file instead of the folder to read it alone"
            )


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
                f"class folder {readable_name(inner.path)} has no image that can be read"
                f"{count_left_out(inner)}; add images or remove the folder"
            )
        if name in classes:
            raise DataError(
                f"two folders of {readable_name(folder.path)} are called {name}; rename one"
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
                f"{readable_name(folder.path)} holds splits inside its class folders ({name}/"
                f"{roles[0]}, {name}/{roles[1]}); turn them round: {roles[0]}/{name}, "
                f"{roles[1]}/{name}"
            )
