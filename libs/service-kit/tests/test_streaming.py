"""Bodies inflated on the way: the same bytes wherever pieces end, in bounded pieces; what is cut off is told."""

from __future__ import annotations

import gzip
import itertools
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from eb_kit import streaming

MIB = 1024 * 1024
PACK = {"gzip": gzip.compress, "zstd": zstandard.compress, "identity": bytes}
any_body = st.binary(max_size=2000) | st.binary(min_size=1, max_size=4).map(lambda some: some * 50_000)


def inflate(encoding: str, packed: bytes, cuts: list[int]) -> tuple[bytes, bool]:
    """The body, and whether it may end there."""
    inflater = streaming._INFLATERS[encoding]()
    places = sorted({0, len(packed), *(cut % (len(packed) + 1) for cut in cuts)})
    pieces = [packed[a:b] for a, b in itertools.pairwise(places)]
    return b"".join(part for piece in pieces for part in inflater.feed(piece)), inflater.is_complete()


@given(
    st.sampled_from(sorted(PACK)),
    st.lists(any_body, min_size=1, max_size=3),
    st.lists(st.integers(0), max_size=8),
)
def test_a_body_is_the_same_wherever_its_pieces_end(
    encoding: str, parts: list[bytes], cuts: list[int]
) -> None:
    packed = b"".join(PACK[encoding](part) for part in parts)
    assert inflate(encoding, packed, cuts) == (b"".join(parts), True)


@given(st.sampled_from(["gzip", "zstd"]), st.binary(min_size=1, max_size=500), st.data())
def test_a_body_that_is_cut_off_is_not_complete(encoding: str, body: bytes, data: st.DataObject) -> None:
    packed = PACK[encoding](body)
    end = data.draw(st.integers(0, len(packed) - 1))
    assert inflate(encoding, packed[:end], [])[1] is False


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_no_piece_is_large_whatever_was_compressed(encoding: str) -> None:
    inflater = streaming._INFLATERS[encoding]()
    sizes = [len(piece) for piece in inflater.feed(PACK[encoding](b" " * (64 * MIB)))]
    assert sum(sizes) == 64 * MIB
    assert max(sizes) <= 8 * MIB


@pytest.mark.parametrize(("encoding", "error"), [("gzip", zlib.error), ("zstd", zstandard.ZstdError)])
def test_what_is_not_compressed_is_told(encoding: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        inflate(encoding, b"no such thing at all", [])
