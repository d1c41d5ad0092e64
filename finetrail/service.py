"""Turns a function that answers inputs into an HTTP service, which answers waiting requests in one batch."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from finetrail import json_errors
from finetrail.errors import UserError
from finetrail.inference import Predict, as_json

Inputs = list[dict[str, Any]]
Answers = list[dict[str, Any]]


class Limits(NamedTuple):
    """Maximum bytes and inputs of a request, inputs that wait, and inputs of one batch."""

    bytes: int
    inputs: int
    waiting: int
    batch: int


class Waiting(NamedTuple):
    """A waiting request: its inputs, their keys, and the future of its answers."""

    inputs: Inputs
    keys: frozenset[str]
    answers: "asyncio.Future[Answers]"


class Service:
    """Answers requests in one thread; requests that arrive meanwhile form the next batch.

    load: returns the function that answers, warmed up; it may be slow. loaded: called after load.
    text_input: turns a bare text into an input.
    """

    def __init__(
        self,
        load: Callable[[], Predict],
        loaded: Callable[[], None],
        text_input: Callable[[str], dict[str, Any]],
        limits: Limits,
    ) -> None:
        self.load, self.loaded, self.text_input, self.limits = load, loaded, text_input, limits
        self.ready = False
        self.queue: deque[Waiting] = deque()
        self.arrived = asyncio.Event()

    async def run(self) -> None:
        """Load, then answer waiting requests until cancelled; an exception of loading ends it."""
        with ThreadPoolExecutor(1) as thread:
            loop = asyncio.get_running_loop()
            predict = await loop.run_in_executor(thread, self.load)
            self.ready = True
            self.loaded()
            while True:
                await self.arrived.wait()
                requests = self._next()
                found = await loop.run_in_executor(thread, together, predict, [one.inputs for one in requests])
                for one, result in zip(requests, found, strict=True):
                    if one.answers.done():  # the client has disconnected
                        continue
                    if isinstance(result, Exception):
                        one.answers.set_exception(result)
                    else:
                        one.answers.set_result(result)

    def _next(self) -> list[Waiting]:
        """Take the first request, and later ones whose inputs have the same keys, up to the size of a batch."""
        taken, left, room = [self.queue.popleft()], deque[Waiting](), self.limits.batch
        room -= len(taken[0].inputs)
        while self.queue:
            one = self.queue.popleft()
            fits = one.keys == taken[0].keys and len(one.inputs) <= room
            (taken if fits else left).append(one)
            room -= len(one.inputs) if fits else 0
        self.queue = left
        if not left:
            self.arrived.clear()
        return taken

    async def ask(self, given: Sequence[Any]) -> Answers:
        """Return an answer to each input; HTTPException if there are too many, UserError if one is invalid."""
        if not self.ready:
            raise HTTPException(
                503, "the model is loading; expected requests after /ready returns 200", {"Retry-After": "1"}
            )
        if len(given) > self.limits.inputs:
            raise HTTPException(413, f"{len(given):,} inputs; expected at most {self.limits.inputs:,} per request")
        waiting = sum(len(one.inputs) for one in self.queue)
        if waiting + len(given) > self.limits.waiting:
            raise HTTPException(
                429, f"{waiting:,} inputs are waiting already; expected fewer requests", {"Retry-After": "1"}
            )
        inputs = [self._input(one, number) for number, one in enumerate(given)]
        if not inputs:
            return []
        keys = frozenset(key for one in inputs for key in one)
        request = Waiting(inputs, keys - {"id"}, asyncio.get_running_loop().create_future())
        self.queue.append(request)
        self.arrived.set()
        return await request.answers

    def _input(self, given: Any, number: int) -> dict[str, Any]:
        if isinstance(given, str):
            return self.text_input(given)
        if not isinstance(given, dict):
            raise UserError(f"input '{number}': {type(given).__name__}; expected a JSON object or a string")
        return given


def together(predict: Predict, requests: Sequence[Inputs]) -> list[Answers | Exception]:
    """Answer several requests as if each were alone: errors stay with their request, and requests may share ids."""
    if len(requests) == 1:
        return [_alone(predict, requests[0])]
    named = [_named(one, number, place) for number, inputs in enumerate(requests) for place, one in enumerate(inputs)]
    try:
        answers = iter(predict(named))
    except Exception:  # its cause gets the error, and the other requests get their answers
        return [_alone(predict, inputs) for inputs in requests]
    return [[_unnamed(next(answers)) for _ in inputs] for inputs in requests]


def _alone(predict: Predict, inputs: Inputs) -> Answers | Exception:
    try:
        return predict(inputs)
    except Exception as error:  # returned to its request
        return error


def _named(given: dict[str, Any], number: int, place: int) -> dict[str, Any]:
    """Prefix the input's id with the request's number; an input without an id has its position in the request."""
    name = given.get("id", place)
    return given | {"id": f"{number}:{name}"} if type(name) in (str, int) else given  # predict refuses other types


def _unnamed(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"id": answer["id"].partition(":")[2]}


# --- HTTP ---------------------------------------------------------------------------------------------------------

BODY = {
    "description": "An input, as in a line of finetrail.predict's --input: an object or a string; or a list of inputs.",
    "required": True,
    "content": {"application/json": {"schema": {"anyOf": [{"type": "object"}, {"type": "string"}, {"type": "array"}]}}},
}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is not JSON."},
    413: {"description": "Too many bytes or inputs."},
    422: {"description": "An input is not valid for the task."},
    429: {"description": "Too many inputs are waiting."},
    503: {"description": "The model is loading."},
}


def make_app(service: Service, about: dict[str, Any], failed: Callable[[Exception], None]) -> FastAPI:
    """Return the application; failed is called with the exception that ends the service.

    It has /openapi.json, but no pages of documentation: their scripts come from another host.
    """

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            failed(error)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(service.run())
        task.add_done_callback(ended)
        yield
        task.cancel()

    app = FastAPI(title="finetrail", lifespan=lifespan, docs_url=None, redoc_url=None)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Report that the process is alive."""
        return {"status": "alive"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Report whether the model answers, and which model it is."""
        status = {"status": "ready" if service.ready else "loading"}
        return JSONResponse(status | about, 200 if service.ready else 503)

    @app.post("/predict", openapi_extra={"requestBody": BODY}, responses=ERRORS)
    async def predict(request: Request) -> Response:
        """Answer one input with an object, or a list of inputs with a list, as finetrail.predict does."""
        given = _parsed(await _body(request, service.limits.bytes))
        answers = await service.ask(given if isinstance(given, list) else [given])
        shown = f"[{','.join(map(as_json, answers))}]" if isinstance(given, list) else as_json(answers[0])
        return Response(shown, media_type="application/json")

    _handle_errors(app)
    return app


def _handle_errors(app: FastAPI) -> None:
    """Return every error as {"error": one line}."""

    def answer(status: int, message: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": " ".join(message.split())}, status, headers)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, error.detail, error.headers)

    @app.exception_handler(UserError)
    async def wrong(request: Request, error: UserError) -> JSONResponse:
        return answer(422, str(error))

    @app.exception_handler(Exception)  # which uvicorn also logs, with its traceback
    async def broken(request: Request, error: Exception) -> JSONResponse:
        return answer(500, f"the model failed: {type(error).__name__}; the service's log says more")


async def _body(request: Request, most: int) -> bytes:
    """Read the body; HTTPException as soon as it is longer than a request may be."""
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > most:
            raise HTTPException(413, f"the body exceeds {most:,} bytes")
    return bytes(found)


def _parsed(body: bytes) -> Any:
    """Parse JSON; HTTPException if it is invalid."""

    def refuse(constant: str) -> None:
        raise HTTPException(400, f"the body is not JSON: {constant} is not a JSON number")

    try:
        return json.loads(body, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise HTTPException(400, f"the body is not JSON: {json_errors.described(error)}") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:  # ValueError: a number of too many digits
        raise HTTPException(400, f"the body is not JSON that is read here: {type(error).__name__}") from None
