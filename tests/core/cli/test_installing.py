"""Frameworks that are missing are installed in the background, by the commands that their backends declare."""

from __future__ import annotations

import dataclasses

import pytest

from multiseg import backend as registry
from multiseg.cli.installing import start_installing
from multiseg.errors import InstallError
from multiseg.worker import status
from multiseg.worker.status import BackendStatus


def declared(name: str, install: str) -> registry.Backend:
    return dataclasses.replace(registry.get("caffe"), name=name, install=install)


def test_what_is_missing_is_installed_with_commands_of_multiseg(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [BackendStatus(name=name, title=name) for name in ("good", "bad", "other")]
    monkeypatch.setattr(status, "backends", lambda: [*missing, BackendStatus("there", "there", available=True)])
    commands = {
        "good": "multiseg --version",
        "bad": "multiseg no-such-command",
        "other": "pip install x",
        "there": "multiseg -h",
    }
    started = start_installing([declared(name, command) for name, command in commands.items()])
    assert list(started) == ["good", "bad"]
    started["good"].wait()
    with pytest.raises(InstallError, match=r"`multiseg no-such-command` failed: .*no-such-command"):
        started["bad"].wait()
