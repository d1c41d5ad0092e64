"""Serves an exported model over HTTP: python -m finetrail.serve. The answers are those of finetrail.predict."""

import argparse
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, get_args

from finetrail import inference, predict, stage, tasks
from finetrail.errors import UserError

STEP = 8  # features per batch: requests that are answered together differ in length
GRACE = 30  # seconds that open requests have to finish after SIGTERM


def main() -> None:
    """Serve the folder that the command line names, until SIGTERM or Ctrl-C."""
    started = time.perf_counter()
    options = arguments()
    settings = inference.read_settings(options.folder)
    task = settings.task
    serving = tasks.module(task, "serving")
    runtime = options.runtime or inference.preferred_runtime(options.folder)
    listening = bound(options.host, options.port)
    address = f"http://{options.host}:{listening.getsockname()[1]}"

    def load() -> inference.Predict:
        answer = loaded(options, runtime)
        answer([serving.probe(settings.target)])  # warm up: libraries allocate at the first call
        return answer

    def log_address() -> None:
        seconds = time.perf_counter() - started
        stage.log(f"serve: {task} by {runtime}, loaded in {seconds:.1f} s: {address}/predict")

    functions = {"load": load, "loaded": log_address, "text_input": serving.text_input}
    limits = {name: getattr(options, f"max_{name}") for name in ("bytes", "inputs", "waiting", "batch")}
    run(functions, limits, {"task": task, "runtime": runtime}, listening)


def loaded(options: argparse.Namespace, runtime: inference.Runtime) -> inference.Predict:
    """Load the folder so that an answer does not depend on the other inputs of its batch."""
    # int8: activations share a range within a batch, so each feature is a batch of its own.
    step = 1 if runtime == "onnx_int8" else options.batch_size
    return predict.load(options.folder, runtime, step, options.documents, options.threads)


def run(functions: dict[str, Any], limits: dict[str, int], about: dict[str, str], listening: socket.socket) -> None:
    """Serve on a socket until a signal ends it; raise what ended the service otherwise.

    functions and limits: arguments of service.Service. about: what /ready reports.
    """
    try:
        import uvicorn

        from finetrail import service
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; expected the extra serve: pip install -e '.[serve]'") from None

    causes: list[Exception] = []

    def failed(error: Exception) -> None:
        causes.append(error)
        server.should_exit = True

    app = service.make_app(service.Service(**functions, limits=service.Limits(**limits)), about, failed)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE, ws="none")
    )
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn sends itself the signal again when it has ended
        signal.signal(number, lambda *_: sys.exit(0))
    server.run(sockets=[listening])
    if causes:
        raise causes[0]


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens; UserError if it cannot."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        made = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise UserError(f"--host {host} --port {port}: {reason}; expected a free port, or --port 0") from None
    # asyncio sets TCP_NODELAY only if the protocol is named. Without it an answer waits 40 ms for a delayed ACK.
    return socket.socket(made.family, made.type, socket.IPPROTO_TCP, fileno=made.detach())


def port(text: str) -> int:
    """Return the number of a port; 0 means any free port."""
    if not 0 <= int(text) < 2**16:
        raise ValueError
    return int(text)


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m finetrail.serve",
        description="Answer POST /predict: an input as a line of finetrail.predict's --input, or a list of them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="output of the export stage: data/exported, or a copy of it")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all interfaces")
    parser.add_argument("--port", type=port, default=8000, help="0: any free port")
    parser.add_argument(
        "--runtime", choices=get_args(inference.Runtime), help="default: onnx, or torch if there is no ONNX file"
    )
    parser.add_argument(
        "--documents", type=Path, help="for retrieval: documents to search, as JSON Lines, .csv or .tsv"
    )
    parser.add_argument("--threads", type=predict.positive, help="threads of the model; default: the runtime's choice")
    parser.add_argument("--batch-size", type=predict.positive, default=STEP, help="features per batch")
    parser.add_argument("--max-batch", type=predict.positive, default=64, help="inputs that are answered together")
    parser.add_argument("--max-inputs", type=predict.positive, default=256, help="maximum inputs per request")
    parser.add_argument("--max-bytes", type=predict.positive, default=2**20, help="maximum bytes per request")
    parser.add_argument(
        "--max-waiting",
        type=predict.positive,
        default=1024,
        help="maximum inputs that wait; further requests get 429",
    )
    return parser.parse_args()


if __name__ == "__main__":
    stage.run(main)
