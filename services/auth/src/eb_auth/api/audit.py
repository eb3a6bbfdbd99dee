"""Doors of the audit: the chained entries of all services, their proof, and their export."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from aiohttp import web
from pydantic import Field, StringConstraints

from eb_contracts.errors import Fault, NotFound
from eb_kit.access import reach
from eb_kit.inputs import Input, Page, Text, View
from eb_kit.paging import page_of, read_cursor
from eb_kit.problems import SAFE_HEADERS, ParameterInvalid
from eb_kit.service import CONTEXT
from eb_kit.tx import begin
from eb_kit.web import ok, path_uuid, read_query

from ..domain.audit import PLATFORM, Link
from ..flows import auditing
from ..store import audit as store
from .routes import routes

LINES = "application/x-ndjson"
Word = Annotated[str, Text(1, 200)]
Action = Literal["insert", "update", "delete"]
Personal = dict[UUID, dict[str, tuple[str | None, str | None]]]


class AuditQuery(Page):
    """Which entries; `at_from` is inclusive, `at_to` is not. `format=jsonl` exports the chain, oldest first."""

    entity: Word | None = None
    entity_id: Word | None = None
    actor: Word | None = None
    action: Action | None = None
    service: Word | None = None
    at_from: datetime | None = None
    at_to: datetime | None = None
    format: Literal["json", "jsonl"] = "json"


class AuditEntryView(View):
    """One write to an audited table. Personal values show until they are erased, then their commitment does."""

    seq: int
    audit_id: UUID
    service: str
    entity: str
    entity_id: str
    action: Action
    actor: str
    on_behalf_of: str | None
    session_user: str
    request_id: str | None
    trace_id: str | None
    at: datetime
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    hash: str

    @classmethod
    def of(cls, link: Link, personal: Personal) -> AuditEntryView:
        """Show a link, with the personal values that were not erased."""
        values = personal.get(link.entry.audit_id, {})
        return cls(
            seq=link.seq,
            service=link.service,
            hash=link.hash.hex(),
            before=_row(link.entry.before, {name: before for name, (before, _) in values.items()}),
            after=_row(link.entry.after, {name: after for name, (_, after) in values.items()}),
            **link.entry.model_dump(exclude={"org_id", "before", "after"}),
        )


def _row(text: str | None, personal: dict[str, str | None]) -> dict[str, Any] | None:
    """Read a row as it was noted; numbers stay text, so that no digit is lost."""
    if text is None:
        return None
    row: dict[str, Any] = json.loads(text, parse_float=str)
    return row | {name: value for name, value in personal.items() if value is not None}


class ProofQuery(Input):
    """What the caller kept of an earlier proof: `entries` as `seq`, and `head_hash` as `hash`. Both or none."""

    seq: Annotated[int, Field(ge=1, le=2**62)] | None = None
    hash: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None


class ProblemView(View):
    """The first entry of a chain that isn't as it was written; `audit_id` is null where the row is missing.

    `rolled_back`: entries from this one on are known to have been there. `rewritten`: another one is known.
    """

    seq: int
    audit_id: UUID | None
    problem: Literal["changed", "missing", "head_forged", "rolled_back", "rewritten"]


class AuditProofView(View):
    """Whether a chain is whole: how many entries, the hash of the last, and the first that is wrong.

    Keep `entries` and `head_hash`, and ask with them the next time. `holds_kept` says whether all up to the kept
    entry is as it was, null where nothing was asked.
    """

    valid: bool
    entries: int
    head_hash: str
    first_bad: ProblemView | None
    holds_kept: bool | None = None


@routes.get(
    "/orgs/{org_id}/audit",
    query=AuditQuery,
    answer=list[AuditEntryView],
    other_answer_types=(LINES,),
    errors=(NotFound,),
)
async def list_audit(request: web.Request) -> web.StreamResponse:
    """List the audited changes of an organisation in all services, newest first; or export them as JSON lines."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    return await _listed(request, org_id)


@routes.get("/platform/audit", query=AuditQuery, answer=list[AuditEntryView], other_answer_types=(LINES,))
async def list_platform_audit(request: web.Request) -> web.StreamResponse:
    """List the audited changes that belong to no organisation: catalog, rates, partners, platform roles."""
    return await _listed(request, PLATFORM)


@routes.get("/orgs/{org_id}/audit:verify", query=ProofQuery, answer=AuditProofView, errors=(NotFound,))
async def verify_audit(request: web.Request) -> web.Response:
    """Prove the chain of an organisation: every hash is computed again, up to the sealed head.

    It must hold the head that was noted of it last, and the entry that the caller kept.
    """
    org_id = path_uuid(request, "org_id")
    query = read_query(request, ProofQuery)
    await reach(request, org_id)
    head, problem = await auditing.check_chain(
        lambda: begin(request), request.app[CONTEXT].settings, org_id, _kept(query)
    )
    return ok(
        AuditProofView(
            valid=problem is None,
            entries=head.seq,
            head_hash=head.hash.hex(),
            first_bad=ProblemView.model_validate(problem._asdict()) if problem else None,
            holds_kept=None if query.seq is None else problem is None or problem.seq > query.seq,
        )
    )


def _kept(query: ProofQuery) -> list[tuple[int, bytes]]:
    """Give number and hash of what the caller kept; refuse one without the other."""
    if (query.seq is None) != (query.hash is None):
        missing = "seq" if query.seq is None else "hash"
        raise ParameterInvalid(faults=(Fault(f"/{missing}", "required", "Give both `seq` and `hash`."),))
    return [] if query.seq is None or query.hash is None else [(query.seq, bytes.fromhex(query.hash))]


async def _listed(request: web.Request, chain_id: UUID) -> web.StreamResponse:
    query = read_query(request, AuditQuery)
    if query.format == "jsonl":
        return await _exported(request, chain_id)
    last = read_cursor(request, query)
    filters = query.model_dump(include={"entity", "entity_id", "actor", "action", "service"})
    filters |= {"start": query.at_from, "end": query.at_to}
    async with begin(request) as tx:
        links = await store.list_newest_links(
            tx, chain_id, filters, last["seq"] if last else None, query.limit + 1
        )
        personal = await store.list_personal(tx, [link.entry.audit_id for link in links])
    views = [AuditEntryView.of(link, personal) for link in links]
    return page_of(request, query, views, lambda view: {"seq": view.seq})


async def _exported(request: web.Request, chain_id: UUID) -> web.StreamResponse:
    """Stream a chain as JSON lines, one entry each, as it stands when the export begins."""
    async with begin(request) as tx:
        sealed = await store.find_head(tx, chain_id)
    response = web.StreamResponse(headers={**SAFE_HEADERS, "Content-Type": LINES})
    await response.prepare(request)
    async for links in auditing.chain_pages(
        lambda: begin(request), chain_id, sealed.head.seq if sealed else 0
    ):
        async with begin(request) as tx:
            personal = await store.list_personal(tx, [link.entry.audit_id for link in links])
        lines = (AuditEntryView.of(link, personal).model_dump_json() for link in links)
        await response.write("".join(f"{line}\n" for line in lines).encode())
    await response.write_eof()
    return response
