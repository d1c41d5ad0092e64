"""Code around the work of every stage: errors as one line, outputs moved into place whole, log lines."""

import errno
import gc
import json
import os
import re
import shutil
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout

from finetrail import layout
from finetrail.errors import UserError

# Read once, because reading sets it, for all threads of the process.
UMASK = os.umask(0o077)
os.umask(UMASK)
# Held until the process ends, however it does.
RUNNING = FileLock(layout.SCRATCH / "running")
COMMANDING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
LONGEST_LINE = 1900
FULL = (errno.ENOSPC, errno.EDQUOT)
# Messages of a full disk in errors that libraries define: those in Rust, and torch.save (2.13); "iostream" if only the
# last bytes of a stream do not fit.
NO_ROOM = (os.strerror(errno.ENOSPC), "PytorchStreamWriter failed writing", ". unexpected pos ", "iostream error")
# Called by outputs() before it moves anything into place; stages/__init__.py sets it.
check_dependencies: Callable[[], None] = lambda: None  # noqa: E731
# Paths that output() has returned and not yet moved into place; end() removes them.
PARTIAL: set[Path] = set()
# Messages of missing memory in errors that libraries define: torch on CPU and GPU, C++, onnxruntime, the system;
# oneDNN; pyarrow and Python for a thread; the dynamic loader for a library.
NO_MEMORY = (
    *("can't allocate memory", "out of memory", "bad_alloc", "bad allocation", os.strerror(errno.ENOMEM)),
    *("could not create a primitive", "could not create a memory"),
    *("Failed to launch worker thread", "can't start new thread", "failed to map segment from shared object"),
)
LESS_MEMORY = (
    "expected more of it, nothing large beside this process, or a smaller train.batch_size, train.eval_batch_size, "
    "evaluate.batch_size or tokenize.num_proc; then run it again"
)
SHOWN = 100  # characters of a library's message
RESTORE = "free some, then run it again; `dvc checkout` brings this stage's earlier outputs back"


def run(main: Callable[[], None]) -> None:
    """Call main(); end with one line on stderr and exit code 1 if the user can fix the cause."""
    # Libraries' deprecations and load reports are for us, in the tests; a user can do nothing about them.
    warnings.simplefilter("ignore")
    if not gc.isenabled():  # stages/__init__.py imports without the collector, which need not look at that later either
        gc.freeze()
        gc.enable()
    if "transformers" in sys.modules:
        silence_transformers()
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {one_line(error)}")
    except Exception as error:
        if line := _of_the_machine(error):
            sys.exit(f"error: {line}")
        if not isinstance(error, ImportError) and (damage := damaged()):  # whatever it has led to
            sys.exit(f"error: {plain(damage)}")
        raise


def _of_the_machine(error: Exception) -> str | None:
    """Return the line for a missing resource: disk space, memory, or write permission; None for any other error."""
    if is_full(error):
        return f"no space left on a disk; {RESTORE}"
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        said = (str(error).splitlines() or [type(error).__name__])[0][:SHOWN]
        return f"no memory left ({said}); {LESS_MEMORY}"
    if isinstance(error, PermissionError | NotADirectoryError) or getattr(error, "errno", None) == errno.EROFS:
        filename, problem = getattr(error, "filename", None), getattr(error, "strerror", None)
        return f"{filename}: {problem}; expected a place that this user may write to"
    return None


def is_full(error: BaseException) -> bool:
    """Return True if an error is that of a full disk."""
    return getattr(error, "errno", None) in FULL or any(words in str(error) for words in NO_ROOM)


def one_line(error: UserError) -> str:
    """Return the error as one line; of a line that names or ids of a file make long, both ends."""
    line = plain(" ".join(str(error).split()))
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 3 :]}"


def damaged() -> str | None:
    """Return the problem of the first file of earlier stages that cannot be read to its end; None if all can be.

    It is called when a stage fails for no known reason: DVC compares no bytes before it runs a stage, and a file may be
    truncated or overwritten in the cache that it is linked to.
    """
    found = (path for output in layout.OUTPUTS for path in (output, *output.rglob("*")))
    for path in sorted(path for path in found if path.suffix in READERS and path.is_file()):
        try:
            READERS[path.suffix](path)
        except Exception as error:  # each format has its own
            problem = " ".join(str(error).split())
            return (
                f"{path} is damaged ({problem:.150}); expected it as an earlier stage wrote it: remove it, also from "
                "DVC's cache, then run `dvc repro`"
            )
    return None


