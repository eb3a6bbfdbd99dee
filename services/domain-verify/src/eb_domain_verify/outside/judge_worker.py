"""The judging process: reads tasks on stdin, answers on stdout, and dies of a task that costs too much.

Started with an empty environment; it opens no file and no connection. The kernel ends it by SIGPROF when a
task has used its CPU time, even inside a regular expression. `python -m eb_domain_verify.outside.judge_worker`
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from typing import BinaryIO

from ..domain.dns import MissingAnswersError
from ..domain.judging import judge
from .crypto import verify
from .suffixes import listed_suffixes
from .wire import LENGTH_BYTES, Reply, read_task, write_reply

MEMORY_BYTES = 1 << 30


def main() -> None:
    """Judge until stdin ends."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    listed_suffixes()
    while body := _read_frame(sys.stdin.buffer):
        sys.stdout.buffer.write(write_reply(_judge(body)))
        sys.stdout.buffer.flush()


def _judge(body: bytes) -> Reply:
    case, answers, cpu_s = read_task(body)
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        verdict, missing = judge(case, answers, listed_suffixes(), verify), ()
    except MissingAnswersError as error:
        return Reply(None, error.names, time.process_time() - started)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return Reply(verdict, missing, time.process_time() - started)


def _read_frame(stream: BinaryIO) -> bytes:
    """Give the next frame's body, b"" at the end of the stream."""
    length = stream.read(LENGTH_BYTES)
    return stream.read(int.from_bytes(length, "big")) if len(length) == LENGTH_BYTES else b""


if __name__ == "__main__":
    main()
