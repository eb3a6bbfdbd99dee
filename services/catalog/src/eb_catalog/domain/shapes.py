"""Which price shapes are well-formed: what `plan_sku.tiers` and overrides may hold.

Rule: docs/rules/catalog.md, Price shapes. A shape that passes here is one the rating library can rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from eb_contracts.catalog import PriceShape, Tier
from eb_contracts.errors import Fault

EVERYWHERE = frozenset({"mode", "minimum", "maximum", "flat_on_zero"})
MOST_TIERS = 100


@dataclass(frozen=True)
class Form:
    """Which members a mode has, beside those of every mode; `of_tier` says the same of each tier."""

    needed: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    of_tier_needed: frozenset[str] = frozenset()
    of_tier_optional: frozenset[str] = frozenset()


_TIERS = frozenset({"tiers"})
_UNIT_PRICED = Form(
    needed=_TIERS, of_tier_needed=frozenset({"unit_price"}), of_tier_optional=frozenset({"flat_fee"})
)
_STEPPED = Form(needed=_TIERS, of_tier_needed=frozenset({"flat_fee"}))
FORMS = {
    "per_unit": Form(needed=frozenset({"unit_price"})),
    "graduated": _UNIT_PRICED,
    "volume": _UNIT_PRICED,
    "package": Form(needed=frozenset({"package_size", "package_price"})),
    "stairstep": _STEPPED,
    "stairstep_cumulative": _STEPPED,
    "percentage": Form(needed=frozenset({"rate"}), optional=frozenset({"fixed_fee"})),
    "graduated_percentage": Form(
        needed=_TIERS, of_tier_needed=frozenset({"rate"}), of_tier_optional=frozenset({"flat_fee"})
    ),
}


def faults_of_shape(shape: PriceShape, pointer: str) -> tuple[Fault, ...]:
    """Give what is wrong with a shape, each place with a pointer below `pointer`; empty for a good one."""
    form = FORMS[shape.mode]
    return (
        *_faults_of_members(
            _given(shape), form.needed, EVERYWHERE | form.optional, f"mode {shape.mode}", pointer
        ),
        *_faults_of_numbers(shape, pointer),
        *_faults_of_tiers(shape.tiers or (), form, pointer + "/tiers"),
    )


def _given(part: PriceShape | Tier) -> frozenset[str]:
    return frozenset(name for name in part.model_fields_set if getattr(part, name) is not None)


def _faults_of_members(
    given: frozenset[str], needed: frozenset[str], optional: frozenset[str], where: str, pointer: str
) -> Iterator[Fault]:
    for name in sorted(needed - given):
        yield Fault(f"{pointer}/{name}", "required", f"{where} needs {name}.")
    for name in sorted(given - needed - optional):
        yield Fault(f"{pointer}/{name}", "unknown_field", f"{where} has no {name}.")


def _faults_of_numbers(shape: PriceShape, pointer: str) -> Iterator[Fault]:
    if shape.package_size is not None and shape.package_size <= 0:
        yield Fault(f"{pointer}/package_size", "too_small", "A package holds more than nothing.")
    if shape.minimum is not None and shape.maximum is not None and shape.minimum > shape.maximum:
        yield Fault(f"{pointer}/maximum", "too_small", "The maximum is below the minimum.")


def _faults_of_tiers(tiers: tuple[Tier, ...], form: Form, pointer: str) -> Iterator[Fault]:
    if "tiers" not in form.needed:
        return
    if len(tiers) > MOST_TIERS:
        yield Fault(pointer, "too_long", f"At most {MOST_TIERS} tiers.")
    for at, tier in enumerate(tiers):
        where = f"{pointer}/{at}"
        yield from _faults_of_members(
            _given(tier) - {"up_to"}, form.of_tier_needed, form.of_tier_optional, "a tier of this mode", where
        )
        yield from _faults_of_bound(tiers, at, f"{where}/up_to")
    if tiers == ():
        yield Fault(pointer, "no_open_end", "The last tier must be open: up_to null.")


def _faults_of_bound(tiers: tuple[Tier, ...], at: int, pointer: str) -> Iterator[Fault]:
    bound, is_last = tiers[at].up_to, at == len(tiers) - 1
    below = tiers[at - 1].up_to if at else None
    if is_last and bound is not None:
        yield Fault(pointer, "no_open_end", "The last tier must be open: up_to null.")
    elif not is_last and bound is None:
        yield Fault(pointer, "gap", "Only the last tier is open.")
    elif bound is not None and bound <= 0:
        yield Fault(pointer, "too_small", "A tier ends above zero.")
    elif bound is not None and below is not None and bound == below:
        yield Fault(pointer, "overlap", "The tier before ends there already.")
    elif bound is not None and below is not None and bound < below:
        yield Fault(pointer, "descending", "Tiers ascend.")
