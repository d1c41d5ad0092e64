"""Refuses downloads by other libraries that are larger than a recipe allows."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from finetrail.errors import UserError


def check(what: str, size: int, max_mib: int | None) -> None:
    """Raise UserError if the size in bytes exceeds the limit; None: no limit."""
    if max_mib is not None and size > max_mib << 20:
        raise _too_large(what, max_mib, "max_mib")


@contextmanager
def within(what: str, max_mib: int | None, key: str = "max_mib") -> Iterator[None]:
    """Limit the size of files written in this context, even if a server reports a wrong size.

    UserError if a file exceeds it.

    `key` is the limit's name in the recipe. The kernel enforces it for the whole process, because the libraries that
    download have no limit of their own.
    """
    if max_mib is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    known = [one for one in (soft, hard, max_mib << 20) if one != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(known), hard))
    try:
        yield
    except Exception as error:
        if _is_of_size(error):
            raise _too_large(what, max_mib, key) from None
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _is_of_size(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            return True
        error = error.__cause__ or error.__context__
    return False


def _too_large(what: str, max_mib: int, key: str) -> UserError:
    return UserError(
        f"{what}: larger than {max_mib:,} MiB, the recipe's {key}; expected a smaller one, or a higher limit"
    )
