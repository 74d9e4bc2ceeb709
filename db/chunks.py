"""Chunks of a bounded number and size, for statements and requests that must not grow with their input. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def chunked(items: Iterable[T], most: int, size_of: Callable[[T], int], largest: int) -> Iterator[list[T]]:
    """Consecutive chunks of at most `most` items and `largest` size; a larger item has a chunk of its own.

    A full chunk is yielded before the next item is read.
    """
    chunk: list[T] = []
    size = 0
    for item in items:
        added = size_of(item)
        if chunk and size + added > largest:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += added
        if len(chunk) == most:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
