"""The service under load beside a bare loop over the same model, and a handler that answers request by request.

python -m benchmarks.serve    (needs a finished `dvc repro` of the default recipe)

Clients send the test split, a sentence a request, as fast as they get their answers: one client, then 8, then 32. The
bare loop is transformers' pipeline on the same sentences, in torch, one by one. The plain handler is FastAPI with the
same model in ONNX, which answers each request by itself.
"""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks import ROOT, keep, machine
from finetrail import layout

TEXTS = 200  # a measurement
CLIENTS = (1, 8, 32)
ROUNDS = 2  # of each measurement, in turn; the best is kept
THREADS = 2  # of the model, on every side
SIDES = {
    "ours": ["-m", "finetrail.serve", str(layout.EXPORTED), "--port", "0", "--threads", str(THREADS)],
    "plain_handler": ["-m", "benchmarks.serve", "plain"],
}


def texts() -> list[str]:
    """Return the sentences of the test split, over and over."""
    table = pq.read_table(layout.table_file(layout.CORPUS, "test"))
    rows = [" ".join(tokens) for tokens in table["tokens"].to_pylist()]
    return [rows[number % len(rows)] for number in range(TEXTS)]


@contextmanager
def server(arguments: list[str]) -> Iterator[tuple[int, float]]:
    """Give port and seconds from the start of a process to its first answer."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if not found:
            raise SystemExit(line + process.stderr.read())
        port = int(found[1])
        ask(HTTPConnection("127.0.0.1", port), "Anna lives in Paris")
        yield port, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(20)


def ask(connection: HTTPConnection, text: str) -> Any:
    """Send one text and return its answer."""
    connection.request("POST", "/predict", json.dumps({"text": text}), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    if answer.status != 200:
        raise SystemExit(f"{answer.status}: {found}")
    return found


def load(port: int, asked: list[str], clients: int) -> dict[str, float]:
    """Return texts a second, and the milliseconds that an answer takes, of so many clients that ask in turn."""
    times: list[float] = []
    waiting = iter(asked)
    lock = threading.Lock()

    def client() -> None:
        connection = HTTPConnection("127.0.0.1", port)
        while True:
            with lock:
                text = next(waiting, None)
            if text is None:
                return
            sent = time.perf_counter()
            ask(connection, text)
            times.append(time.perf_counter() - sent)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return figures(times, time.perf_counter() - started)


def figures(times: list[float], seconds: float) -> dict[str, float]:
    """Return the rate and the percentiles of one measurement."""
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return {"texts_per_second": round(len(times) / seconds, 1), "p50_ms": round(p50, 1), "p99_ms": round(p99, 1)}


def loop(asked: list[str]) -> dict[str, float]:
    """Return the figures of transformers' pipeline on the same texts, one by one."""
    import torch
    from transformers import logging, pipeline

    torch.set_num_threads(THREADS)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tag = pipeline("token-classification", str(layout.EXPORTED), device="cpu")
    tag("Anna lives in Paris")
    times = []
    for text in asked:
        started = time.perf_counter()
        tag(text)
        times.append(time.perf_counter() - started)
    return figures(times, sum(times))


def plain() -> None:
    """Serve the same model by a handler that answers each request by itself, as a first service does."""
    import uvicorn
    from fastapi import FastAPI

    from finetrail import inference, serve

    predict = inference.load(layout.EXPORTED, "onnx", threads=THREADS)
    app = FastAPI()

    @app.post("/predict")
    def answer(given: dict[str, Any]) -> dict[str, Any]:
        return predict([given])[0]

    listening = serve.bound("127.0.0.1", 0)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", file=sys.stderr, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run([listening])


def main() -> None:
    """Measure all sides, in turn."""
    asked = texts()
    found: dict[str, list[dict[str, float]]] = {}
    starts: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for side, arguments in SIDES.items():
            with server(arguments) as (port, seconds):
                starts.setdefault(side, []).append(seconds)
                for clients in CLIENTS:
                    found.setdefault(f"{side}: {clients} at once", []).append(load(port, asked, clients))
        found.setdefault("bare loop of transformers' pipeline", []).append(loop(asked))
    best = {name: max(rounds, key=lambda one: one["texts_per_second"]) for name, rounds in found.items()}
    keep(
        "serve",
        {
            "machine": machine(),
            "model": "the default recipe: 6 layers, 384 wide; sentences of the test split",
            "start_to_first_answer_seconds": {side: round(min(seconds), 2) for side, seconds in starts.items()},
            **best,
        },
    )


if __name__ == "__main__":
    plain() if sys.argv[1:] == ["plain"] else main()
