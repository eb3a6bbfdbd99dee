"""Doors of assist sessions: the support staff starts and ends them, the organisation's Admins have the say."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_contracts.ids import new_id
from eb_kit.access import Caller, Forbidden, TokenInvalid, caller, reach
from eb_kit.paging import page_of, read_cursor
from eb_kit.policy import ASSIST_MODES
from eb_kit.service import CONTEXT
from eb_kit.tx import Tx, begin
from eb_kit.web import Page, accepted, created, ok, path_uuid, read_body, read_query

from ..domain.assist import ANSWER_WITHIN, AssistSession, end_of, is_open
from ..domain.errors import AssistNotPending, AssistOff
from ..domain.mails import ASSIST_REQUESTED, ASSIST_STARTED
from ..domain.sessions import Session
from ..domain.tokens import AssistGrant, Grant
from ..flows import assisting, mails, signing
from ..store import assist as store
from ..store import members, sessions, sign_in
from .assist_shapes import AssistTokenView, AssistView, ListedAssistView, StartAssist
from .routes import routes

ENDERS = frozenset({"Admin", "Operator"})


@routes.post(
    "/assist-sessions",
    body=StartAssist,
    answer=AssistTokenView | AssistView,
    status=201,
    other_statuses=(202,),
    stores_secret=True,
    errors=(NotFound, AssistOff),
    step_up=True,
)
async def start_assist(request: web.Request) -> web.Response:
    """Start an assist session: 201 with its token, or 202 where an Admin of the organisation is asked first.

    Once they have approved, the same request again is 201. The Admins are told by mail.
    """
    body = await read_body(request, StartAssist)
    await reach(request, body.org_id)
    async with begin(request) as tx:
        policy, org_name = await store.get_policy(tx, body.org_id)
        own, via_org_id = await _lock_right(request, tx, body.org_id)
        if policy == "off":
            raise AssistOff
        asked = _asked(tx, own, via_org_id, body)
        kept = await store.lock_same_request(tx, asked)
        if policy == "approve" and (kept is None or kept.status == "pending"):
            return tx.answer(accepted(AssistView.of(kept or await _ask(tx, asked, org_name), tx.now)))
        begun = _begun(tx, kept or asked, own)
        await (store.insert_assist(tx, begun) if kept is None else store.update_begun(tx, begun))
        await _tell_admins(tx, ASSIST_STARTED, begun, org_name)
        return tx.answer(created(await _with_token(tx, begun, own)))


async def _lock_right(request: web.Request, tx: Tx, org_id: UUID) -> tuple[Session, UUID | None]:
    """Lock what lets the caller help; give their own session and where their group role is (None: the platform's).

    Who takes the role or ends the session waits, and so voids the token that is made here.
    """
    who = caller(request)
    assert who.user_id is not None
    assert who.session_id is not None
    own = await sessions.lock_session(tx, who.session_id)
    if own is None or not own.is_live(tx.now):
        raise TokenInvalid
    if "Support" in who.names_in(org_id, request.app[CONTEXT].directory):
        has_role, via_org_id = "Support" in await members.lock_platform_roles(tx, who.user_id), None
    else:
        has_role, via_org_id = await _has_group_role(tx, who), who.org_id
    if not has_role:
        raise Forbidden
    return own, via_org_id


async def _has_group_role(tx: Tx, who: Caller) -> bool:
    assert who.user_id is not None
    assert who.org_id is not None
    await members.lock_role(tx, who.org_id, who.user_id)
    held = await members.find_group_role(tx, who.org_id, who.user_id)
    return held is not None and held.role == "GroupSupport"


def _asked(tx: Tx, own: Session, via_org_id: UUID | None, body: StartAssist) -> AssistSession:
    return AssistSession(
        assist_session_id=new_id(),
        user_id=own.user_id,
        session_id=own.session_id,
        via_org_id=via_org_id,
        status="pending",
        requested_at=tx.now,
        decided_by=None,
        decided_at=None,
        begun_at=None,
        expires_at=tx.now + ANSWER_WITHIN,
        ended_by=None,
        ended_at=None,
        **body.model_dump(),
    )


async def _ask(tx: Tx, asked: AssistSession, org_name: str) -> AssistSession:
    await store.insert_assist(tx, asked)
    await _tell_admins(tx, ASSIST_REQUESTED, asked, org_name)
    return asked


def _begun(tx: Tx, assist: AssistSession, own: Session) -> AssistSession:
    """Give a session as it begins now, on the helper's present session."""
    ends_at = end_of(assist.ttl_minutes, tx.now, min(own.idle_expires_at, own.expires_at))
    return replace(assist, status="active", session_id=own.session_id, begun_at=tx.now, expires_at=ends_at)


async def _with_token(tx: Tx, begun: AssistSession, own: Session) -> AssistTokenView:
    about = AssistGrant(begun.user_id, begun.via_org_id, begun.expires_at)
    grant = Grant(
        user_id=begun.assist_session_id,
        session_id=own.session_id,
        org_id=begun.org_id,
        roles=(ASSIST_MODES[begun.mode],),
        signed_in_at=own.signed_in_at,
        assist=about,
    )
    return AssistTokenView(
        assist_session_id=begun.assist_session_id,
        access_token=await signing.access_token(tx, grant, begun.expires_at - tx.now),
        expires_at=begun.expires_at,
        mode=begun.mode,
    )


async def _tell_admins(tx: Tx, kind: str, assist: AssistSession, org_name: str) -> None:
    helper = await sign_in.get_user(tx, assist.user_id)
    facts = {
        "helper": helper.email,
        "org_name": org_name,
        "assist_session_id": str(assist.assist_session_id),
        "mode": assist.mode.replace("_", " "),
        "ttl_minutes": str(assist.ttl_minutes),
        "purpose": assist.purpose.replace("_", " "),
        "reason": assist.reason,
        "ticket": assist.ticket or "none",
        "expires_at": f"{assist.expires_at:%Y-%m-%d %H:%M} UTC",
    }
    await mails.queue_for_admins(tx, assist.org_id, kind, facts, assist.requested_at + ANSWER_WITHIN)


@routes.post("/assist-sessions/{assist_session_id}:end", answer=AssistView, errors=(NotFound,))
async def end_assist(request: web.Request) -> web.Response:
    """End an assist session: who started it, an Admin of the organisation, the Operator; 200 with it, again too."""
    async with begin(request) as tx:
        assist = await store.lock_assist(tx, path_uuid(request, "assist_session_id"))
        who = caller(request)
        if who.kind != "user" or who.user_id != assist.user_id:
            await reach(request, assist.org_id, roles=ENDERS)
        if assist.status in ("pending", "approved", "active"):
            assist = await assisting.end_assist(tx, assist)
        return tx.answer(ok(AssistView.of(assist, tx.now)))


@routes.post(
    "/assist-sessions/{assist_session_id}:approve",
    answer=AssistView,
    errors=(NotFound, AssistNotPending),
    step_up=True,
)
async def approve_assist(request: web.Request) -> web.Response:
    """Let the support staff in: an Admin of the organisation; 200 with the session, again too."""
    return await _decide(request, "approved")


@routes.post(
    "/assist-sessions/{assist_session_id}:decline", answer=AssistView, errors=(NotFound, AssistNotPending)
)
async def decline_assist(request: web.Request) -> web.Response:
    """Keep the support staff out: an Admin of the organisation; 200 with the session, again too."""
    return await _decide(request, "declined")


async def _decide(request: web.Request, status: str) -> web.Response:
    async with begin(request) as tx:
        assist = await store.lock_assist(tx, path_uuid(request, "assist_session_id"))
        await reach(request, assist.org_id)
        if is_open(assist, status, tx.now):
            decision = {"status": status, "decided_by": tx.actor, "decided_at": tx.now}
            assist = await store.update_assist(tx, assist.assist_session_id, decision)
        return tx.answer(ok(AssistView.of(assist, tx.now)))


@routes.get("/orgs/{org_id}/assist-sessions", query=Page, answer=list[ListedAssistView], errors=(NotFound,))
async def list_assists(request: web.Request) -> web.Response:
    """List an organisation's assist sessions with who helped and why, newest first."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    query = read_query(request, Page)
    last = read_cursor(request, query)
    async with begin(request) as tx:
        found = await store.list_assists(
            tx, org_id, last["assist_session_id"] if last else None, query.limit + 1
        )
    views = [ListedAssistView.with_email(shown.assist, shown.email, tx.now) for shown in found]
    return page_of(request, query, views, lambda view: {"assist_session_id": view.assist_session_id})
