"""The pure rules one by one: names, claims beside each other, DMARC, proofs, signed requests, retries."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eb_contracts.errors import Refusal
from eb_domain_verify.domain import proofs
from eb_domain_verify.domain.claims import OPEN, Claim, changes, holder_against, overlaps, standings
from eb_domain_verify.domain.dmarc import read_policy, walk_names
from eb_domain_verify.domain.errors import RequestStale, SignatureInvalid
from eb_domain_verify.domain.letter import Envelope, same_mailbox
from eb_domain_verify.domain.names import is_host_name, normalise
from eb_domain_verify.domain.reasons import Reason
from eb_domain_verify.domain.retries import next_attempt
from eb_domain_verify.domain.signing import check_age, check_signature, signed_text
from eb_domain_verify.domain.taglist import TagListError, read_tags, without_value
from eb_domain_verify.outside.suffixes import listed_suffixes

from .mails import answer_of

START = datetime(2026, 9, 21, tzinfo=UTC)
SUFFIXES = listed_suffixes()


@given(st.text(max_size=40))
def test_a_normalised_name_is_canonical_and_stays_so(text: str) -> None:
    try:
        name = normalise(text)
    except Refusal:
        return
    assert is_host_name(name)
    assert normalise(name) == name
    assert normalise(name.upper() + ".") == name


def test_letters_that_look_alike_to_citext_are_made_one() -> None:
    assert normalise("\u212aelvin.example") == "kelvin.example"
    assert normalise("\u0130x.example") != "ix.example"


NAMES = ("a.example", "x.a.example", "y.a.example", "b.example")


@st.composite
def families(draw: st.DrawFn) -> list[Claim]:
    """Claims of three organisations, as any history could have left them."""
    made = []
    for number in range(draw(st.integers(1, 7))):
        domain = draw(st.sampled_from(NAMES))
        made.append(
            Claim(
                claim_id=UUID(int=number),
                org_id=UUID(int=draw(st.integers(0, 2))),
                domain=domain,
                organizational_domain="example",
                wildcard=domain in ("a.example", "b.example") and draw(st.booleans()),
                status=draw(st.sampled_from(["pending", "pending_conflict", "verified"])),
                verified_at=None,
                expires_at=START,
                created_at=START + timedelta(seconds=draw(st.integers(0, 3))),
                version=1,
            )
        )
    return made


@given(families())
def test_one_name_has_at_most_one_pending_claim_and_none_beside_a_verified_one(family: list[Claim]) -> None:
    after = standings(family)

    for name in NAMES:
        pending = [one for one in family if one.domain == name and after.get(one.claim_id) == "pending"]
        verified = [one for one in family if one.domain == name and one.status == "verified"]
        assert len(pending) + bool(verified) <= 1


@given(families())
def test_settling_a_settled_family_changes_nothing(family: list[Claim]) -> None:
    after = standings(family)
    settled = [replace(one, status=after.get(one.claim_id, one.status)) for one in family]

    assert changes(settled) == []


@given(families())
def test_those_who_step_back_come_first(family: list[Claim]) -> None:
    statuses = [status for _, status in changes(family)]

    assert statuses == sorted(statuses, key=lambda status: status == "pending")


@given(families())
def test_overlapping_is_mutual_and_holders_are_others(family: list[Claim]) -> None:
    for one in family:
        holder = holder_against(one, family)
        if holder is not None:
            assert holder.org_id != one.org_id
            assert standings(family).get(one.claim_id, "pending_conflict") == "pending_conflict" or (
                one.status not in OPEN
            )
        assert all(overlaps(one, other) == overlaps(other, one) for other in family)


def policy(domain: str, **records: str) -> tuple[str, str]:
    answers = {f"_dmarc.{name}": answer_of([]) for name in walk_names(domain, SUFFIXES)}
    answers |= {f"_dmarc.{name}": answer_of([text.encode()]) for name, text in records.items()}
    found = read_policy(domain, answers, SUFFIXES)
    return found.organizational, found.mode


@pytest.mark.parametrize(
    ("domain", "records", "organizational"),
    [
        ("a.b.example.co.uk", {}, "example.co.uk"),
        ("a.b.example.co.uk", {"example.co.uk": "v=DMARC1; p=none"}, "example.co.uk"),
        ("a.b.example.co.uk", {"b.example.co.uk": "v=DMARC1; p=none"}, "b.example.co.uk"),
        ("a.b.example.co.uk", {"b.example.co.uk": "v=DMARC1; psd=n"}, "b.example.co.uk"),
        (
            "a.b.example.co.uk",
            {"b.example.co.uk": "v=DMARC1; psd=n", "example.co.uk": "v=DMARC1; p=none"},
            "b.example.co.uk",
        ),
        ("a.b.example.co.uk", {"example.co.uk": "v=DMARC1; psd=y"}, "b.example.co.uk"),
        ("example.co.uk", {"example.co.uk": "v=DMARC1; psd=y"}, "example.co.uk"),
    ],
)
def test_the_organizational_domain(domain: str, records: dict[str, str], organizational: str) -> None:
    assert policy(domain, **records)[0] == organizational


def test_a_deep_name_is_walked_in_eight_steps_at_most() -> None:
    deep = ".".join("abcdefghijkl") + ".example.com"

    names = walk_names(deep, SUFFIXES)

    assert names[0] == deep
    assert len(names) <= 8
    assert names[-1] == "example.com"


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers() | st.text(max_size=5), min_size=1))
def test_a_sealed_proof_holds_until_anything_in_it_changes(parts: dict[str, object]) -> None:
    proof = proofs.seal(parts)
    assert proofs.holds(proof)

    for name in parts:
        assert not proofs.holds(proof | {name: "other value"})
        assert not proofs.holds({key: value for key, value in proof.items() if key != name})
    assert not proofs.holds(proof | {"more": 1})
    assert not proofs.holds(proof | {"chain_sha256": "0" * 64})
    assert not proofs.holds(proof | {"chain": []})


def test_two_secrets_count_while_rotating() -> None:
    text = signed_text(["1", "a"], b"body")
    signature = "v1=" + hmac.new(b"new-secret", text, hashlib.sha256).hexdigest()

    check_signature(text, signature, ["old-secret", "new-secret"])
    for secrets, given_text in ((["old-secret"], text), ([], text), (["new-secret"], text + b"x")):
        with pytest.raises(SignatureInvalid):
            check_signature(given_text, signature, secrets)
    for broken in ("", signature.upper(), signature + "0", signature.removeprefix("v1="), "v1=" + "é" * 64):
        with pytest.raises(SignatureInvalid):
            check_signature(text, broken, ["new-secret"])


STALE = {"999": RequestStale, "1601": RequestStale}
NO_TIMES = dict.fromkeys(("-1", "1_0", "", "١٣٠٠", "1300.0"), SignatureInvalid)


@pytest.mark.parametrize(("stamp", "error"), [*STALE.items(), *NO_TIMES.items()])
def test_a_request_is_fresh_for_five_minutes(stamp: str, error: type[Refusal]) -> None:
    check_age("1000", 1300)
    check_age("1600", 1300)
    with pytest.raises(error):
        check_age(stamp, 1300)


def test_retries_back_off_for_a_day() -> None:
    pauses = [next_attempt(START, START, attempts) for attempts in (1, 2, 3, 9, 40)]

    assert [(at - START).total_seconds() for at in pauses if at] == [15, 30, 60, 3600, 3600]
    assert next_attempt(START, START + timedelta(hours=24), 5) is None


def test_tag_lists_are_read_strictly() -> None:
    assert read_tags(b" a = 1 ;\r\n b=x y; c=") == {"a": "1", "b": "x y", "c": ""}
    for broken in (b"a", b"a=1;;b=2", b"=1", b"a=1;a=2", b"1=a", b"a=\x80", b"a b=1"):
        with pytest.raises(TagListError):
            read_tags(broken)


def test_the_value_of_b_is_cut_out_with_the_blanks_around_it() -> None:
    assert without_value(b" v=1; bh=b=; b= ab\r\n cd ; d=x", b"b") == b" v=1; bh=b=; b=; d=x"
    assert without_value(b" b\t=ab;", b"b") == b" b\t=;"


@pytest.mark.parametrize(
    ("left", "is_same"),
    [
        ("a@b.example", True),
        ("a@B.EXAMPLE", True),
        ("A@b.example", False),
        ("a+x@b.example", False),
        ("", False),
    ],
)
def test_addresses_are_compared_exactly_but_for_the_domain(left: str, is_same: bool) -> None:
    assert same_mailbox(left, "a@b.example") is is_same
    assert Envelope(left, "").mail_from == left


def test_every_reason_is_explained_in_the_rules() -> None:
    rules = (Path(__file__).parents[3] / "docs/rules/domain-verification.md").read_text()
    listed = set(re.findall(r"`([a-z_0-9]+)`", rules.partition("## Reasons")[2]))

    assert listed == {str(reason) for reason in Reason}
