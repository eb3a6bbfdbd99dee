"""What a service registers: who handles which messages, which facts it keeps, which entities it owns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from eb_contracts.base import EntityFact, Message

if TYPE_CHECKING:
    from ..tx import Tx

M = TypeVar("M", bound=Message)
F = TypeVar("F", bound=EntityFact)
Handler = Callable[["Tx", list[M]], Awaitable[None]]
Hook = Callable[["Tx", list[F]], Awaitable[None]]
Lister = Callable[["Tx", "str | None", int], Awaitable[Sequence[EntityFact]]]


class Poison(Exception):
    """This message can never work: it goes to the dead letters at once. `code` is its stable class."""

    def __init__(self, reason: str, *, code: str = "poison") -> None:
        super().__init__(reason)
        self.code = code


@dataclass(slots=True)
class Family:
    """The handlers of one family of queues, and how much of it one take may hold.

    A take starts with what is there, waits `linger_s` for more, and ends at `max_messages` or when the
    weights (events inside) reach `max_weight`.
    """

    name: str
    max_messages: int = 500
    max_weight: int = 10_000
    linger_s: float = 0.02
    prefetch: int = 64
    handlers: dict[str, tuple[type[Message], Handler[Any]]] = field(default_factory=dict)


class Handlers:
    """The bus doors of a service; filled by its `consumers.py`."""

    def __init__(self) -> None:
        self.families: dict[str, Family] = {}
        self.kept: dict[str, type[EntityFact]] = {}
        self.followed: set[str] = set()
        self.hooks: dict[str, Hook[Any]] = {}
        self.owned: dict[str, Lister] = {}

    def consumes(
        self, message: type[M], queue: str, **limits: Any
    ) -> Callable[[Callable[[Tx, list[M]], Awaitable[None]]], Callable[[Tx, list[M]], Awaitable[None]]]:
        """Handle a take of these messages from the family `queue`; `limits` as in `Family`."""
        family = self.families.setdefault(queue, Family(queue))
        for name, value in limits.items():
            setattr(family, name, value)

        def enter(handler: Callable[[Tx, list[M]], Awaitable[None]]) -> Any:
            if family.handlers.setdefault(message.TYPE, (message, handler))[1] is not handler:
                raise ValueError(f"two handlers of {message.TYPE} in family {queue}")
            return handler

        return enter

    def keeps(self, *facts: type[EntityFact]) -> Callable[[Hook[Any]], Hook[Any]]:
        """Keep these facts in `known`; as a decorator, call the function with those that were newer."""
        for fact in facts:
            self.kept[fact.TYPE] = fact

        def enter(hook: Hook[Any]) -> Hook[Any]:
            for fact in facts:
                self.hooks[fact.TYPE] = hook
            return hook

        return enter

    def follows(self, *facts: type[EntityFact]) -> None:
        """Keep these facts, too, but be ready without them: where one is missing, something is only not shown yet."""
        self.keeps(*facts)
        self.followed |= {fact.ENTITY for fact in facts}

    def owns(self, entity: str, lister: Lister) -> None:
        """Answer snapshot requests for an entity: `lister(tx, after_id, limit)` gives facts ordered by id."""
        self.owned[entity] = lister
