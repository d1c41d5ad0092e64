"""The HTTP service: what waits together is answered in one batch, as if each request were alone, within limits."""

import asyncio
import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from finetrail import serve
from finetrail.errors import UserError

uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")
from finetrail import service  # noqa: E402

LIMITS = service.Limits(bytes=200, inputs=4, waiting=5, batch=4)


class Model:
    """Answers with its batch's number and size; says when it works, and waits until it may."""

    def __init__(self) -> None:
        self.may_answer, self.works = threading.Event(), threading.Event()
        self.may_answer.set()
        self.batches: list[list[str]] = []

    def __call__(self, inputs: Any, **_: Any) -> list[dict[str, Any]]:
        self.works.set()
        assert self.may_answer.wait(10)
        named = [{"id": str(number)} | one for number, one in enumerate(inputs)]
        if bad := [one for one in named if "bad" in one]:
            raise UserError(f"input {bad[0]['id']!r}:\nbad")
        if len({str(one["id"]) for one in named}) < len(named):
            raise UserError("an id twice")
        if any(one.get("text") == "crash" for one in named):
            raise ZeroDivisionError
        self.batches.append([one["text"] for one in named])
        return [{"id": str(one["id"]), "answer": one["text"].upper()} for one in named]


@pytest.fixture
def model() -> Model:
    return Model()


Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def ask(model: Model) -> Iterator[Ask]:
    """Return the function that sends a body to a server with the model, and returns status and JSON."""
    with running(lambda: model, lambda error: None) as port:
        yield lambda body, path="/predict", method="POST": sent(port, body, path, method)


class running:
    """A server in a thread, ready to be asked."""

    def __init__(self, load: Callable[[], Any], failed: Callable[[Exception], None], is_ready: bool = True) -> None:
        self.service = service.Service(load, lambda: None, lambda text: {"text": text}, LIMITS)
        app = service.make_app(self.service, {"task": "shout"}, failed)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([self.socket])))
        self.is_ready = is_ready

    def __enter__(self) -> int:
        self.thread.start()
        until(lambda: self.server.started and (self.service.ready or not self.is_ready))
        return int(self.socket.getsockname()[1])

    def __exit__(self, *_: Any) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        self.socket.close()


def until(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.005)


def sent(port: int, body: Any, path: str = "/predict", method: str = "POST") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def at_once(ask: Ask, bodies: list[Any], model: Model) -> list[tuple[int, Any]]:
    """Send requests while the model is busy with another one; return their answers in order."""
    model.may_answer.clear()
    model.works.clear()
    found: dict[int, tuple[int, Any]] = {}
    threads = [threading.Thread(target=lambda n=n, b=b: found.__setitem__(n, ask(b))) for n, b in enumerate(bodies)]
    busy = threading.Thread(target=ask, args=("busy",))
    busy.start()
    assert model.works.wait(10)
    for thread in threads:
        thread.start()
        time.sleep(0.05)  # so that they come in their order
    model.may_answer.set()
    for thread in [busy, *threads]:
        thread.join(20)
    return [found[number] for number in range(len(bodies))]


def test_one_input_has_one_answer_and_a_list_a_list(ask: Ask) -> None:
    assert ask({"text": "a"}) == (200, {"id": "0", "answer": "A"})
    assert ask("a") == (200, {"id": "0", "answer": "A"})
    assert ask(["a", {"text": "b", "id": 7}]) == (200, [{"id": "0", "answer": "A"}, {"id": "7", "answer": "B"}])
    assert ask([]) == (200, [])


def test_waiting_requests_are_one_batch_with_their_own_ids(ask: Ask, model: Model) -> None:
    answers = at_once(ask, [["a", {"text": "b", "id": "x"}], {"text": "c", "id": "x"}, "d"], model)
    assert answers == [
        (200, [{"id": "0", "answer": "A"}, {"id": "x", "answer": "B"}]),
        (200, {"id": "x", "answer": "C"}),
        (200, {"id": "0", "answer": "D"}),
    ]
    assert model.batches == [["busy"], ["a", "b", "c", "d"]]


def test_a_wrong_request_spoils_no_other_of_its_batch(ask: Ask, model: Model) -> None:
    wrong = [{"text": "y", "id": 1}, {"text": "z", "id": "1"}]
    assert at_once(ask, ["a", wrong, "crash"], model) == [
        (200, {"id": "0", "answer": "A"}),
        (422, {"error": "an id twice"}),
        (500, {"error": "the model failed: ZeroDivisionError; the service's log says more"}),
    ]
    assert ask("a")[0] == 200


