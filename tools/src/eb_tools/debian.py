"""RabbitMQ, Erlang and HAProxy from Debian's packages, unpacked into a cache folder and never installed.

Works as root and as anybody else: apt keeps its lists in a private folder, `dpkg -x` unpacks. Installing would
start a broker of its own on the default ports. Standard library only: `make run` starts this while pip works.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eb_tools.paths import cache_dir
from eb_tools.trouble import Trouble

LAYOUT = "programs-1"
"""Name of the unpacked tree; raise the number when what is done to the tree changes."""

WANTED = ("rabbitmq-server", "haproxy")
ERLANG = tuple(
    f"erlang-{part}"
    for part in (
        "base", "asn1", "crypto", "inets", "mnesia", "os-mon", "parsetools", "public-key", "runtime-tools", "ssl",
        "syntax-tools", "tools", "xmerl",
    )
)  # fmt: skip
UNUSED = re.compile(r"logrotate|libpopt|socat|libwrap|adduser|erlang-(eldap|ftp|tftp|snmp)")
PLUGINS = ("rabbit", "rabbitmq_prelaunch", "rabbitmq_management", "rabbitmq_prometheus")
INSTALL_HINT = (
    "Install them (Debian, Ubuntu: apt install rabbitmq-server haproxy; macOS: brew install rabbitmq haproxy),"
    " or name running brokers with AMQP_URL and RABBITMQ_ADMIN_URL."
)


@dataclass(frozen=True)
class Programs:
    """Where the two programs are: RabbitMQ's folder of scripts, what they need in PATH and library path."""

    rabbitmq_server: Path
    erlang_bin: Path | None
    haproxy: Path
    library_path: str

    def environment(self) -> dict[str, str]:
        """Give PATH and library path with which both programs run; nothing else of the caller's environment."""
        path = "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"
        if self.erlang_bin:
            path = f"{self.erlang_bin}:{path}"
        return {"PATH": path, "LANG": "C.UTF-8"} | (
            {"LD_LIBRARY_PATH": self.library_path} if self.library_path else {}
        )


def find_programs(say: Callable[[str], None] = lambda _: None) -> Programs:
    """Find both programs: on the PATH, else unpacked in the cache folder, else download and unpack them.

    Trouble, with what to install, when there is no way to have them. Safe to call from several processes.
    """
    installed = _installed()
    if installed:
        return installed
    cache = cache_dir()
    with _locked(cache / f"{LAYOUT}.lock"):
        root = cache / LAYOUT
        if not root.exists():
            _unpack_anew(root, say)
    return _unpacked(root)


def _installed() -> Programs | None:
    """Find both on the PATH and in the usual folders of servers, which many people's PATH lacks."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin:/opt/homebrew/bin"
    server = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin:" + path)
    haproxy = shutil.which("haproxy", path=path)
    erlang = shutil.which("erl", path=path)
    if not (server and haproxy and erlang):
        return None
    return Programs(Path(server), Path(erlang).parent, Path(haproxy), "")


def _unpacked(root: Path) -> Programs:
    servers = sorted(root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"))
    libraries = [
        str(folder) for folder in (*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*"))
    ]
    return Programs(servers[-1], root / "usr/lib/erlang/bin", root / "usr/sbin/haproxy", ":".join(libraries))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock: one process unpacks, the others wait for it."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _unpack_anew(root: Path, say: Callable[[str], None]) -> None:
    """Download and unpack into a folder beside `root`, try the programs, then rename: whole or not at all."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Trouble(f"RabbitMQ and HAProxy are needed and not on the PATH. {INSTALL_HINT}")
    work = root.with_name(f"{root.name}.new")
    shutil.rmtree(work, ignore_errors=True)
    say("downloading RabbitMQ, Erlang and HAProxy from Debian (37 MB)")
    debs = _download(work)
    say("unpacking them")
    for deb in debs:
        _run(["dpkg", "-x", str(deb), str(work / "root")])
    _relocate_erlang(work / "root", root)
    _drop_unused_plugins(work / "root")
    (work / "root").rename(root)
    shutil.rmtree(work, ignore_errors=True)
    _try_out(root)


def _download(work: Path) -> list[Path]:
    """Fetch the packages and what they need beyond what is installed; apt checks signatures and hashes."""
    options = _apt_options(work)
    subprocess.run(["apt-get", *options, "update"], capture_output=True, check=False)
    debs = work / "debs"
    debs.mkdir()
    done = subprocess.run(
        ["apt-get", *options, "download", *_packages(options)], cwd=debs, capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        message = (
            f"RabbitMQ and HAProxy can't be downloaded ({last}). Is the network reachable? {INSTALL_HINT}"
        )
        raise Trouble(message)
    return sorted(debs.glob("*.deb"))


def _apt_options(work: Path) -> list[str]:
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    settings = {
        "Dir::State": work / "state",
        "Dir::Cache": work / "cache",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "20",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
    }
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def _packages(options: list[str]) -> list[str]:
    """List what to unpack: Erlang's parts always, libraries only where the machine hasn't got them."""
    plan = subprocess.run(
        ["apt-get", *options, "install", "-s", "--no-install-recommends", *WANTED],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # "Inst name (new …)" is missing here; "Inst name [old] (new …)" is an upgrade, which is not ours to make.
    missing = re.findall(r"^Inst (\S+) \(", plan.stdout, re.MULTILINE)
    return sorted({*WANTED, *ERLANG, *(name for name in missing if not UNUSED.match(name))})


def _relocate_erlang(tree: Path, root: Path) -> None:
    """Let Erlang's start scripts name the folder they will live in."""
    for script in [*tree.glob("usr/lib/erlang/bin/*"), *tree.glob("usr/lib/erlang/erts-*/bin/*")]:
        text = script.read_bytes() if script.is_file() and not script.is_symlink() else b""
        if text.startswith(b"#!"):
            moved = text.replace(b"ROOTDIR=/usr/lib/erlang", b"ROOTDIR=" + bytes(root / "usr/lib/erlang"))
            script.write_bytes(moved)


def _drop_unused_plugins(tree: Path) -> None:
    """Keep the plugins that are used and what they depend on.

    Erlang searches each folder of its code path for each of a thousand modules: 65 folders cost 2.5 s of a boot.
    """
    for folder in tree.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins"):
        apps = {app.stem: app for app in folder.glob("*/ebin/*.app")}
        kept, waiting = set[str](), list(PLUGINS)
        while waiting:
            name = waiting.pop()
            if name in apps and name not in kept:
                kept.add(name)
                listed = re.search(r"\{applications,\s*\[(.*?)\]", apps[name].read_text(), re.DOTALL)
                waiting += re.findall(r"\w+", listed[1]) if listed else []
        for name in apps.keys() - kept:
            shutil.rmtree(apps[name].parents[1])


def _try_out(root: Path) -> None:
    """See both programs run here; forget the tree again when one doesn't."""
    programs = _unpacked(root)
    environment = programs.environment() | {"HOME": str(root)}
    try:
        _run([str(programs.haproxy), "-v"], environment)
        _run([str(root / "usr/lib/erlang/bin/erl"), "-noshell", "-eval", "halt(0)."], environment)
    except Trouble:
        shutil.rmtree(root, ignore_errors=True)
        raise


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise Trouble(f"{command[0]} failed: {last}. {INSTALL_HINT}")


def main() -> int:
    """Have both programs ready; what went wrong goes to stderr, exit status 1."""
    try:
        find_programs(lambda line: print(line, flush=True))
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
