"""Ports on loopback: the wanted one when it is free, else the next."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Collection

from eb_tools.trouble import Trouble

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Say whether a server could listen on the port now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def free_port(wanted: int = 0, taken: Collection[int] = ()) -> int:
    """Give `wanted` or the first free port above it that isn't in `taken`; with 0 any free one."""
    if wanted == 0:
        return _any_port(taken)
    for port in range(wanted, min(wanted + 500, 65536)):
        if port not in taken and is_free(port):
            return port
    raise Trouble(f"No port from {wanted} to {wanted + 499} is free.")


def _any_port(taken: Collection[int]) -> int:
    for _ in range(100):
        with contextlib.closing(socket.socket()) as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port
    raise Trouble("No port is free.")


def free_ports(count: int) -> list[int]:
    """Give `count` different free ports."""
    found: list[int] = []
    while len(found) < count:
        found.append(free_port(0, found))
    return found
