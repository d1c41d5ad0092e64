"""Chooses the errors that people read."""

from collections.abc import Hashable, Sequence


def chosen(kinds: Sequence[Hashable], most: int) -> list[int]:
    """Return the places of at most `most` errors, in order: the first of each kind, then the first of all others.

    kinds: of each error, the worst first. So each cell of a confusion matrix has an example as far as there is room.
    """
    firsts: dict[Hashable, int] = {}
    for place, kind in enumerate(kinds):
        firsts.setdefault(kind, place)
    kept = set(list(firsts.values())[:most])
    others = (place for place in range(len(kinds)) if place not in kept)
    return sorted(kept | {place for place, _ in zip(others, range(most - len(kept)), strict=False)})
