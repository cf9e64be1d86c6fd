"""How a slow opening of a data set tells how far it is."""

from collections.abc import Callable

#: Called with (images done, images in all), after each image.
Progress = Callable[[int, int], None]


def ignore(_done: int, _total: int) -> None:
    """Progress that nobody watches."""
