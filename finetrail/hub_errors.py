"""Turns errors of the Hugging Face libraries into one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_session
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from finetrail.errors import UserError
from finetrail.stage import FULL

# Seconds to wait for a response, and between two chunks of it. huggingface_hub (2.4) would wait forever.
TIMEOUT = 60.0


@contextmanager
def reported_as(what: str) -> Iterator[None]:
    """Turn errors of the Hub's libraries, and timeouts, into a UserError that begins with `what`.

    The error of a full disk passes unchanged.
    """
    get_session().timeout = TIMEOUT
    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        chain = _chain(error)
        if any(isinstance(link, OSError) and link.errno in FULL for link in chain):
            raise
        raise UserError(f"{what}: {constants.ENDPOINT}: {_reason(chain)}") from None


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def _reason(chain: list[BaseException]) -> str:
    """Return the Hub's answer if there is one, else the first line of the first cause."""
    answer = next((link for link in chain if isinstance(link, HfHubHTTPError)), chain[-1])
    if isinstance(answer, GatedRepoError):
        return "gated; accept its terms on its page there, then log in with `hf auth login`"
    if isinstance(answer, RevisionNotFoundError):
        return "no such revision; expected a commit, a tag, a branch or a ref"
    if isinstance(answer, RepositoryNotFoundError):
        return "not found, or private; expected an OWNER/NAME that is there, and `hf auth login` if private"
    if isinstance(answer, HfHubHTTPError):
        message = answer.server_message or answer.response.reason_phrase
        hint = "; log in with `hf auth login`" if answer.response.status_code in (401, 403) else ""
        return f"it answered {answer.response.status_code}: {message}{hint}"
    if "Timeout" in type(answer).__name__:  # of the system, or of the HTTP library of huggingface_hub
        return f"no answer within {TIMEOUT:g} s; expected a Hub that answers: run it again when it does"
    return (str(answer) or type(answer).__name__).splitlines()[0]
