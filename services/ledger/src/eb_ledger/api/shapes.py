"""What the ledger's doors take and answer."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from eb_contracts.money import money_text
from eb_kit.inputs import CurrencyIn, Input, MinuteInstant, Money, Page, Quantity, Text, View

from ..domain.attribution import PartnerOfRecord
from ..domain.entries import Entry
from ..domain.partners import BillingAccount, CommissionRate, Partner
from ..store.reading import Balance

Name = Annotated[str, Text(1, 200)]
Key = Annotated[str, Text(1, 128)]
Period = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")]
Kind = Literal["usage", "base", "one_off", "adjustment", "reversal"]
Status = Literal["pending", "settled", "reversed"]
Provider = Literal["sandbox", "stripe", "aba"]


class CreatePartner(Input):
    """A partner. Its first tier holds since ever unless `tier_from` says otherwise.

    Members of the organisation `org_id` act for it.
    """

    name: Name
    tier: Key
    tier_from: MinuteInstant | None = None
    min_payout: dict[CurrencyIn, Decimal] = Field(default_factory=dict)
    payout_provider: Provider = "sandbox"
    destination: Annotated[str, Text(1, 200)] | None = None
    org_id: UUID | None = None


class PatchPartner(Input):
    """What changes; a tier without `tier_from` holds from this minute on."""

    name: Name | None = None
    tier: Key | None = None
    tier_from: MinuteInstant | None = None
    min_payout: dict[CurrencyIn, Decimal] | None = None
    payout_provider: Provider | None = None
    destination: Annotated[str, Text(1, 200)] | None = None
    org_id: UUID | None = None


class PartnerView(View):
    """A partner with its newest tier."""

    partner_id: UUID
    name: str
    tier: str
    tier_from: datetime
    min_payout: dict[str, Money]
    payout_provider: str
    destination: str | None
    org_id: UUID | None
    created_at: datetime

    @classmethod
    def of(cls, partner: Partner) -> PartnerView:
        """Show a partner."""
        return cls(
            partner_id=partner.partner_id,
            name=partner.name,
            tier=partner.tier,
            tier_from=partner.tier_from,
            min_payout={
                code: money_text(amount, code) for code, amount in sorted(partner.min_payout.items())
            },
            payout_provider=partner.payout_provider,
            destination=partner.destination,
            org_id=partner.org_id,
            created_at=partner.created_at,
        )


class PutRate(Input):
    """What partners of a tier get of a SKU's gross from an instant on."""

    partner_tier: Key
    sku: Key
    pct: Decimal
    effective_at: MinuteInstant


class RateView(View):
    """A commission rate."""

    partner_tier: str
    sku: str
    pct: Quantity
    effective_at: datetime

    @classmethod
    def of(cls, rate: CommissionRate) -> RateView:
        """Show a rate."""
        return cls(partner_tier=rate.partner_tier, sku=rate.sku, pct=rate.pct, effective_at=rate.effective_at)


class RateList(Page):
    """Which rates to list."""

    partner_tier: Key | None = None
    sku: Key | None = None


class CreatePor(Input):
    """A partner of record of exactly one organisation or billing account in `[start_at, end_at)`."""

    org_id: UUID | None = None
    billing_account_id: UUID | None = None
    partner_id: UUID
    start_at: MinuteInstant
    end_at: MinuteInstant | None = None


class EndPor(Input):
    """From when on it no longer holds."""

    end_at: MinuteInstant


class PorList(Page):
    """Which partners of record to list."""

    org_id: UUID | None = None
    billing_account_id: UUID | None = None
    partner_id: UUID | None = None


