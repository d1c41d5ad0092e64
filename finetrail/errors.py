"""Mistakes that a user can mend, told in one line."""

import sys


class UserError(Exception):
    """What is wrong, where (file and line, key, example id), and what was expected, in one line."""


def without_environment(error: ModuleNotFoundError) -> str:
    """Return the line for a Python that lacks a package; raise the error again where the module is one of ours.

    It stands where no package is imported yet, because any of them may be what is missing.
    """
    package = (error.name or "").partition(".")[0]
    if package in ("", "finetrail", "stages"):
        raise error
    return (
        f"error: {sys.executable} has no package {package}; expected the Python of the environment, first on the PATH: "
        "`make run` sets it up, `source .venv/bin/activate` activates it"
    )
