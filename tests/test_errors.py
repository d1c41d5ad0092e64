"""Which errors people read."""

from hypothesis import given
from hypothesis import strategies as st

from finetrail.evaluation.errors import chosen


def test_each_kind_has_its_worst_before_others_have_a_second() -> None:
    kinds = ["a", "a", "a", "b", "a", "c", "b"]
    assert chosen(kinds, 3) == [0, 3, 5]
    assert chosen(kinds, 5) == [0, 1, 2, 3, 5]
    assert chosen(kinds, 2) == [0, 3]
    assert chosen([None] * 4, 2) == [0, 1] and chosen(kinds, 0) == []


@given(st.lists(st.integers(0, 5)), st.integers(0, 12))
def test_as_many_as_there_is_room_for_in_their_order(kinds: list[int], most: int) -> None:
    found = chosen(kinds, most)
    assert len(found) == min(most, len(kinds)) and found == sorted(set(found))
    if most >= len(set(kinds)):
        assert {kinds[place] for place in found} == set(kinds)
