"""The pieces of the local stack that need no services: ports, files, children, sentences."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import aiohttp
import asyncpg
import psutil
import pytest

from eb_tools import parts, supervisor
from eb_tools.client import wait_for
from eb_tools.debian import _drop_unused_plugins
from eb_tools.files import read_json, write_json
from eb_tools.layout import Layout, choose_ports, load_secrets
from eb_tools.paths import writable_folder
from eb_tools.ports import HOST, free_port, free_ports, is_free
from eb_tools.processes import Child, Command
from eb_tools.services import answers_ok
from eb_tools.supervisor import only_one
from eb_tools.trouble import Trouble, sentence

SLEEP = "import time; time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); {SLEEP}"


def python(code: str, tmp_path: Path, grace_s: float = 5) -> Child:
    command = Command("child", (sys.executable, "-c", code), dict(os.environ), grace_s=grace_s)
    return Child(command, tmp_path / "child.log")


def test_a_taken_port_is_stepped_over() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert not is_free(port)
        assert free_port(port) > port


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20


def test_a_stack_keeps_its_ports_and_says_which_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        monkeypatch.setenv("EB_GATEWAY_PORT", str(taken.getsockname()[1]))
        first = choose_ports(Layout(tmp_path), said.append)
    monkeypatch.delenv("EB_GATEWAY_PORT")

    assert any("gateway listens on" in line for line in said)
    assert choose_ports(Layout(tmp_path), said.append).numbers == first.numbers


def test_secrets_are_kept_and_private(tmp_path: Path) -> None:
    first = load_secrets(Layout(tmp_path), ["a", "b"])

    assert load_secrets(Layout(tmp_path), ["a", "b", "c"]) | {"c": ""} == first | {"c": ""}
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_a_json_file_is_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "pids.json", {"one": [1]})
    write_json(tmp_path / "pids.json", {"two": [2]})

    assert read_json(tmp_path / "pids.json") == {"two": [2]}
    assert [path.name for path in tmp_path.iterdir()] == ["pids.json"]
    assert read_json(tmp_path / "none.json") == {}


async def test_a_child_that_ignores_the_request_is_killed_after_the_grace_time(tmp_path: Path) -> None:
    child = python(STUBBORN, tmp_path, grace_s=0.2)
    await child.start()
    await wait_for(lambda: asyncio.to_thread(child.last_lines), "the child")

    await child.stop()

    assert child.exit_status == -signal.SIGKILL


async def test_a_hung_child_can_be_stopped(tmp_path: Path) -> None:
    child = python(SLEEP, tmp_path)
    await child.start()
    child.send(signal.SIGSTOP)

    await child.stop()

    assert child.exit_status == -signal.SIGTERM


async def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from eb_tools.processes import Child, Command\n"
        "async def main():\n"
        f"    child = Child(Command('c', (sys.executable, '-c', {SLEEP!r}), dict(os.environ)), Path('c.log'))\n"
        "    await child.start()\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    assert parent.stdout is not None
    grandchild = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()

    async def is_gone() -> bool:
        return not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == "zombie"

    assert await wait_for(is_gone, "the grandchild's end", timeout_s=5)


async def test_a_program_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    child = Child(Command("broker", ("/nowhere/broker",), {}), tmp_path / "log")

    with pytest.raises(Trouble, match="broker can't be started"):
        await child.start()


def test_two_stacks_cannot_share_a_folder(tmp_path: Path) -> None:
    with only_one(Layout(tmp_path)), pytest.raises(Trouble, match="running"), only_one(Layout(tmp_path)):
        pass


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Trouble, match="can't be written"):
        writable_folder(tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "The disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "Read-only"),
        (asyncpg.DiskFullError("could not extend file"), "The disk is full"),
        (ExceptionGroup("several", [ValueError(), Trouble("Say it.")]), "Say it."),
    ],
)
def test_weather_is_said_in_a_sentence(error: BaseException, said: str) -> None:
    assert said in str(sentence(error))


def test_a_nearly_full_disk_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "FREE_MB", 10**9)

    with pytest.raises(Trouble, match="nearly full"):
        parts.must_have_space(tmp_path)


def test_a_defect_keeps_its_traceback() -> None:
    assert sentence(ValueError("a defect")) is None


def test_only_plugins_in_use_and_what_they_need_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8/plugins"
    needs = {
        "rabbit": ["ra"],
        "ra": [],
        "rabbitmq_management": ["rabbit", "cowboy"],
        "cowboy": [],
        "mqtt": ["rabbit"],
    }
    for name, applications in needs.items():
        ebin = folder / f"{name}-1.0" / "ebin"
        ebin.mkdir(parents=True)
        listed = ",\n".join(["kernel", *applications])
        (ebin / f"{name}.app").write_text(f"{{application,{name},[{{applications,[{listed}]}}]}}.")

    _drop_unused_plugins(tmp_path)

    kept = {path.name.partition("-")[0] for path in folder.iterdir()}
    assert kept == {"rabbit", "ra", "rabbitmq_management", "cowboy"}


def test_a_state_file_can_be_read_by_anything(tmp_path: Path) -> None:
    write_json(tmp_path / "state.json", {"steps": ["é"]})

    assert json.loads((tmp_path / "state.json").read_text())["steps"] == ["é"]


LIVES = """
import http.server, sys
class Live(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Live).serve_forever()
"""


class Answering(Child):
    """A process with a livez of its own."""

    def __init__(self, port: int, tmp_path: Path) -> None:
        command = Command("answering", (sys.executable, "-c", LIVES, str(port)), dict(os.environ), grace_s=1)
        super().__init__(command, tmp_path / "answering.log")
        self._url = f"http://{HOST}:{port}/livez"

    async def is_live(self, http: aiohttp.ClientSession) -> bool:
        return await answers_ok(http, self._url)


async def test_a_service_that_hangs_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "WATCH_S", 0.1)
    monkeypatch.setattr(supervisor, "MISSES", 2)
    layout = Layout(tmp_path)
    layout.prepare()
    keeper = supervisor.Supervisor(layout, supervisor.Journal(layout))
    unit = Answering(free_port(), tmp_path)
    try:
        await keeper.start("answering", unit)
        first = unit.pid
        async with aiohttp.ClientSession() as http:
            await wait_for(lambda: unit.is_live(http), "its livez")
            await asyncio.sleep(0.5)
            assert unit.pid == first
            unit.send(signal.SIGSTOP)

            async def is_new() -> bool:
                return unit.pid != first and await unit.is_live(http)

            await wait_for(is_new, "another process", timeout_s=20)
    finally:
        await keeper.stop()
