"""What the service and its judging process say to each other: JSON in frames of a 4-byte length.

JSON, not pickle: the judging process reads hostile bytes and is not trusted by its parent.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..domain.dns import Answer, Answers, Found
from ..domain.judging import Case, Verdict
from ..domain.letter import Challenge, Envelope

LENGTH_BYTES = 4
MAX_FRAME_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Reply:
    """A verdict, or the names whose TXT records are missing; and what CPU time it took."""

    verdict: Verdict | None
    missing: tuple[str, ...]
    cpu_s: float


def frame(document: Mapping[str, Any]) -> bytes:
    """Write one frame."""
    body = json.dumps(document).encode()
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def write_task(case: Case, answers: Answers, cpu_s: float) -> bytes:
    """Write what to judge, with the CPU time that is left."""
    challenge = asdict(case.challenge) | {"token_sha256": case.challenge.token_sha256.hex()}
    return frame(
        {
            "raw": base64.b64encode(case.raw).decode(),
            "envelope": asdict(case.envelope),
            "challenge": challenge,
            "received_at": case.received_at,
            "answers": {name: answer_document(answer) for name, answer in answers.items()},
            "cpu_s": cpu_s,
        }
    )


def read_task(body: bytes) -> tuple[Case, dict[str, Answer], float]:
    """Read what `write_task` wrote."""
    task = json.loads(body)
    challenge = task["challenge"] | {"token_sha256": bytes.fromhex(task["challenge"]["token_sha256"])}
    case = Case(
        raw=base64.b64decode(task["raw"]),
        envelope=Envelope(**task["envelope"]),
        challenge=Challenge(**challenge),
        received_at=task["received_at"],
    )
    return case, {name: read_answer(answer) for name, answer in task["answers"].items()}, task["cpu_s"]


def write_reply(reply: Reply) -> bytes:
    """Write the answer to a task."""
    return frame(
        {
            "verdict": asdict(reply.verdict) if reply.verdict else None,
            "missing": list(reply.missing),
            "cpu_s": reply.cpu_s,
        }
    )


def read_reply(body: bytes) -> Reply:
    """Read what `write_reply` wrote; ValueError, KeyError or TypeError for anything else."""
    document = json.loads(body)
    verdict = document["verdict"]
    return Reply(
        verdict=Verdict(**(verdict | {"reasons": tuple(verdict["reasons"])})) if verdict else None,
        missing=tuple(document["missing"]),
        cpu_s=float(document["cpu_s"]),
    )


def answer_document(answer: Answer) -> dict[str, object]:
    """Write a DNS answer as JSON; bytes above ASCII are kept one to one (Latin-1)."""
    return {
        "found": str(answer.found),
        "texts": [text.decode("latin-1") for text in answer.texts],
        "at": answer.at,
    }


def read_answer(document: Mapping[str, Any]) -> Answer:
    """Read what `answer_document` wrote."""
    texts = tuple(text.encode("latin-1") for text in document["texts"])
    return Answer(Found(document["found"]), texts, document["at"])
