"""Errors that a user can fix, reported in one line."""


class UserError(Exception):
    """A user's mistake, in one line: the place (file and line, key, example id), the problem, and what was expected."""
