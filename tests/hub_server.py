"""A stand-in for the Hugging Face Hub on loopback: serves and receives folders in the protocol of its libraries.

It answers what huggingface_hub 2.4 and datasets 5.2 ask: repository info, tree, paths-info, refs, resolve with ETag
and ranges; and for a push: create, validate-yaml, preupload, LFS batch and upload, commit.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from datasets import Dataset, Features

LFS_ENDINGS = (".safetensors", ".onnx", ".parquet", ".bin")


class StandInHub:
    """Serve root/models/OWNER/NAME/files and root/datasets/OWNER/NAME/files; pushed repositories land there too.

    Every repository has one commit, computed from its content, under the names main, that commit, and `refs`
    (a ref that is a commit itself, as recipes pin it, is answered as that commit). Writing needs `token`.
    """

    def __init__(
        self, root: Path, refs: tuple[str, ...] = (), gated: tuple[str, ...] = (), token: str = "hf_test"
    ) -> None:
        self.root = root
        self.refs = refs
        self.gated = gated
        self.token = token
        self.understated = False  # whether it says of each file that it has no bytes, and sends them all
        self.failing = ""  # a regular expression: what matches it is answered 501, after which no client tries again
        self.requests: list[str] = []
        self.private: dict[str, bool] = {}
        self.uploads: dict[str, bytes] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "StandInHub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def env(self, home: Path) -> dict[str, str]:
        """Return the whole environment of a process whose libraries call this server, with their cache in `home`."""
        # Xet is another service, with its own protocol; without it the libraries use plain HTTP and Git LFS.
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
        }

    def folder(self, kind: str, repo: str) -> Path:
        return self.root / f"{kind}s" / repo

    def files(self, kind: str, repo: str) -> dict[str, Path]:
        folder = self.folder(kind, repo)
        return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

    def commit(self, kind: str, repo: str) -> str:
        """Return the id of the one commit: 40 hex digits that the content determines."""
        state = hashlib.sha1()
        for name, path in self.files(kind, repo).items():
            state.update(f"{name}\n{_git_hash(path.read_bytes())}\n".encode())
        return state.hexdigest()

    def resolve(self, kind: str, repo: str, revision: str) -> str | None:
        """Return the commit of a revision, None if there is none."""
        commit = self.commit(kind, repo)
        if revision in self.refs and re.fullmatch("[0-9a-f]{40}", revision):
            return revision
        return commit if revision in ("main", commit, *self.refs) else None


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _folder_entry(name: str) -> dict[str, Any]:
    return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}


class _Handler(BaseHTTPRequestHandler):
    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._dispatch()

    def do_HEAD(self) -> None:
        self._dispatch()

    def do_POST(self) -> None:
        self._dispatch()

    def do_PUT(self) -> None:
        self._dispatch()

    def _dispatch(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        self.body = self._read_body()
        path = urlsplit(self.path).path
        if self.hub.failing and re.search(self.hub.failing, f"{self.command} {path}"):
            return self._fail(501, "", "Not Implemented")
        for pattern, method in ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match:
                return getattr(self, method)(**{key: unquote(value or "") for key, value in match.groupdict().items()})
        self._fail(HTTPStatus.NOT_FOUND, "EntryNotFound", f"no route for {self.command} {path}")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    # --- answers

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _commit_of(self, kind: str, repo: str, revision: str) -> str | None:
        """Return the commit, or answer with the error that the Hub gives and return None."""
        if not self.hub.folder(kind, repo).is_dir():
            return self._fail(404, "RepoNotFound", "Repository not found")
        commit = self.hub.resolve(kind, repo, revision or "main")
        if commit is None:
            return self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _may_write(self) -> bool:
        allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if not allowed:
            self._fail(401, "", "Invalid username or password.")
        return allowed

    def _entry(self, name: str, path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        entry = {"type": "file", "path": name, "size": len(content), "oid": _git_hash(content)}
        if name.endswith(LFS_ENDINGS):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    # --- reading

    def info(self, kind: str, repo: str, revision: str) -> None:
        commit = self._commit_of(kind, repo, revision)
        if commit is None:
            return
        files = self.hub.files(kind, repo)
        readme = files["README.md"].read_text(encoding="utf-8") if "README.md" in files else ""
        card = re.match(r"---\n(.*?)\n---", readme, re.DOTALL)
        self._json(
            {
                "_id": commit[:24],
                "id": repo,
                "sha": commit,
                "private": self.hub.private.get(repo, False),
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "cardData": yaml.safe_load(card[1]) if card else {},
                "siblings": [
                    {"rfilename": name, "size": 0 if self.hub.understated else path.stat().st_size}
                    for name, path in files.items()
                ],
            }
        )

    def tree(self, kind: str, repo: str, revision: str, path: str) -> None:
        if self._commit_of(kind, repo, revision) is None:
            return
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["False"])[0].lower() == "true"
        prefix = f"{path}/" if path else ""
        entries, folders = [], set()
        for name, file in self.hub.files(kind, repo).items():
            if name.startswith(prefix):
                parts = name.removeprefix(prefix).split("/")
                depths = range(1, len(parts)) if recursive else range(1, min(2, len(parts)))
                folders |= {prefix + "/".join(parts[:depth]) for depth in depths}
                entries += [self._entry(name, file)] if recursive or len(parts) == 1 else []
        if path and not entries and not folders:
            return self._fail(404, "EntryNotFound", f"{path} does not exist")
        self._json([_folder_entry(name) for name in sorted(folders)] + entries)

    def paths_info(self, kind: str, repo: str, revision: str) -> None:
        if self._commit_of(kind, repo, revision) is None:
            return
        files = self.hub.files(kind, repo)
        entries = []
        for name in parse_qs(self.body.decode()).get("paths", []):
            if name in files:
                entries.append(self._entry(name, files[name]))
            elif any(file.startswith(f"{name}/") for file in files):
                entries.append(_folder_entry(name))
        self._json(entries)

    def refs(self, kind: str, repo: str) -> None:
        commit = self._commit_of(kind, repo, "main")
        if commit is not None:
            self._json(
                {
                    "branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": commit}],
                    "converts": [],
                    "tags": [],
                }
            )

    def file(self, datasets: str, repo: str, revision: str, path: str) -> None:
        kind = "dataset" if datasets else "model"
        commit = self._commit_of(kind, repo, revision)
        if commit is None:
            return
        if repo in self.hub.gated:  # as on the Hub: everybody may see what is there
            return self._fail(403, "GatedRepo", f"Access to {kind} {repo} is restricted")
        file = self.hub.files(kind, repo).get(path)
        if file is None:
            return self._fail(404, "EntryNotFound", "Entry not found")
        content = file.read_bytes()
        entry = self._entry(path, file)
        headers = {"ETag": f'"{entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]}"', "X-Repo-Commit": commit}
        headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            return self._send(206, content[start : end + 1], headers)
        self._send(200, content, headers)

    # --- writing

    def create(self) -> None:
        if not self._may_write():
            return
        request = json.loads(self.body)
        repo = f"{request['organization']}/{request['name']}"
        folder = self.hub.folder(request.get("type", "model"), repo)
        if folder.is_dir():
            return self._json({"error": "You already created this repo", "url": f"{self.hub.url}/{repo}"}, 409)
        folder.mkdir(parents=True)
        self.hub.private[repo] = request.get("visibility") == "private"
        self._json({"url": f"{self.hub.url}/{repo}", "name": repo})

    def validate_yaml(self) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, kind: str, repo: str, revision: str) -> None:
        if not self._may_write() or self._commit_of(kind, repo, revision) is None:
            return
        files = self.hub.files(kind, repo)
        answers = []
        for file in json.loads(self.body)["files"]:
            name = file["path"]
            entry = self._entry(name, files[name]) if name in files else {}
            answers.append(
                {
                    "path": name,
                    "uploadMode": "lfs" if name.endswith(LFS_ENDINGS) else "regular",
                    "shouldIgnore": False,
                    "oid": entry.get("lfs", entry).get("oid"),
                }
            )
        self._json({"files": answers})

    def lfs_batch(self, datasets: str, repo: str) -> None:
        if not self._may_write():
            return
        objects = json.loads(self.body)["objects"]
        for item in objects:
            item["actions"] = {"upload": {"href": f"{self.hub.url}/lfs-upload/{item['oid']}"}}
        self._json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._fail(400, "", "content does not match its oid")
        self.hub.uploads[oid] = self.body
        self._send(200, b"")

    def commit(self, kind: str, repo: str, revision: str) -> None:
        if not self._may_write() or self._commit_of(kind, repo, revision) is None:
            return
        folder = self.hub.folder(kind, repo)
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                self._write(folder / value["path"], base64.b64decode(value["content"]))
            elif operation["key"] == "lfsFile":
                self._write(folder / value["path"], self.hub.uploads[value["oid"]])
            elif operation["key"] == "deletedFile":
                (folder / value["path"]).unlink()
            elif operation["key"] == "deletedFolder":
                shutil.rmtree(folder / value["path"])
        commit = self.hub.commit(kind, repo)
        self._json({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{repo}/commit/{commit}"})

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
API = rf"/api/(?P<kind>model|dataset)s/{REPO}"
ROUTES = [
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate_yaml"),
    (rf"GET {API}(/revision/(?P<revision>[^/]+))?", "info"),
    (rf"GET {API}/tree/(?P<revision>[^/]+)(/(?P<path>.+))?", "tree"),
    (rf"GET {API}/refs", "refs"),
    (rf"POST {API}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    (rf"POST {API}/preupload/(?P<revision>[^/]+)", "preupload"),
    (rf"POST {API}/commit/(?P<revision>[^/]+)", "commit"),
    (rf"POST /(?P<datasets>datasets/)?{REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    (r"PUT /lfs-upload/(?P<oid>[0-9a-f]{64})", "lfs_upload"),
    (rf"(GET|HEAD) /(?P<datasets>datasets/)?{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "file"),
]


def write_parquet(path: Path, rows: list[dict[str, Any]], features: Features) -> None:
    """Write rows as a dataset's repository has them, with its features in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=features).to_parquet(path)
