"""A user whom the system does not know, and who has no HOME."""

import getpass
import os
import pwd
from pathlib import Path

import pytest

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.paths import ensure_user, home_is_known, local_path


def nobody(_: object) -> None:
    raise KeyError("no such user")


def test_a_stranger_gets_a_home_and_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "so that it comes back")
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    ensure_user()
    assert Path.home().is_dir()
    assert getpass.getuser() == f"uid-{os.getuid()}"
    assert not home_is_known()
    with pytest.raises(SettingsError, match="home folder of ~ is not known"):
        local_path("data_root", "~/results")
    os.rmdir(Path.home())


def test_a_known_user_keeps_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("LOGNAME", "ann")
    ensure_user()
    assert (os.environ["HOME"], getpass.getuser(), home_is_known()) == ("/home/ann", "ann", True)
