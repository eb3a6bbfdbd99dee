"""Domain names: the one canonical form, what may be claimed, and which name lies above which."""

from __future__ import annotations

import ipaddress
import re
from typing import Protocol

import idna

from .errors import (
    DomainInvalid,
    DomainIsAddress,
    DomainIsFreeMail,
    DomainIsPlatform,
    DomainIsPublicSuffix,
    DomainSingleLabel,
    DomainUnderscore,
)
from .free_mail import FREE_MAIL

HOST_NAME = re.compile(r"(?:(?!-)[a-z0-9-]{1,63}(?<!-)\.)+(?!-)[a-z0-9-]{1,63}(?<!-)")
MAX_NAME = 253
MAX_INPUT = 1000
"""Longer than any U-label form of a name; UTS 46 mapping is not run on more."""


class Suffixes(Protocol):
    """The public suffix list, both sections."""

    def organizational(self, domain: str) -> str | None:
        """Give the suffix and one label more, or None if `domain` is itself a public suffix."""


def normalise(text: str) -> str:
    """Give the canonical A-label form: UTS 46 non-transitional, lower case, no trailing dot.

    Raises DomainIsAddress, DomainUnderscore, DomainInvalid or DomainSingleLabel.
    Rule: docs/rules/domain-verification.md, Names.
    """
    _refuse_address(text)
    if "_" in text:
        raise DomainUnderscore
    if len(text) > MAX_INPUT:
        raise DomainInvalid("The name is too long.")
    try:
        name = idna.encode(text, uts46=True, transitional=False, std3_rules=True).decode("ascii")
    except idna.IDNAError as error:
        raise DomainInvalid(f"Not a valid name: {error}") from None
    name = name.lower().removesuffix(".")
    _refuse_address(name)
    return _host_name(name)


def claimable(text: str, suffixes: Suffixes, platform_domains: frozenset[str]) -> str:
    """Normalise `text` and give it if it may be claimed; else raise the refusal that names why not."""
    name = normalise(text)
    if suffixes.organizational(name) is None:
        raise DomainIsPublicSuffix
    if _is_under_any(name, FREE_MAIL):
        raise DomainIsFreeMail
    if _is_under_any(name, platform_domains):
        raise DomainIsPlatform
    return name


def is_host_name(name: str) -> bool:
    """Say whether `name` is a canonical host name of two or more labels."""
    return len(name) <= MAX_NAME and HOST_NAME.fullmatch(name) is not None


def is_within(name: str, ancestor: str) -> bool:
    """Say whether `name` is `ancestor` or lies below it."""
    return name == ancestor or name.endswith("." + ancestor)


def above(name: str) -> list[str]:
    """List `name` and every name above it, the longest first."""
    labels = name.split(".")
    return [".".join(labels[start:]) for start in range(len(labels))]


def _host_name(name: str) -> str:
    if name and "." not in name:
        raise DomainSingleLabel
    if not is_host_name(name):
        raise DomainInvalid
    return name


def _is_under_any(name: str, domains: frozenset[str]) -> bool:
    return any(candidate in domains for candidate in above(name))


def _refuse_address(text: str) -> None:
    """Refuse mail addresses, network addresses, and names whose last label reads as a number."""
    if "@" in text:
        raise DomainIsAddress
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        last = text.removesuffix(".").rpartition(".")[2].lower()
        if not re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last, re.ASCII):
            return
    raise DomainIsAddress