def test_inputs_with_other_keys_or_beyond_a_batch_wait(ask: Ask, model: Model) -> None:
    answers = at_once(ask, [["a"], [{"text": "b", "pair": ""}], ["c", "d", "e"]], model)
    assert [status for status, _ in answers] == [200] * 3
    assert model.batches == [["busy"], ["a", "c", "d", "e"], ["b"]]
    model.batches.clear()
    assert [status for status, _ in at_once(ask, [["a"] * 3, ["b"] * 2], model)] == [200, 200]
    assert model.batches == [["busy"], ["a"] * 3, ["b"] * 2]


def test_more_than_may_wait_is_refused_and_the_rest_answered(ask: Ask, model: Model) -> None:
    answers = at_once(ask, [["a"] * 4, ["b", "c"], ["d"]], model)
    assert [status for status, _ in answers] == [200, 429, 200]
    assert answers[1][1] == {"error": "4 inputs are waiting already; expected fewer requests"}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "the body is not JSON: it breaks off, column 2"),
        (b'{"text": NaN}', 400, "the body is not JSON: NaN is not a JSON number"),
        (b"\xff", 400, "the body is not JSON that is read here: UnicodeDecodeError"),
        (b"[" * 150 + b"]" * 40, 400, "the body is not JSON"),
        (b" " * 201, 413, "the body exceeds 200 bytes"),
        (["a"] * 5, 413, "5 inputs; expected at most 4 per request"),
        ([{"text": "a"}, 3], 422, "input '1': int; expected a JSON object or a string"),
        (None, 422, "input '0': NoneType; expected a JSON object or a string"),
        ({"bad": 1}, 422, "input '0': bad"),
    ],
)
def test_what_is_no_request_is_told_in_one_line(ask: Ask, body: Any, status: int, message: str) -> None:
    found, answer = ask(body)
    assert found == status
    assert answer["error"].startswith(message) and answer.keys() == {"error"}


def test_other_paths_and_methods_are_refused_without_scripts(ask: Ask) -> None:
    assert ask("", "/predict", "GET") == (405, {"error": "Method Not Allowed"})
    for path in ("/docs", "/redoc", "/x"):
        assert ask("", path, "GET") == (404, {"error": "Not Found"})
    schema = ask("", "/openapi.json", "GET")[1]
    assert schema["paths"].keys() == {"/health", "/ready", "/predict"}


def test_it_is_alive_before_it_is_ready() -> None:
    may_load = threading.Event()

    def load() -> Model:
        assert may_load.wait(10)
        return Model()

    with running(load, lambda error: None, is_ready=False) as port:
        assert sent(port, "", "/health", "GET") == (200, {"status": "alive"})
        assert sent(port, "", "/ready", "GET") == (503, {"status": "loading", "task": "shout"})
        assert sent(port, "a")[0] == 503
        may_load.set()
        until(lambda: sent(port, "", "/ready", "GET")[0] == 200)
        assert sent(port, "a")[0] == 200


def test_what_loading_raises_ends_the_service() -> None:
    def load() -> Model:
        raise UserError("no such folder")

    causes: list[Exception] = []
    with running(load, causes.append, is_ready=False):
        until(lambda: bool(causes))
    assert str(causes[0]) == "no such folder"


def test_an_answer_does_not_wait_for_a_delayed_acknowledgement() -> None:
    async def option() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = serve.bound("127.0.0.1", 0)
        async with await asyncio.start_server(connected, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            writer.close()
            return await asyncio.wait_for(accepted, 10)

    assert asyncio.run(option())


def test_an_address_that_cannot_be_is_told_in_one_line() -> None:
    with serve.bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"^--host 127.0.0.1 --port {port}: Address already in use; expected a free"
        ):
            serve.bound("127.0.0.1", port)
    with pytest.raises(UserError, match=r"^--host nowhere.invalid --port 0: .*; expected a free port"):
        serve.bound("nowhere.invalid", 0)
    for number in ("-1", "65536", "x"):
        with pytest.raises(ValueError):
            serve.port(number)


def test_a_missing_extra_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(
        UserError, match=r"uvicorn is not installed; expected the extra serve: pip install -e '.\[serve\]'$"
    ):
        serve.run({}, {}, {}, None)  # type: ignore[arg-type]
