"""The pure rules of identity."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from eb_auth.domain import audit, codes, sealing
from eb_auth.domain.addresses import canonical_address
from eb_auth.domain.assist import end_of
from eb_auth.domain.errors import AlreadyHasParent, Cycle, LastAdmin, MaxDepth, SelfParent, SubtreeTooLarge
from eb_auth.domain.hierarchy import Shape, check_link, child_depth
from eb_auth.domain.members import keep_an_admin
from eb_auth.domain.orgs import is_timezone
from eb_auth.domain.sessions import GRACE, Session, Verdict, judge

NOW = datetime(2026, 11, 4, 2, 0, tzinfo=UTC)
instants = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
users = st.sets(st.uuids(), min_size=1, max_size=5)


def a_session(**members: object) -> Session:
    """A session that lives at NOW."""
    values = {
        "session_id": uuid4(),
        "user_id": uuid4(),
        "org_id": None,
        "created_at": NOW,
        "last_used_at": NOW,
        "idle_expires_at": NOW + timedelta(days=1),
        "expires_at": NOW + timedelta(days=2),
        "revoked_at": None,
        "user_agent": "",
        "address": "",
    }
    return Session(**{**values, **members})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Jane.Doe@Example.ORG", "jane.doe@example.org"),
        (" jane+x@example.org ", "jane+x@example.org"),
        ("jane@Bücher.example", "jane@xn--bcher-kva.example"),
        ("o'neill@mail.example.org", "o'neill@mail.example.org"),
    ],
)
def test_addresses_have_one_form(text: str, canonical: str) -> None:
    assert canonical_address(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "jane", "jane@", "@example.org", "jane@localhost", "jane@example.org.", "ja ne@example.org",
        "jane@exa mple.org", "jane..doe@example.org", ".jane@example.org", "jane@-example.org", "jane@@example.org",
        "\u212aate@example.org", "jäne@example.org", f"{'j' * 65}@example.org", f"j@{'a.' * 130}org",
        "jane@example.org\r\nBcc: x@example.org", '"jane doe"@example.org',
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a|at most"):
        canonical_address(text)


@given(st.emails())
def test_the_form_of_an_address_is_its_own_form(address: str) -> None:
    try:
        once = canonical_address(address)
    except ValueError:
        return
    assert canonical_address(once) == canonical_address(once.upper()) == once


def test_a_code_is_right_only_for_its_address_before_its_end_and_its_fifth_wrong_guess() -> None:
    digest = codes.code_digest(b"k" * 32, "a@example.org", "12345678")
    kept = codes.LoginCode("a@example.org", digest, NOW + codes.CODE_LIFETIME, 4)

    assert codes.is_right(kept, digest, NOW)
    assert not codes.is_right(kept, codes.code_digest(b"k" * 32, "b@example.org", "12345678"), NOW)
    assert not codes.is_right(kept, codes.code_digest(b"x" * 32, "a@example.org", "12345678"), NOW)
    assert not codes.is_right(kept, digest, NOW + codes.CODE_LIFETIME)
    assert not codes.is_right(codes.LoginCode("a@example.org", digest, kept.expires_at, 5), digest, NOW)
    assert not codes.is_right(None, codes.NO_DIGEST, NOW)


@given(replaced_at=st.none() | instants, now=instants, revoked_at=st.none() | instants)
def test_only_a_current_token_rotates_and_only_a_late_old_one_revokes(
    replaced_at: datetime | None, now: datetime, revoked_at: datetime | None
) -> None:
    session = a_session(revoked_at=revoked_at)
    verdict = judge(session, replaced_at, now)

    assert (verdict is Verdict.ROTATE) == (session.is_live(now) and replaced_at is None)
    is_late = replaced_at is not None and now - replaced_at > GRACE
    assert (verdict is Verdict.REVOKE) == (session.is_live(now) and is_late)


def test_a_session_ends_at_its_idle_end_and_at_its_last_end() -> None:
    assert a_session().is_live(NOW)
    assert not a_session(idle_expires_at=NOW).is_live(NOW)
    assert not a_session(expires_at=NOW).is_live(NOW)
    assert not a_session(revoked_at=NOW).is_live(NOW)


@given(admins=users, data=st.data())
def test_an_admin_is_always_left(admins: set[object], data: st.DataObject) -> None:
    user = data.draw(st.sampled_from(sorted(admins, key=str)) | st.uuids())
    role = data.draw(st.sampled_from(["Admin", "User", None]))
    try:
        keep_an_admin(admins, user, role)  # type: ignore[arg-type]
    except LastAdmin:
        assert admins == {user}
        assert role != "Admin"
    else:
        assert role == "Admin" or admins - {user}


def test_a_hierarchy_has_ten_edges_at_most() -> None:
    assert [child_depth(depth) for depth in range(10)] == list(range(1, 11))
    with pytest.raises(MaxDepth):
        child_depth(10)


@given(st.binary(max_size=200), st.binary(min_size=12, max_size=12))
def test_what_is_sealed_opens_with_the_same_secret_and_purpose_only(plain: bytes, nonce: bytes) -> None:
    sealed = sealing.seal("secret", "mail", nonce, plain)

    assert sealing.unseal("secret", "mail", sealed) == plain
    for secret, purpose, body in (
        ("other", "mail", sealed),
        ("secret", "key", sealed),
        ("secret", "mail", sealed[:-1] + bytes([sealed[-1] ^ 1])),
    ):
        with pytest.raises(InvalidTag):
            sealing.unseal(secret, purpose, body)


def test_time_zones_are_those_of_the_database() -> None:
    assert is_timezone("Australia/Sydney")
    assert is_timezone("UTC")
    assert not is_timezone("sydney")
    assert not is_timezone("../etc/passwd")


def test_of_many_reasons_against_a_place_the_first_is_told() -> None:
    org, parent, other = uuid4(), uuid4(), uuid4()
    wrong = Shape(depth=10, height=1, is_below=True, pairs=11)
    not_below = Shape(depth=10, height=1, is_below=False, pairs=11)
    shallow = Shape(depth=8, height=1, is_below=False, pairs=11)
    for refusal, place in (
        (SelfParent, (org, other, org, wrong)),
        (AlreadyHasParent, (org, other, parent, wrong)),
        (Cycle, (org, None, parent, wrong)),
        (MaxDepth, (org, None, parent, not_below)),
        (SubtreeTooLarge, (org, None, parent, shallow)),
    ):
        with pytest.raises(refusal):
            check_link(*place, most_pairs=10)
    check_link(org, None, parent, shallow, most_pairs=11)


@given(st.integers(1, 60), st.integers(1, 7_200))
def test_an_assist_session_ends_in_time_or_with_the_helpers_own(minutes: int, left_s: int) -> None:
    own = NOW + timedelta(seconds=left_s)
    assert end_of(minutes, NOW, own) == min(own, NOW + timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("seq", "sealed", "known", "problem"),
    [
        (0, None, (), None),
        (0, b"", (), None),
        (0, b"", ((3, b"h"),), "rolled_back"),
        (0, b"x", (), "head_forged"),
        (1, b"", (), "head_forged"),
    ],
)
def test_a_chain_without_entries_is_whole_unless_some_were_noted(
    seq: int, sealed: bytes | None, known: tuple[tuple[int, bytes], ...], problem: str | None
) -> None:
    start = audit.Head(audit.HEADS)
    check = audit.Check(start, frozenset(known))

    check.finish(audit.Head(start.chain_id, seq), sealed, [b"k" * 32])

    assert (check.problem.problem if check.problem else None) == problem
