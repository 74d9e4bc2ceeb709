"""Chunks: bounded in number and size, nothing lost, nothing read too early."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import given

from db.chunks import chunked


@given(st.lists(st.integers(0, 20)), st.integers(1, 5), st.integers(1, 30))
def test_every_item_is_in_one_bounded_chunk(sizes: list[int], most: int, largest: int) -> None:
    """In order; a chunk exceeds the size only with a single item."""
    chunks = list(chunked(sizes, most, int, largest))
    assert [size for chunk in chunks for size in chunk] == sizes
    assert all(1 <= len(chunk) <= most and (sum(chunk) <= largest or len(chunk) == 1) for chunk in chunks)


def test_a_chunk_is_as_large_as_it_may_be() -> None:
    """The next item is in the next chunk only if it does not fit."""
    assert list(chunked([3, 3, 3, 1, 9, 1, 1], 3, int, 6)) == [[3, 3], [3, 1], [9], [1, 1]]
    assert list(chunked("abcde", 2, len, 100)) == [["a", "b"], ["c", "d"], ["e"]]


def test_a_full_chunk_does_not_wait_for_the_next_item() -> None:
    """What was read before a failure is not lost with it."""

    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the source is gone")

    done: list[list[int]] = []
    with pytest.raises(ValueError, match="gone"):
        done.extend(chunked(failing(), 1, int, 100))
    assert done == [[1], [2]]
