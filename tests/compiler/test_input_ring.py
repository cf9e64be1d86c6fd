"""The ring of input buffers: nothing is overwritten before its readers have ended, and short chunks leave the others in place."""

from hypothesis import given
from hypothesis import strategies as st

from fixgrad.compiler.resources import InputRing

WORDS = 64


@given(st.lists(st.integers(1, WORDS), max_size=60))
def test_what_is_overwritten_has_been_read(sizes: list[int]) -> None:
    """LOADs wait one after the other: what one has waited for need not be waited for again."""
    ring, readers, waited = InputRing(WORDS), dict[int, int](), 0
    for number, size in enumerate(sizes, start=1):
        start, free = ring.take(size, number)
        assert 0 <= start <= WORDS - size
        waited = max(waited, free.compute)
        assert max(readers.get(word, 0) for word in range(start, start + size)) <= waited < number
        readers.update(dict.fromkeys(range(start, start + size), number))
        ring.used(number, number)
        assert ring.find(number) == start


def test_two_chunks_stay_side_by_side_behind_shorter_ones() -> None:
    """Tiles of chunks of 32, 32 and 24 words: each may be loaded while the one before is read."""
    ring = InputRing(WORDS)
    for number in range(1, 30):
        _, free = ring.take((32, 32, 24)[number % 3], number)
        assert free.compute <= max(number - 2, 0)
        ring.used(number, number)


def test_as_many_as_fit_are_held() -> None:
    """Two and a half chunks: the half that is left at the end is the beginning of the next one's place, not lost."""
    ring, waits = InputRing(WORDS), []
    for number in range(1, 12):
        waits.append(number - ring.take(20, number)[1].compute)
        ring.used(number, number)
    assert min(waits[3:]) == 3
