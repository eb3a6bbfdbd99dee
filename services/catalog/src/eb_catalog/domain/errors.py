"""What the catalog refuses, each with its stable code."""

from __future__ import annotations

from eb_contracts.errors import Fault, Kind, Refusal


class ModelCodeTaken(Refusal):
    """Business models are told apart by their code."""

    code = "model_code_taken"
    kind = Kind.CONFLICT
    title = "A business model with this code exists."


class SkuFixed(Refusal):
    """A SKU that means something else under old usage would falsify it."""

    code = "sku_fixed"
    kind = Kind.CONFLICT
    title = "The type and the unit of a SKU never change."


class PlanNotPublished(Refusal):
    """Nobody can be assigned what has no published version."""

    code = "plan_not_published"
    kind = Kind.CONFLICT
    title = "The plan is not published."


class CurrencyChangeImmediate(Refusal):
    """One period has one currency."""

    code = "currency_change_immediate"
    kind = Kind.CONFLICT
    title = "Another currency starts with the next period, not at once."


class PastRate(Refusal):
    """Past periods change by a re-rate with a reason only."""

    code = "effective_in_past"
    kind = Kind.INVALID
    title = "A tax rate that is in force already can't be changed for the past."


class PeriodIsClosed(Refusal):
    """What is closed changes by a re-rate with a reason only."""

    code = "period_closed"
    kind = Kind.CONFLICT
    title = "A period that this would change is closed."


class Unacceptable(Refusal):
    """The body is well-formed, but names or says what can't be; `faults` point at each place."""

    code = "body_invalid"
    kind = Kind.INVALID
    title = "The body does not fit this route."

    @classmethod
    def at(cls, pointer: str, code: str, detail: str) -> Unacceptable:
        """Refuse for one place."""
        return cls(faults=(Fault(pointer, code, detail),))
