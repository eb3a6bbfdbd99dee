"""The bus of one process: two connections, a relay, and an intake for each family of queues.

Rule: docs/rules/bus.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError

from eb_contracts.base import EntityFact, Message
from eb_contracts.coherence import IdsMissing, IdsSent, WindowsHandled, WindowsSent
from eb_contracts.snapshots import SnapshotCompleted, SnapshotRequested

from .. import coherence, outbox, readmodels
from .. import topology as model
from ..clock import Clock
from ..db import WEATHER
from ..telemetry import current_trace
from ..touch import CONSUME, PUBLISH
from .catchup import CatchUp
from .envelope import Envelope
from .handlers import Family, Handlers
from .intake import Intake, Limits
from .kept import Kept, comes_back
from .link import BusUnavailable, Link
from .publisher import Publisher, publish_surely
from .pulse import Pulse, ask_by_publishing, ask_by_setting
from .takes import DeadImporter, Taker

if TYPE_CHECKING:
    from ..service import ServiceContext
    from ..tx import Tx

log = structlog.get_logger(__name__)

ASK_S = 0.5
LOOK_S = 2.0
LAST_WORDS_S = 2.0
DIRECT_S = 1.5
ASK_BROKER_S = 1.0
FACTS_AT_ONCE = Limits(max_messages=500, max_weight=500, linger_s=0.005, prefetch=500)
COMPARED_AT_ONCE = Limits(max_messages=20, max_weight=20, linger_s=0.02, prefetch=20)
DEAD_AT_ONCE = Limits(max_messages=100, max_weight=100_000, linger_s=0.05, prefetch=100)


class Bus:
    """What a service's process sees of the bus."""

    def __init__(self, context: ServiceContext, handlers: Handlers) -> None:
        """Check the handlers against the topology; ValueError where the model doesn't know one."""
        self._context = context
        self._handlers = handlers
        service = context.service_name
        self._publishing = Link(self._url, service, PUBLISH)
        self._consuming = Link(self._url, service, CONSUME)
        self._direct = Publisher(self._publishing, service, f"{service}/direct")
        self._aside = Publisher(self._publishing, service)
        self._relay = outbox.Relay(context.pool, Publisher(self._publishing, service), service)
        self._intakes: list[Intake] = []
        self.kept = Kept(context, self._direct, self)
        self._coherence = coherence.Coherence(context, self)
        self.keeps = _kept(service, handlers)
        self._has_all = False
        self._catch_up = CatchUp(context, self, model.facts_queue(service))
        _check_families(service, handlers)

    def _url(self) -> str:
        return str(self._context.settings.amqp_url)

    async def start(self, *, consume: bool) -> None:
        """Start the tasks; connections are made in the background, and again whenever they are lost."""
        start = self._context.supervisor.start
        start("bus:publish", self._publishing.run)
        start("bus:pulse:publish", self._pulse(self._publishing, ask_by_publishing, PUBLISH).run)
        start("bus:relay", self._relay.run)
        start("bus:measure", self._relay.measure_for_ever)
        start("bus:kept", self.kept.run)
        if "jobs" in self._context.doors:
            start("bus:compare", self._coherence.run)
        if not consume:
            start("bus:catch-up", partial(self._catch_up.run, self._publishing))
            return
        start("bus:consume", self._consuming.run)
        start("bus:pulse:consume", self._pulse(self._consuming, ask_by_setting, CONSUME).run)
        start("bus:snapshots", self._ask_for_snapshots)
        self._intakes = self._make_intakes()
        for intake in self._intakes:
            start(f"bus:{intake.name}", intake.run)
        start("bus:catch-up", partial(self._catch_up.run, self._consuming, self._intakes[0]))

    def _pulse(self, link: Link, ask: Callable[[Channel], Awaitable[object]], source: str) -> Pulse:
        return Pulse(link, ask, partial(self._context.touch.note, source))

    def wake(self) -> None:
        """Tell the relay that rows were committed."""
        self._relay.wake()

    async def publish_now(self, messages: Sequence[Message | Envelope], timeout_s: float = DIRECT_S) -> None:
        """Publish past the outbox and wait for the confirms; keep what this service handles itself until it has.

        BusUnavailable where they don't come in time: the messages may still arrive, so whoever sends them
        again uses the same Envelope (`wrap`).
        """
        envelopes = [self.wrap(message) for message in messages]
        await publish_surely(self._direct, envelopes, timeout_s)
        self.kept.add(comes_back(self._context.service_name, envelopes))

    def wrap(self, message: Message | Envelope) -> Envelope:
        """Give the message its id and trace, once."""
        if isinstance(message, Envelope):
            return message
        return Envelope.of(message, trace=current_trace(), now=self._context.clock.machine_now())

    async def readiness(self) -> dict[str, bool]:
        """Say whether the read models are complete and in memory, and hold what was said while nobody listened.

        A broker that goes away later doesn't matter: what was known last goes on, and the outbox waits.
        """
        try:
            self._has_all = await self._look_whether_complete()
        except WEATHER:
            self._has_all = False
        return {"read_models": self._has_all, "caught_up": self._catch_up.is_done}

    async def _look_whether_complete(self) -> bool:
        """Tell whether nothing is missing; memory is brought up to date before it is said for the first time."""
        needed = set(self._entities()) - self._handlers.followed
        if await readmodels.incomplete(self._context.pool, needed):
            return False
        if not self._has_all:
            await self._context.directory.refresh()
        return True

    async def caught_up_or_cut_off(self) -> None:
        """Wait until what was said before this process began is known, or the broker turns out to be away."""
        await self._catch_up.done_or_cut_off()

    async def rebuild(self, entity: str) -> None:
        """Forget a read model and fill it from its owner again."""
        async with self._context.begin(f"system:{self._context.service_name}") as tx:
            await readmodels.rebuild(tx, entity, Clock.machine_now())

    async def stop(self) -> None:
        """Drain: stop fetching, finish and acknowledge what is in hand, send what waits, close."""
        await asyncio.gather(*(intake.drain() for intake in self._intakes))
        names = [f"bus:{intake.name}" for intake in self._intakes]
        stop = self._context.supervisor.stop
        names += ["bus:pulse:consume", "bus:pulse:publish"]
        await stop(*names, "bus:snapshots", "bus:kept", "bus:compare", "bus:relay", "bus:measure")
        await self.kept.hand_over()
        await self._say_last_words()
        await stop("bus:consume", "bus:publish")
        await asyncio.gather(self._consuming.close(), self._publishing.close())

    async def _say_last_words(self) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                while self._publishing.is_up and await self._relay.send_some():
                    pass
        except WEATHER as error:
            log.warning("the outbox keeps the rest for the next process", error=repr(error))

    async def ready(self, queues: Collection[str]) -> dict[str, int]:
        """Count what waits in the broker for us; nothing is said of queues where it doesn't answer."""
        found: dict[str, int] = {}
        try:
            channel = await (self._consuming if self._consuming.is_up else self._publishing).channel()
            try:
                async with asyncio.timeout(ASK_BROKER_S):
                    for queue in queues:
                        told = await channel.queue_declare(queue, passive=True)
                        found[queue] = told.message_count or 0
            finally:
                await channel.close()
        except (BusUnavailable, AMQPError, ConnectionError, TimeoutError) as error:
            log.info("the broker doesn't say what waits", error=repr(error))
        return found

    def in_hand(self, queue: str) -> set[UUID]:
        """Name what this process was delivered from a queue and hasn't settled."""
        return set().union(*(intake.in_hand(queue) for intake in self._intakes))

    def _entities(self) -> list[str]:
        return [fact.ENTITY for fact in self.keeps.values()]

    def _make_intakes(self) -> list[Intake]:
        context, service = self._context, self._context.service_name
        facts = Taker(context, self._facts_family(), self._aside, ignores_unknown=True)
        intakes = [
            Intake("facts", self._consuming, [model.facts_queue(service)], FACTS_AT_ONCE, facts),
            Intake("dead", self._consuming, [model.dead_queue(service)], DEAD_AT_ONCE, DeadImporter(context)),
        ]
        compare = Taker(context, self._coherence_family(), self._aside)
        comparing = [model.coherence_queue(service)]
        intakes.append(Intake("coherence", self._consuming, comparing, COMPARED_AT_ONCE, compare))
        streams = model.streams_of(service)
        for family in self._handlers.families.values():
            limits = Limits(family.max_messages, family.max_weight, family.linger_s, family.prefetch)
            taker = Taker(context, family, self._aside)
            intakes.append(Intake(family.name, self._consuming, streams[family.name].queues, limits, taker))
        return intakes

    def _facts_family(self) -> Family:
        family = Family("facts")
        for fact in self.keeps.values():
            family.handlers[fact.TYPE] = (fact, self._keep_facts)
        family.handlers[SnapshotRequested.TYPE] = (SnapshotRequested, self._send_snapshots)
        family.handlers[SnapshotCompleted.TYPE] = (SnapshotCompleted, self._note_completed)
        return family

    def _coherence_family(self) -> Family:
        both, family = self._coherence, Family("coherence")
        family.handlers[WindowsSent.TYPE] = (WindowsSent, both.tell_handled)
        family.handlers[WindowsHandled.TYPE] = (WindowsHandled, both.settle)
        family.handlers[IdsSent.TYPE] = (IdsSent, both.tell_missing)
        family.handlers[IdsMissing.TYPE] = (IdsMissing, both.send_again)
        return family

    async def _keep_facts(self, tx: Tx, facts: list[EntityFact]) -> None:
        newer = await readmodels.keep(tx.connection, facts, Clock.machine_now())
        for type_, hook in self._handlers.hooks.items():
            if found := [fact for fact in newer if type_ == fact.TYPE]:
                await hook(tx, found)

    async def _send_snapshots(self, tx: Tx, requests: list[SnapshotRequested]) -> None:
        await readmodels.send_snapshots(tx, requests, self._handlers.owned)

    async def _note_completed(self, tx: Tx, completed: list[SnapshotCompleted]) -> None:
        await readmodels.note_completed(tx, completed, Clock.machine_now())

    async def _ask_for_snapshots(self) -> None:
        """Ask for what isn't complete, and see what has become so."""
        while True:
            is_complete = False
            try:
                is_complete = await self._ask_once()
            except WEATHER as error:
                log.warning("snapshots wait for the database", error=repr(error))
            await asyncio.sleep(LOOK_S if is_complete else ASK_S)

    async def _ask_once(self) -> bool:
        if not await readmodels.incomplete(self._context.pool, self._entities()):
            return True
        async with self._context.begin(f"system:{self._context.service_name}") as tx:
            asked = await readmodels.ask_missing(tx, self._entities(), Clock.machine_now())
            await readmodels.settle(tx, Clock.machine_now())
        if asked:
            log.info("asked for snapshots", entities=asked)
        return False


def _kept(service: str, handlers: Handlers) -> dict[str, type[EntityFact]]:
    """Give the facts to keep: the standard ones and the service's own, less what it owns itself."""
    heard = {fact.TYPE for fact in model.FACTS.get(service, ())}
    wanted = {fact.TYPE: fact for fact in model.STANDARD_FACTS if fact.TYPE in heard} | handlers.kept
    kept = {type_: fact for type_, fact in wanted.items() if fact.ENTITY not in handlers.owned}
    if unheard := sorted(set(kept) - heard):
        raise ValueError(f"{service} keeps {unheard}, which eb_kit.topology.FACTS doesn't bind to it")
    return kept


def _check_families(service: str, handlers: Handlers) -> None:
    streams = model.streams_of(service)
    for family in handlers.families.values():
        if family.name not in streams:
            raise ValueError(f"eb_kit.topology.STREAMS has no family {family.name} of {service}")
        bound = {message.TYPE for message in streams[family.name].messages}
        if bound != set(family.handlers):
            raise ValueError(
                f"{service}.{family.name}: bound {sorted(bound)}, handled {sorted(family.handlers)}"
            )
