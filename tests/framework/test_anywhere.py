"""Commands outside of the project's folder: an installed wheel, and a folder below the project."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DIGITS = REPOSITORY / "data/01_raw/digits"


def run_in(
    folder: Path, *arguments: str, sources: Path = REPOSITORY / "src"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(sources), "PHOENIX_TRACKING": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_configuration_one_line_says_what_is_missing(tmp_path: Path) -> None:
    ended = run_in(tmp_path, "phoenix_pipeline")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == (
        f"Error: there is no configuration at {tmp_path}/conf; start in the project's folder, or "
        "name the configuration by --conf-source\n"
    )


def test_the_log_looks_the_same_below_the_projects_folder(project: Path) -> None:
    shutil.copy(REPOSITORY / "conf/logging.yml", project / "conf")
    for split in ("train", "test"):
        shutil.copy(DIGITS / f"{split}.parquet", project / "data/01_raw")
    shutil.copy(REPOSITORY / "conf/base/catalog.yml", project / "conf/base")
    below = project / "data"
    for folder in (project, below):
        ended = run_in(folder, "kedro", "run", "--tags", "stage.partition")
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.splitlines()[0][8:] == " INFO [1/3] clients.decode_images"
    assert (project / "data/03_primary/partition.parquet").is_file()


@pytest.mark.slow
def test_a_wheel_runs_in_an_empty_folder_with_the_packed_configuration(tmp_path: Path) -> None:
    pytest.importorskip("build")
    tree, site, empty = tmp_path / "tree", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    shutil.copytree(REPOSITORY / "src", tree / "src")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tree)
    built = run_in(tree, "build", "--wheel", "--no-isolation")
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (tree / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    assert (site / "phoenix_pipeline/py.typed").is_file()
    with tarfile.open(tmp_path / "conf.tar.gz", "w:gz") as archive:  # as `kedro package` does
        archive.add(REPOSITORY / "conf", "conf")

    def packaged(conf: Path) -> subprocess.CompletedProcess[str]:
        images = f"train_images={DIGITS}/train.parquet,test_images={DIGITS}/test.parquet"
        return run_in(
            empty,
            *("phoenix_pipeline", "--conf-source", str(conf), "--env", "smoke"),
            *("--pipelines", "partition", "--params", images),
            sources=site,
        )

    for conf in (tmp_path / "conf.tar.gz", REPOSITORY / "conf"):
        ended = packaged(conf)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.splitlines()[0][8:] == " INFO [1/3] clients.decode_images"
        assert len([line for line in ended.stderr.splitlines() if "] " in line]) == 3
        shutil.rmtree(empty / "data/smoke")
