"""The mails that auth sends: who gets them, and what they say.

Rule: docs/rules/identity.md, Mails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CODE, INVITATION = "login_code", "invitation"
ORG_LINK, ASSIST_REQUESTED, ASSIST_STARTED = "org_link_requested", "assist_requested", "assist_started"

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
    ORG_LINK: (
        "{parent_name} asks {org_name} to join its group",
        "{parent_name} asks to become the parent of {org_name}.\n\nIf an Admin of {org_name} agrees, group roles of"
        " {parent_name} will reach it. Who pays doesn't change.\n\nThe request is {org_link_id} and can be answered"
        " until {expires_at}. If you do nothing, nothing happens.\n",
    ),
    ASSIST_REQUESTED: (
        "{helper} asks for a support session in {org_name}",
        "{helper} asks for a support session ({mode}, {ttl_minutes} minutes) in {org_name}.\n\nPurpose: {purpose}\n"
        "Reason: {reason}\nTicket: {ticket}\n\nNothing is seen before an Admin approves. The request is"
        " {assist_session_id}, open until {expires_at}.\n",
    ),
    ASSIST_STARTED: (
        "{helper} started a support session in {org_name}",
        "{helper} started a support session ({mode}) in {org_name} that ends at {expires_at} at the latest.\n\n"
        "Purpose: {purpose}\nReason: {reason}\nTicket: {ticket}\n\nAn Admin can end it at any time; it is"
        " {assist_session_id}. Everything done in it is in the audit under both names.\n",
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
