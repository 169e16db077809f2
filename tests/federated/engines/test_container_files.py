"""Containerfile and compose file, as far as they can be checked without a container engine."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from phoenix_pipeline.federated.engines.rehearsal import parse_node_config

ROOT = Path(__file__).parents[3]
CONTAINERFILE = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8")
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yml").read_text())["services"]
SITES = ("north", "south")


def test_it_runs_as_somebody_who_is_not_root() -> None:
    last = re.findall(r"^USER (\S+)$", CONTAINERFILE, re.MULTILINE)[-1]
    assert last == "10001"
    assert f"useradd --uid {last} --create-home --home-dir /var/lib/phoenix" in CONTAINERFILE


def test_what_is_copied_is_there() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", CONTAINERFILE, re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
        assert f"!{name.removeprefix('./')}\n" in IGNORED, name


def test_own_settings_and_keys_stay_out_of_the_image() -> None:
    lines = IGNORED.splitlines()
    assert lines[1] == "*" and lines.index("conf/local/*") > lines.index("!conf")
    assert not [line for line in lines if line.startswith("!deploy") and "flower-app" not in line]


def test_the_image_has_the_versions_of_the_lock(tmp_path: Path) -> None:
    """The command of the file, as the shell of the build runs it."""
    command = re.search(r"RUN (sed .+?) > /tmp/versions\.txt", CONTAINERFILE)
    assert command is not None
    line = command[1].replace("/tmp/requirements.lock", str(ROOT / "requirements.lock"))
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    locked = re.findall(r"^([\w.-]+==\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert [told.split()[0] for told in done.stdout.splitlines()] == locked
    assert "\\" not in done.stdout and "--hash" not in done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_as_few_rights_as_it_can(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "ports" not in service and "privileged" not in service


@pytest.mark.parametrize("number", range(len(SITES)))
def test_a_site_sees_its_own_images_alone_and_cannot_write_them(number: int) -> None:
    site = SERVICES[SITES[number]]
    (given,) = (o for o in site["command"] if o.startswith("--node-config="))
    node = parse_node_config(given.removeprefix("--node-config="))
    assert node.client_id == number
    assert f"./images/{SITES[number]}:{node.data}:ro" in site["volumes"]
    assert [v for v in site["volumes"] if v.startswith("./images")] == [site["volumes"][1]]
    assert node.state_folder.is_relative_to("/var/lib/phoenix")


@pytest.mark.parametrize("name", ["superlink", "north", "gate"])
def test_the_programs_know_their_options(name: str) -> None:
    command = SERVICES[name]["command"]
    begin = command[: 1 if command[0] != "python" else 3]
    program = Path(sys.executable).with_name(begin[0])
    command_line = [str(program), *begin[1:], "--help"]
    told = subprocess.run(command_line, capture_output=True, text=True, check=True).stdout
    for option in command[len(begin) :]:
        assert option.partition("=")[0] in told


def test_sites_that_start_before_their_keys_are_registered_start_again() -> None:
    """A SuperNode whose key is unknown ends with status 1 (tried on loopback)."""
    assert {name for name in SERVICES if SERVICES[name]["restart"] == "on-failure"} == {
        *("superlink", "gate"),
        *SITES,
    }


def test_the_documented_configuration_of_flwr_can_be_read(tmp_path: Path) -> None:
    """The command of docs/deployment.md, as the shell in the container runs it."""
    page = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    found = re.search(r"coordinator sh -c '(mkdir .+?config\.toml)'", page, re.DOTALL)
    assert found is not None
    subprocess.run(["sh", "-c", found[1]], cwd=tmp_path, check=True)
    written = tomllib.loads((tmp_path / "flwr/config.toml").read_text(encoding="utf-8"))
    assert written == {
        "superlink": {"phoenix": {"address": "127.0.0.1:8001", "root-certificates": "/keys/ca.crt"}}
    }
