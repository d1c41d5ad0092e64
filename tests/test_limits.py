"""A function in a process of its own: what it says arrives here, and it ends where it takes too much."""

import greedy
import pytest
from conftest import CALL_IN_A_PROCESS as call

from finetrail.errors import UserError
from finetrail.model.base import limits


def test_a_function_gets_its_arguments_and_its_error_is_raised() -> None:
    call(greedy.fine, "given", what="never said")
    with pytest.raises(UserError, match="^row 7: bad$"):
        call(greedy.refuses, "row 7: bad", what="never said")


@pytest.mark.parametrize("function", [greedy.goes_on, greedy.takes])
def test_what_takes_too_long_or_too_much_is_ended_and_told(function, monkeypatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 1)
    monkeypatch.setattr(limits, "GIB", 1)
    with pytest.raises(UserError, match="^it grows; expected less than 1 seconds of computing and 1 GiB of memory$"):
        call(function, "given", what="it grows")


def test_a_fault_of_ours_is_no_fault_of_the_file(capfd) -> None:
    with pytest.raises(RuntimeError, match="fails failed"):
        call(greedy.fails, "given", what="never said")
    assert "ZeroDivisionError: given" in capfd.readouterr().err
