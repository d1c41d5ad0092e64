"""Functions for tests/test_limits.py: apart, since other processes import them."""

from finetrail.errors import UserError


def fine(text: str) -> None:
    assert text == "given"


def refuses(text: str) -> None:
    raise UserError(text)


def goes_on(text: str) -> None:
    number = 7 ** (10**9)  # in C, where no signal of Python's is heard for long
    print(number)


def takes(text: str) -> None:
    """Take memory until there is no more."""
    held = [bytearray(1 << 26) for _ in range(1 << 16)]
    print(len(held))


def fails(text: str) -> None:
    raise ZeroDivisionError(text)
