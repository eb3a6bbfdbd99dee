"""No picture of a service's memory is left behind: it holds keys, tokens and what is being worked on.

Rule: docs/security/logging.md, Never.
"""

from __future__ import annotations

import ctypes
import resource
import sys

PR_SET_DUMPABLE = 4


def leave_none() -> None:
    """Have this process write no core, and no other one of its user read its memory or environment.

    A core that goes to a program (`core_pattern` with a pipe) minds no limit, so Linux is told besides.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
