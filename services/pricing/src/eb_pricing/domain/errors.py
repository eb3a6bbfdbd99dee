"""What pricing refuses, each with its stable code."""

from __future__ import annotations

from eb_contracts.errors import Fault, Kind, Refusal


class NoTerms(Refusal):
    """Nothing says what this costs: it is never priced at 0 or by guess."""

    code = "no_terms"
    kind = Kind.CONFLICT
    title = "No terms are in force for this organisation, SKU and time."


class PeriodNotOver(Refusal):
    """What is still to come would be late from the start."""

    code = "period_not_over"
    kind = Kind.CONFLICT
    title = "The period hasn't ended."


class TermsMissing(Refusal):
    """Terms are named, but their content is still on its way from the catalog."""

    code = "terms_missing"
    kind = Kind.UNAVAILABLE
    title = "Terms are still on their way."


class ChargeIdTaken(Refusal):
    """An id names one charge for ever."""

    code = "charge_id_taken"
    kind = Kind.CONFLICT
    title = "A charge with this id exists, and it is another one."


class OutOfBounds(Refusal):
    """Quantities and amounts of a counter stay below 10^18."""

    code = "out_of_bounds"
    kind = Kind.INVALID
    title = "The counter would grow beyond what amounts and quantities may be."


class Unacceptable(Refusal):
    """The body is well-formed, but names or says what can't be; `faults` point at each place."""

    code = "body_invalid"
    kind = Kind.INVALID
    title = "The body does not fit this route."

    @classmethod
    def at(cls, pointer: str, code: str, detail: str) -> Unacceptable:
        """Refuse for one place."""
        return cls(faults=(Fault(pointer, code, detail),))


class BudgetExists(Refusal):
    """An organisation has one budget of its own, and one per project."""

    code = "budget_exists"
    kind = Kind.CONFLICT
    title = "There is a budget for this already."


class InitiationDiffers(Refusal):
    """The same request_id came before about another action."""

    code = "request_id_differs"
    kind = Kind.CONFLICT
    title = "This request_id was answered about another action."


class GuardrailUnavailable(Refusal):
    """No answer within the deadline: what the action then does is the caller's own rule."""

    code = "guardrail_unavailable"
    kind = Kind.UNAVAILABLE
    title = "Whether the action may start couldn't be found out in time."
