"""Chooses the errors that a report lists."""

from collections.abc import Hashable, Sequence


def chosen(kinds: Sequence[Hashable], most: int) -> list[int]:
    """Return the indices of at most `most` errors, sorted: the first of each kind, then the first of the others.

    kinds: the kind of each error, the worst error first. So each cell of a confusion matrix has an example if there is
    room.
    """
    firsts: dict[Hashable, int] = {}
    for place, kind in enumerate(kinds):
        firsts.setdefault(kind, place)
    kept = set(list(firsts.values())[:most])
    others = (place for place in range(len(kinds)) if place not in kept)
    return sorted(kept | {place for place, _ in zip(others, range(most - len(kept)), strict=False)})
