"""`make run` as people use it: the table, Ctrl-C, the second start, a taken port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from eb_tools.stack import Stack

pytestmark = pytest.mark.timeout(240)
SECOND_START_S = 15
ENDING_S = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("run")
    yield made
    Stack(made).clean()


@contextmanager
def running(folder: Path, **env: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run it until it says that Ctrl-C ends it; give the process and what it said."""
    environment = {**os.environ, "EB_RUN_DIR": str(folder), "EB_PORTS": "any", **env}
    command = [sys.executable, "-m", "eb_tools.stack", "run"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            if line.startswith("Ctrl-C ends it"):
                break
        yield process, said
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=ENDING_S)


def processes_of(folder: Path) -> list[psutil.Process]:
    """List the processes whose command line or settings name the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if (
            process.pid != os.getpid()
            and process.status() != psutil.STATUS_ZOMBIE
            and any(str(folder) in word for word in words)
        ):
            found.append(process)
    return found


def test_the_first_run_shows_the_bill_and_ctrl_c_leaves_no_process(folder: Path) -> None:
    with running(folder) as (process, said):
        text = "".join(said)
        assert process.poll() is None, text
        assert "Harbour Events Group" in text
        assert "partner's share" in text
        credentials = json.loads((folder / "credentials.json").read_text())
        assert {"org_id", "project_id", "api_key", "operator_token", "service_token"} <= credentials.keys()
        assert (folder / "credentials.json").stat().st_mode & 0o077 == 0
        assert processes_of(folder)
    assert process.returncode == 0
    assert processes_of(folder) == []


def test_the_second_run_is_quick_and_keeps_the_data(folder: Path) -> None:
    before = json.loads((folder / "credentials.json").read_text())
    began = time.monotonic()
    with running(folder) as (_, said):
        lasted = time.monotonic() - began
        after = json.loads((folder / "credentials.json").read_text())
    assert "Harbour Events Group" in "".join(said)
    assert {name: after[name] for name in ("org_id", "api_key")} == {
        name: before[name] for name in ("org_id", "api_key")
    }
    assert lasted < SECOND_START_S


def test_a_taken_port_is_stepped_over_and_said(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (folder / "ports.json").unlink()
        with running(folder, EB_GATEWAY_PORT=str(port)) as (_, said):
            assert f"port {port} is taken: gateway listens on" in "".join(said)
