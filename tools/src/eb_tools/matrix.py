"""What the policy file means for every route × every kind of caller: the cells that a test tries and a page shows.

One organisation stands in the middle, with another above, beside and below it, and a stranger. Rule:
docs/rules/identity.md, Roles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from eb_kit.access import OPEN_ROWS
from eb_kit.policy import GROUP_ROLES, ORG_ROLES, PLATFORM_ROLES, known_scopes, policy

Want = Literal["401", "hidden", "refused", "passes"]
Names = frozenset[str]
NONE: Names = frozenset()
SIGNED_IN = frozenset({"signed_in"})
SCOPES = tuple(sorted(scope for scope in known_scopes() if not scope.endswith(":tree")))
KEY_NAMES = frozenset(f"key:{scope}" for scope in SCOPES)
PLACES = ("above", "beside", "below")


@dataclass(frozen=True)
class Actor:
    """A kind of caller: the names it goes by towards the organisation in the middle, its parent and its child.

    `anywhere` is empty for who isn't recognised at all. `is_person`: signed in with a session and an address.
    """

    name: str
    names: Names = NONE
    anywhere: Names = NONE
    above: Names = NONE
    below: Names = NONE
    is_person: bool = False


def _actors() -> Iterator[Actor]:
    for name in ("nobody", "a made-up token", "an Operator, expired", "an Operator, for somebody else"):
        yield Actor(name)
    for name in ("another tenant's User", "another tenant's Admin", "signed in, no organisation"):
        yield Actor(name, anywhere=SIGNED_IN, is_person=True)
    for role in sorted(ORG_ROLES, reverse=True):
        yield Actor(f"own {role}", frozenset({role}), SIGNED_IN | {role}, is_person=True)
    yield Actor("Admin above", anywhere=SIGNED_IN | {"Admin"}, above=frozenset({"Admin"}), is_person=True)
    for place in PLACES:
        for role in sorted(GROUP_ROLES):
            yield _in_group(role, place)
    for role in sorted(PLATFORM_ROLES):
        yield _everywhere(role, role, SIGNED_IN)
    yield _everywhere("trusted system", "service")
    yield Actor("key with every scope", KEY_NAMES, KEY_NAMES)
    for scope in ("catalog:read", "ledger:read"):
        one = frozenset({f"key:{scope}"})
        yield Actor(f"key with {scope}", one, one)
    yield Actor("key of above, :tree", KEY_NAMES, KEY_NAMES, KEY_NAMES, KEY_NAMES)
    yield Actor("key of above, without", NONE, KEY_NAMES, above=KEY_NAMES)
    yield Actor("key of beside, :tree", NONE, KEY_NAMES)
    for mode in ("ro", "rw"):
        inside = frozenset({f"assist_{mode}"})
        yield Actor(f"assist, {mode}", inside, inside)


def _in_group(role: str, place: str) -> Actor:
    """Somebody with a group role on the organisation above, beside or below, where they are a User as well."""
    held = frozenset({role})
    on_it = held | {"User"}
    return Actor(
        f"{role} {place}",
        held if place == "above" else NONE,
        SIGNED_IN | held,
        above=on_it if place == "above" else NONE,
        below={"above": held, "below": on_it}.get(place, NONE),
        is_person=True,
    )


def _everywhere(name: str, role: str, further: Names = NONE) -> Actor:
    held = frozenset({role})
    return Actor(name, held, held | further, held, held)


ACTORS = tuple(_actors())
Rule = Callable[[Names, Actor], Want | None]
"""What a policy row means for a caller; None: there is nothing of theirs to try it with."""


def by_row(row: Names, actor: Actor) -> Want:
    """Judge by the names towards the organisation in the middle."""
    if row & OPEN_ROWS:
        return "passes"
    if not actor.anywhere:
        return "401"
    if row.isdisjoint(ORG_ROLES | GROUP_ROLES):
        return "passes" if row & actor.anywhere else "refused"
    return _by_names(row, actor.names)


def _by_names(row: Names, names: Names) -> Want:
    if row & names:
        return "passes"
    return "refused" if names else "hidden"


def _for_recognised(judge: Callable[[Names, Actor], Want | None]) -> Rule:
    """Leave 401, and the trusted system that no organisation could help, to the row."""

    def rule(row: Names, actor: Actor) -> Want | None:
        is_known = bool(actor.anywhere) and actor.names != {"service"}
        return judge(row, actor) if is_known else by_row(row, actor)

    return rule


def _on_it_or_above(row: Names, actor: Actor) -> Want:
    return _by_names(row, actor.names | actor.above)


def _on_all_three(row: Names, actor: Actor) -> Want:
    """First what the organisation itself says; then each place must be seen, then each allowed."""
    if (first := _by_names(row, actor.names)) != "passes":
        return first
    others = (actor.above, actor.below)
    if not all(others):
        return "hidden"
    return "passes" if all(row & names for names in others) else "refused"


def _only_own(row: Names, actor: Actor) -> Want:
    """Somebody else's: there for the Operator, who may."""
    want = by_row(row, actor)
    return "hidden" if want == "passes" and not row & actor.names else want


def _own(row: Names, actor: Actor) -> Want | None:
    want = by_row(row, actor)
    return want if actor.is_person or want != "passes" else None


def _begun_by(name: str) -> Rule:
    """Who began it may end it; all others need a role on the organisation for that."""

    def rule(row: Names, actor: Actor) -> Want:
        return "passes" if actor.name == name else by_row(row - {"Support", "GroupSupport"}, actor)

    return rule


def _another_member(row: Names, actor: Actor) -> Want:
    return by_row(row - {"User"}, actor)


RULES: Mapping[str, Mapping[str, Rule]] = {
    "POST /orgs/{org_id}:detach": {"": _for_recognised(_on_it_or_above)},
    "POST /orgs/{org_id}:move": {"below its child": _for_recognised(_on_all_three)},
    "DELETE /auth/sessions/{session_id}": {"another's": _only_own, "one's own": _own},
    "POST /invitations:accept": {"another's": _only_own, "one's own": _own},
    "DELETE /orgs/{org_id}/members/{user_id}": {"another": _another_member, "oneself": by_row},
    "POST /assist-sessions/{assist_session_id}:end": {
        "begun by Support": _begun_by("Support"),
        "begun by GroupSupport above": _begun_by("GroupSupport above"),
    },
}
"""Routes where more counts than the names towards one organisation: what they are tried about, and who may then."""
JUST_BY_ROW: Mapping[str, Rule] = {"": by_row}


class Trial(NamedTuple):
    """A route, what it is tried about, and what each caller is to get."""

    service: str
    route: str
    about: str
    wants: Mapping[str, Want | None]

    @property
    def title(self) -> str:
        """Give the route, and what it is about where that matters."""
        return f"`{self.route}`" + (f" ({self.about})" if self.about else "")


def trials() -> list[Trial]:
    """Give every route of the policy file with what each kind of caller is to get, by its name."""
    return [
        Trial(service, route, about, {actor.name: rule(row, actor) for actor in ACTORS})
        for service, rows in policy().items()
        for route, row in rows.items()
        for about, rule in RULES.get(route, JUST_BY_ROW).items()
    ]
