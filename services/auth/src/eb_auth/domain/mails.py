"""The mails that auth sends: who gets them, and what they say.

Rule: docs/rules/identity.md, Mails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CODE, INVITATION = "login_code", "invitation"

TEXTS: Mapping[str, tuple[str, str]] = {
    CODE: (
        "Your sign-in code",
        "Your sign-in code is {code}\n\nIt is valid for ten minutes and works once."
        " If you did not ask for it, nothing happens as long as you keep it to yourself.\n",
    ),
    INVITATION: (
        "You are invited to {org_name}",
        "You are invited to {org_name} as {role}.\n\nSign in with this address and accept with this token:\n\n"
        "{token}\n\nIt works once, until {expires_at}. If you don't know why you got this, do nothing.\n",
    ),
}
"""Subject and text by kind; the words in braces are facts of the mail."""
SECRETS = {"code": "X-EB-Code", "token": "X-EB-Token"}
"""Facts that a local run's mailbox also shows as headers, for programs to read."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to one address. It waits sealed, since its facts may be secrets."""

    to: str
    kind: str
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """Give the subject on one line, whatever names stand in it."""
        return " ".join(TEXTS[self.kind][0].format_map(self.facts).split())

    @property
    def text(self) -> str:
        """Give the text."""
        return TEXTS[self.kind][1].format_map(self.facts)

    @property
    def local_headers(self) -> dict[str, str]:
        """Give what a local run's mailbox shows beside the mail."""
        shown = {SECRETS[name]: value for name, value in self.facts.items() if name in SECRETS}
        return {"X-EB-Kind": self.kind, **shown}
