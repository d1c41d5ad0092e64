"""Servers that are gone, never answer, or stop midway: of a corpus by URL, of the Hub, and of a DVC repository."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.accelerator.projects import write_recipe
from benchmarks.faults import forked
from benchmarks.faults.outcomes import Outcome, judge
from benchmarks.faults.toys import Toy

SECONDS = 1.0  # that a download waits here; 60 by default
GONE, SILENT, MIDWAY, WELL = "refuses", "never answers", "stops midway", "well"


class Gate:
    """A server on loopback that hands on to another one, or does what its `mode` says; it runs in a fork."""

    def __init__(self, server: int, mode: Path) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.server, self.mode = server, mode

    def serve(self) -> None:
        kept = []
        while True:
            client, _ = self.listening.accept()
            kept.append(client)
            threading.Thread(target=self.answer, args=(client,), daemon=True).start()

    def answer(self, client: socket.socket) -> None:
        mode = self.mode.read_text()
        if mode == GONE:
            client.close()
        elif mode != SILENT:
            server = socket.create_connection(("127.0.0.1", self.server))
            threading.Thread(target=hand_on, args=(client, server, None), daemon=True).start()
            hand_on(server, client, 600 if mode == MIDWAY else None)


def hand_on(source: socket.socket, target: socket.socket, most: int | None) -> None:
    """Hand on what comes, or the first bytes and then nothing more."""
    try:
        while data := source.recv(65536):
            target.sendall(data[:most])
            if most is not None:
                return
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def server(folder: Path, mode: Path) -> Iterator[int]:
    """Serve a folder through a gate, in a fork; give the gate's port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    gate = Gate(server.server_port, mode)
    process = os.fork()
    if not process:
        os.setsid()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        gate.serve()
    try:
        yield gate.port
    finally:
        forked.kill(process)
        os.waitpid(process, 0)


def run(toy: Toy, log: Path) -> Iterator[Outcome]:
    """Take the corpus from each kind of server while it fails, and again when it does not."""
    mode = toy.project.parent / "mode"
    mode.write_text(WELL)
    with server(toy.project, mode) as port:
        [recipe] = (toy.project / "recipes" / toy.task).glob("small.yaml")
        whole = YAML(typ="safe").load(recipe)
        url = f"http://127.0.0.1:{port}"
        sources: dict[str, tuple[str, dict[str, Any]]] = {
            "corpus by url": (
                "download@corpus",
                {"kind": "url", "urls": [f"{url}/corpus.jsonl"], "sha256": None, "max_unpacked_mib": 16},
            ),
            "corpus of the Hub": (
                "download@corpus",
                {"kind": "hub", "repo": "me/data", "config": None, "revision": "main"},
            ),
            "model of the Hub": (
                "download@model",
                {"kind": "hub", "repo": "me/model", "config": None, "revision": "main"},
            ),
            "corpus of a DVC repository": (
                "download@corpus",
                {"kind": "dvc", "repo": f"{url}/team.git", "rev": "main", "path": "corpus.jsonl", "sha256": None},
            ),
        }
        for name, (stage, source) in sources.items():
            section = stage.partition("@")[2]
            for failing in (GONE, SILENT, MIDWAY):
                own = whole[section]["source"]
                changed = whole[section] | {"source": source}
                if name == "corpus of the Hub":  # which has Parquet
                    changed |= {"reader": {"format": "parquet", "columns": whole["corpus"]["reader"]["columns"]}}
                write_recipe(toy.project, toy.task, whole | {section: changed})
                toy.clear(stage)
                mode.write_text(failing)
                first = forked.run(stage, toy.project, log, partial(impatient, url), seconds=60)
                mode.write_text(WELL)
                if source["kind"] != "url":  # the stand-in is none of the Hub: then by the file that it was before
                    write_recipe(toy.project, toy.task, whole | {section: whole[section] | {"source": own}})
                again = forked.run(stage, toy.project, log) if first.code else None
                same = toy.is_as_it_was(stage) if source["kind"] != "url" else again is not None and not again.code
                yield judge(f"a server that {failing}", toy.task, name, first, again, same)


def impatient(hub: str) -> None:
    """Shorten the time limits of downloads, and use that server as the Hub."""
    from huggingface_hub import constants

    from finetrail import hub_errors
    from finetrail.sources import dvc_repo, url

    url.TIMEOUT, url.BACKOFF = (SECONDS, SECONDS), 0.01
    hub_errors.TIMEOUT = dvc_repo.TIMEOUT = SECONDS
    constants.ENDPOINT = hub
    os.environ["HF_HUB_OFFLINE"] = "0"
    constants.HF_HUB_OFFLINE = False
