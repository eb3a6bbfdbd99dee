"""What the estimator refuses."""

from __future__ import annotations

from eb_contracts.errors import Kind, Refusal


class EstimateImpossible(Refusal):
    """A SKU that is unknown, or that nothing prices for this organisation; `errors` points at each."""

    code = "estimate_impossible"
    title = "Some of the SKUs cannot be priced for this organisation."


class NoTerms(Refusal):
    """No plan was ever assigned to the organisation."""

    code = "no_terms"
    title = "The organisation has no plan yet, so nothing can be priced."


class PlanNotPublished(Refusal):
    """A plan that nobody could be put on: it has no published version, or is retired."""

    code = "plan_not_published"
    kind = Kind.CONFLICT
    title = "The plan is not published."


class TermsNotHere(Refusal):
    """Terms are named whose content has not arrived yet."""

    code = "terms_not_here"
    kind = Kind.UNAVAILABLE
    title = "The terms are on their way; try again."


class CurrenciesDiffer(Refusal):
    """SKUs priced in unlike currencies: amounts of two currencies are never added."""

    code = "currencies_differ"
    title = "The SKUs are priced in different currencies and cannot be summed."


class EstimateTooLarge(Refusal):
    """Amounts or quantities beyond what can be billed."""

    code = "estimate_too_large"
    title = "The amounts or quantities are beyond what can be billed."
