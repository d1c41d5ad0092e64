"""Real servers on loopback, for as long as a `with` block: what a team's DVC remote or Git repository is on."""

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_connection, socket

Remote = dict[str, str]  # the section of DVC's configuration


@contextmanager
def folder(place: Path) -> Iterator[Remote]:
    yield {"url": str(place / "remote")}


class FileHandler(SimpleHTTPRequestHandler):
    """Files below a folder: GET, HEAD, and PUT in chunks, as DVC sends it."""

    def do_PUT(self) -> None:
        path = Path(self.translate_path(self.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        path.write_bytes(content)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def http(place: Path) -> Iterator[Remote]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: FileHandler(*given, directory=str(place)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield {"url": f"http://127.0.0.1:{server.server_port}/remote", "method": "PUT"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def ssh(place: Path) -> Iterator[Remote]:
    """OpenSSH's protocol with SFTP, by asyncssh's server, for one key."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(place / "key"))
    key.write_public_key(str(place / "authorized"))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            authorized_client_keys=str(place / "authorized"),
            sftp_factory=True,
        )

    async def stop() -> None:
        server.close()
        await server.wait_closed()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        url = f"ssh://somebody@127.0.0.1:{server.get_port()}{place}/remote"
        yield {"url": url, "keyfile": str(place / "key")}
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def s3(place: Path) -> Iterator[Remote]:
    """Amazon's S3, by moto's server."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = {"endpointurl": f"http://{host}:{port}", "access_key_id": "me", "secret_access_key": "secret"}
    try:
        boto3.client(
            "s3", endpoint_url=access["endpointurl"], region_name="us-east-1",
            aws_access_key_id="me", aws_secret_access_key="secret",
        ).create_bucket(Bucket="bucket")  # fmt: skip
        yield {"url": "s3://bucket/finetrail", "region": "us-east-1"} | access
    finally:
        server.stop()


@contextmanager
def git(place: Path) -> Iterator[str]:
    """Git's own server of the bare repository place/project.git; gives its URL."""
    subprocess.run(
        ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(place / "project.git")], check=True
    )
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["git", "daemon", "--listen=127.0.0.1", f"--port={port}", "--export-all", "--enable=receive-pack"]
    server = subprocess.Popen([*command, f"--base-path={place}", str(place)], start_new_session=True)
    try:
        until_open(port)
        yield f"git://127.0.0.1:{port}/project.git"
    finally:
        os.killpg(server.pid, 15)  # git starts the daemon as a process of its own
        server.wait()


def until_open(port: int) -> None:
    for _ in range(500):
        try:
            create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise TimeoutError(f"nothing listens on port {port}")