def _read_parquet(path: Path) -> None:
    from pyarrow import parquet

    for batch in parquet.ParquetFile(path).iter_batches():
        batch.validate(full=True)


def _read_arrow(path: Path) -> None:
    import pyarrow

    with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as batches:
        for batch in batches:
            batch.validate(full=True)


def _read_safetensors(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        file.keys()


READERS: dict[str, Callable[[Path], object]] = {
    ".arrow": _read_arrow,
    ".json": lambda path: json.loads(path.read_bytes()),
    ".parquet": _read_parquet,
    ".safetensors": _read_safetensors,
}


def silence_transformers() -> None:
    """Import transformers, and let it print errors alone."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@contextmanager
def printing() -> Iterator[None]:
    """End without an error if the reader of the output closes the pipe, as head does."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # else Python would flush again when it ends, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_alone() -> None:
    """Keep other stages from running in this folder until the process ends; UserError if one runs already.

    If dvc is killed but its stage survives, the orphan keeps running, and a second stage would write the same files.
    """
    layout.SCRATCH.mkdir(exist_ok=True)
    process = layout.SCRATCH / "running.pid"
    try:
        RUNNING.acquire(timeout=0)
    except Timeout:
        number = process.read_text() if process.exists() else "(its number is unknown)"
        raise UserError(
            f"process {number} still runs a stage in this folder, though its dvc may have been killed; "
            "expected none: end it (training resumes from its last checkpoint), then run again"
        ) from None
    process.write_text(str(os.getpid()))


def is_first_process() -> bool:
    """Return True in the process that logs and writes; torchrun and accelerate launch start several."""
    return os.environ.get("RANK", "0") == "0"


def plain(text: str) -> str:
    """Return a line with control characters, and those that change the direction of text, as escapes.

    Log lines quote corpora, file names and labels of other people, which must not control the terminal.
    """
    return COMMANDING.sub(lambda match: ascii(match[0])[1:-1], text)


def log(message: str) -> None:
    """Print one line for people, in one process only; flushed, so that it is in order with DVC's lines."""
    if is_first_process():
        print(plain(message), file=sys.stderr, flush=True)


@contextmanager
def output(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` for a file or a folder; move it into place, or remove it on any error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    remove(beside)
    PARTIAL.add(beside)
    try:
        yield beside
        _allow_by_umask(beside)
        remove(path)
        os.replace(beside, path)
    except Exception as error:
        if is_full(error):
            raise UserError(f"no space left on the disk of {path}; {RESTORE}") from None
        raise
    finally:
        remove(beside)
        PARTIAL.discard(beside)


def end(message: str) -> NoReturn:
    """End the process with one line, from a thread, while other threads may be where no exception reaches them."""
    for path in [*PARTIAL]:
        remove(path)
    print(plain(f"error: {message}"), file=sys.stderr, flush=True)
    os._exit(1)


@contextmanager
def outputs(*paths: Path) -> Iterator[list[Path]]:
    """Give a path to write to for each output of a stage, as output() does; move all of them, or none.

    UserError, and none is moved, if a dependency of the stage has changed since it began.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(output(path)) for path in paths]
        check_dependencies()


def _allow_by_umask(path: Path) -> None:
    """Give others the rights of the umask, because safetensors and tempfile write files for their owner alone."""
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if not file.is_symlink():
            allowed = (0o777 if file.is_dir() else 0o666) & ~UMASK
            file.chmod(stat.S_IMODE(file.stat().st_mode) | allowed)


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with the keys as given, one a line, so that Git shows what changed."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file that an earlier stage wrote; UserError if it did not."""
    if not path.is_file():
        raise UserError(f"{path} is missing; expected the output of an earlier stage: run `dvc repro`")
    return json.loads(path.read_text(encoding="utf-8"))
