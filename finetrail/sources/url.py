"""Downloads URLs, with resumption, verifies the files, and unpacks archives."""

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import fsspec  # type: ignore[import-untyped]
import requests
import urllib3
from fsspec.callbacks import TqdmCallback  # type: ignore[import-untyped]
from requests.adapters import HTTPAdapter

from finetrail import schema
from finetrail.errors import UserError
from finetrail.progress import Bar
from finetrail.sources import archives, limits
from finetrail.sources.local import below
from finetrail.sources.provenance import Fetched, hash_file, record, shown, verify
from finetrail.stage import remove

CHUNK = 1 << 20
RETRIES = 4
BACKOFF = 1.0  # seconds before the second retry; each later one waits twice as long
RETRY_AFTER_MAX = 120  # seconds; a server may ask for longer
TIMEOUT = (30, 60)  # seconds to connect, and between two bytes


def fetch(source: schema.UrlSource, scratch: Path) -> Fetched:
    """Download each URL, unless its pinned file is present, verify it and unpack archives.

    UserError if a server refuses, a hash differs, or an archive is damaged or hostile.
    """
    names = [_file_name(url) for url in source.urls]
    pins: Sequence[str | None] = source.sha256 or [None] * len(names)
    root = scratch / "unpacked" / _key(" ".join(source.urls))
    remove(root)
    root.mkdir(parents=True)
    served = []
    for url, name, pinned in zip(source.urls, names, pins, strict=True):
        path = _download(url, name, pinned, scratch / "downloads" / _key(url), source.max_unpacked_mib)
        served.append(hash_file(path.parent, name))
        _place(path, root, source.max_unpacked_mib)
    return record(source, root, below(root), served=served)


def _place(path: Path, root: Path, max_unpacked_mib: int) -> None:
    if archives.is_archive(path.name):
        return archives.unpack(path, root, max_unpacked_mib)
    target = root / path.name
    if target.exists():
        raise UserError(f"url source: two urls give a file {path.name}; expected names that differ")
    try:
        os.link(path, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, target)


def _file_name(url: str) -> str:
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if name in ("", ".", "..") or "\\" in name:
        raise UserError(f"{shown(url)}: no file name in it; expected a URL whose path ends with one")
    return name


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _download(url: str, name: str, pinned: str | None, folder: Path, limit_mib: int) -> Path:
    """Return the downloaded file; an incomplete one is kept as NAME.part."""
    path = folder / name
    if pinned and path.is_file() and hash_file(folder, name)["sha256"] == pinned:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{name}.part"
    if urlsplit(url).scheme in ("http", "https"):
        _get(url, part, limit_mib)
    else:
        _open_elsewhere(url, part, limit_mib)
    os.replace(part, path)
    if pinned:
        try:
            verify(shown(url), hash_file(folder, name)["sha256"], pinned)
        except UserError:
            path.unlink()
            raise
    return path


def _get(url: str, part: Path, limit_mib: int) -> None:
    """Download over HTTP; a broken connection is resumed."""
    with requests.Session() as session:
        retry = urllib3.Retry(
            total=RETRIES,
            backoff_factor=BACKOFF,
            status_forcelist=(429, 500, 502, 503, 504),
            raise_on_status=False,
            retry_after_max=RETRY_AFTER_MAX,
        )
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        for attempt in range(RETRIES + 1):
            time.sleep(BACKOFF * 2 ** (attempt - 1) if attempt else 0)
            try:
                with _request(session, url, part) as response:
                    return _save(response, part, url, limit_mib)
            except urllib3.exceptions.HTTPError as error:
                broken = error
    got = f"{part.stat().st_size} bytes arrived"
    raise UserError(f"{shown(url)}: the connection broke {RETRIES + 1} times ({broken}); {got}: run it again to resume")


def _request(session: requests.Session, url: str, part: Path) -> requests.Response:
    """Request the rest of the file if a part of it is present and it has not changed since, otherwise all of it."""
    validator = part.with_suffix(".validator")
    # Without compression: the hash is that of the stored file.
    headers = {"Accept-Encoding": "identity"}
    if validator.exists() and part.exists() and part.stat().st_size:
        headers |= {"Range": f"bytes={part.stat().st_size}-", "If-Range": validator.read_text(encoding="utf-8")}
    try:
        response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.RequestException as error:
        reason = _reason(error).replace(url, shown(url))
        raise UserError(f"{shown(url)}: {reason}; expected a server that answers") from None
    if response.status_code == 416 and "Range" in headers:
        response.close()
        validator.unlink()
        return _request(session, url, part)
    if response.status_code not in ((200, 206) if "Range" in headers else (200,)):
        raise UserError(f"{shown(url)}: the server answered {response.status_code} {response.reason}; expected a file")
    return response


def _save(response: requests.Response, part: Path, url: str, limit_mib: int) -> None:
    """Append the rest of a file, or write a whole one; urllib3 raises if it ends before Content-Length.

    UserError, and the file is removed, if it is larger than the limit: a response may never end.
    """
    validator = part.with_suffix(".validator")
    start = part.stat().st_size if response.status_code == 206 else 0
    if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        validator.unlink()
        raise urllib3.exceptions.ProtocolError("the server sent another range than asked for")
    if not start:
        validator.unlink(missing_ok=True)
        if unchanged := _validator(response):
            validator.write_text(unchanged, encoding="utf-8")
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    if (total or 0) > limit_mib << 20:
        raise _too_large(url, limit_mib, part, validator)
    bar = Bar(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem)
    with bar, part.open("ab" if start else "wb") as file:
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            if file.tell() + len(chunk) > limit_mib << 20:
                raise _too_large(url, limit_mib, part, validator)
            file.write(chunk)
            bar.update(len(chunk))
    validator.unlink(missing_ok=True)


def _too_large(url: str, limit_mib: int, *arrived: Path) -> UserError:
    """Remove the incomplete files, and return the error."""
    for path in arrived:
        path.unlink(missing_ok=True)
    return UserError(
        f"{shown(url)}: larger than {limit_mib} MiB, the recipe's max_unpacked_mib; expected a smaller file, or a "
        "higher limit"
    )


def _validator(response: requests.Response) -> str | None:
    """Return the validator of a file for If-Range (RFC 9110), which may not be a weak ETag."""
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified")


def _reason(error: requests.RequestException) -> str:
    """Return the innermost cause of an exception of requests and urllib3."""
    cause: BaseException = error
    while cause.args and isinstance(getattr(cause.args[0], "reason", cause.args[0]), BaseException):
        cause = getattr(cause.args[0], "reason", cause.args[0])
    return str(cause)


def _open_elsewhere(url: str, part: Path, limit_mib: int) -> None:
    """Copy a file of another protocol (s3, gs, ftp, file ...) through fsspec."""
    try:
        system, path = fsspec.url_to_fs(url)
        if (system.size(path) or 0) > limit_mib << 20:
            raise _too_large(url, limit_mib)
        bar = {"unit": "B", "unit_scale": True, "desc": part.stem}
        within = limits.within(shown(url), limit_mib, "max_unpacked_mib")  # a server need not tell a size
        with within, TqdmCallback(tqdm_kwargs=bar, tqdm_cls=Bar) as progress:
            system.get_file(path, part, callback=progress)
    except UserError:
        part.unlink(missing_ok=True)
        raise
    except (ImportError, ValueError) as error:  # no such protocol, or its package is not installed
        raise UserError(f"{shown(url)}: {error}") from None
    except (FileNotFoundError, PermissionError, ConnectionError, TimeoutError) as error:
        raise UserError(f"{shown(url)}: {type(error).__name__}: {error}; expected a file that can be read") from None
