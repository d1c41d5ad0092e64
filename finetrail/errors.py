"""Errors that a user can fix, reported in one line."""


class UserError(Exception):
    """What is wrong, where (file and line, key, example id), and what was expected, in one line."""
