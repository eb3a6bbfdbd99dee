"""The public suffix list that publicsuffixlist ships, ICANN and private sections together."""

from __future__ import annotations

from functools import cache

from publicsuffixlist import PublicSuffixList


class ListedSuffixes:
    """`Suffixes` of domain.names over the shipped list; an unlisted top-level domain is a suffix itself."""

    def __init__(self) -> None:
        self._list = PublicSuffixList(accept_unknown=True)

    def organizational(self, domain: str) -> str | None:
        """Give the suffix and one label more, or None if `domain` is a public suffix."""
        found = self._list.privatesuffix(domain)
        return found if isinstance(found, str) else None


@cache
def listed_suffixes() -> ListedSuffixes:
    """Give the list, read once per process."""
    return ListedSuffixes()