class PorView(View):
    """A partner of record."""

    por_id: UUID
    org_id: UUID | None
    billing_account_id: UUID | None
    partner_id: UUID
    start_at: datetime
    end_at: datetime | None
    status: Literal["active", "expired", "disputed"]
    created_at: datetime

    @classmethod
    def of(cls, por: PartnerOfRecord, now: datetime) -> PorView:
        """Show a partner of record as it stands now."""
        return cls.model_validate(
            {
                "por_id": por.por_id,
                "org_id": por.org_id,
                "billing_account_id": por.billing_account_id,
                "partner_id": por.partner_id,
                "start_at": por.start_at,
                "end_at": por.end_at,
                "status": por.status_at(now),
                "created_at": por.created_at,
            }
        )


class CreateAccount(Input):
    """A billing account of an organisation, in one currency."""

    owner_org_id: UUID
    name: Name
    currency: CurrencyIn
    notes: Annotated[str, Text(0, 2000)] | None = None


class AccountList(Page):
    """Which billing accounts to list: those that an organisation owns."""

    org_id: UUID | None = None


class AccountView(View):
    """A billing account; the default one has no currency, it takes lines of every one."""

    billing_account_id: UUID
    owner_org_id: UUID
    name: str
    currency: str | None
    status: str
    notes: str | None
    is_default: bool
    created_at: datetime

    @classmethod
    def of(cls, account: BillingAccount) -> AccountView:
        """Show a billing account."""
        return cls(
            billing_account_id=account.billing_account_id,
            owner_org_id=account.owner_org_id,
            name=account.name,
            currency=account.currency,
            status=account.status,
            notes=account.notes,
            is_default=account.is_default,
            created_at=account.created_at,
        )


class EntryList(Page):
    """Which lines to list; all that is given must hold. `created_to` is exclusive."""

    org_id: UUID | None = None
    sku: Key | None = None
    project_id: UUID | None = None
    period: Period | None = None
    kind: Kind | None = None
    status: Status | None = None
    charge_id: Key | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


class EntryView(View):
    """A ledger line. `net = amount_gross - partner_amount`; `payable` is gross and tax less credit."""

    entry_id: UUID
    org_id: UUID
    project_id: UUID | None
    sku: str
    kind: Kind
    quantity: Quantity
    period: str
    occurred_at: datetime
    currency: str
    amount_gross: Money
    waived_amount: Money
    credit_applied: Money
    tax_code: str | None
    tax_amount: Money
    payable: Money
    partner_id: UUID | None
    por_id: UUID | None
    partner_pct: Quantity
    partner_amount: Money
    net: Money
    billing_account_id: UUID
    charge_id: str | None
    terms_hash: str
    status: Status
    reason: str | None
    actor: str | None
    created_at: datetime

    @classmethod
    def of(cls, entry: Entry) -> EntryView:
        """Show a line."""
        amounts = {name: money_text(getattr(entry, name), entry.currency) for name in ENTRY_MONEY}
        return cls.model_validate(entry._asdict() | amounts)


ENTRY_MONEY = (
    "amount_gross",
    "waived_amount",
    "credit_applied",
    "tax_amount",
    "payable",
    "partner_amount",
    "net",
)


class BalanceQuery(Input):
    """Of whom: exactly one of organisation, billing account and partner; of what; and until when."""

    org_id: UUID | None = None
    billing_account_id: UUID | None = None
    partner_id: UUID | None = None
    period: Period | None = None
    sku: Key | None = None
    as_of: datetime | None = None


class BalanceItem(View):
    """Sums of lines in one currency."""

    currency: str
    amount_gross: Money
    waived_amount: Money
    credit_applied: Money
    tax_amount: Money
    partner_amount: Money
    net: Money
    lines: int

    @classmethod
    def of(cls, balance: Balance) -> BalanceItem:
        """Show sums."""
        amounts = {name: money_text(getattr(balance, name), balance.currency) for name in BALANCE_MONEY}
        return cls.model_validate({"currency": balance.currency, "lines": balance.lines} | amounts)


BALANCE_MONEY = ("amount_gross", "waived_amount", "credit_applied", "tax_amount", "partner_amount", "net")


class BalanceView(View):
    """One item a currency, over all lines posted until `as_of`."""

    items: list[BalanceItem]
    as_of: datetime
