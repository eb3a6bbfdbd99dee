"""Shapes of assist sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field

from eb_kit.inputs import Input, Text, View

from ..domain.assist import MOST_MINUTES, AssistSession, Mode, Purpose


class StartAssist(Input):
    """An assist session to be started; `ttl_minutes` at most 60."""

    org_id: UUID
    purpose: Purpose
    reason: Annotated[str, Text(10, 500)]
    ticket: Annotated[str, Text(1, 200)] | None = None
    ttl_minutes: Annotated[int, Field(ge=1, le=MOST_MINUTES)]
    mode: Mode = "read_only"


class AssistTokenView(View):
    """A begun assist session with its access token, which is shown here only and can't be refreshed."""

    assist_session_id: UUID
    access_token: str
    expires_at: datetime
    mode: str


class AssistView(View):
    """An assist session; a pending one waits for an Admin of the organisation."""

    assist_session_id: UUID
    org_id: UUID
    user_id: UUID
    mode: str
    purpose: str
    reason: str
    ticket: str | None
    ttl_minutes: int
    status: str
    requested_at: datetime
    decided_at: datetime | None
    begun_at: datetime | None
    expires_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, assist: AssistSession, now: datetime) -> Self:
        """Show an assist session."""
        return cls(**_members(assist, now))


class ListedAssistView(AssistView):
    """An assist session with who helped."""

    email: str

    @classmethod
    def with_email(cls, assist: AssistSession, email: str, now: datetime) -> Self:
        """Show an assist session in the organisation's list."""
        return cls(**_members(assist, now), email=email)


def _members(assist: AssistSession, now: datetime) -> dict[str, object]:
    members = {name: getattr(assist, name) for name in AssistView.model_fields}
    return {**members, "status": assist.status_at(now)}
