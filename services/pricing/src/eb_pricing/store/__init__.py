"""Every SQL statement of pricing, a function per question."""

from __future__ import annotations

from .charges import find_charged, find_charges, insert_charges, list_charges, list_gross_by_time
from .counters import insert_counters_once, list_counters_of, lock_counters, update_counters
from .facts import (
    get_terms_body,
    list_facts,
    list_known_skus,
    list_terms_versions,
    lock_terms,
    lock_terms_shared,
)
from .usage import list_usage
from .waiting import (
    count_unrated,
    delete_due,
    delete_unrated,
    insert_awaited_once,
    insert_unrated_once,
    list_unrated_after,
    mark_awaiting_due,
    mark_orgs_due,
    mark_retail_due,
    take_due,
    update_due,
)

__all__ = [
    "count_unrated",
    "delete_due",
    "delete_unrated",
    "find_charged",
    "find_charges",
    "get_terms_body",
    "insert_awaited_once",
    "insert_charges",
    "insert_counters_once",
    "insert_unrated_once",
    "list_charges",
    "list_counters_of",
    "list_facts",
    "list_gross_by_time",
    "list_known_skus",
    "list_terms_versions",
    "list_unrated_after",
    "list_usage",
    "lock_counters",
    "lock_terms",
    "lock_terms_shared",
    "mark_awaiting_due",
    "mark_orgs_due",
    "mark_retail_due",
    "take_due",
    "update_counters",
    "update_due",
]
