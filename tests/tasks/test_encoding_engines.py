"""Where encoding runs makes no difference: on more processes and on two nodes of a Ray cluster as in this process."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from batch_functions import die, fail, node, refuse, row, slower_first
from conftest import ROOT
from ruamel.yaml import YAML
from toys import projects

from finetrail import layout, params, tasks
from finetrail.encoding.engines import WAITING, Batch, OrderedMap, ordered_map
from finetrail.errors import UserError
from stages import download_corpus, download_model, tokenize

BATCH = 7  # so that toy corpora have many


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Start a Ray cluster of two nodes with a CPU each, which know nothing of the project, and return its address."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "RAY_USAGE_STATS_ENABLED": "0"},
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("")


# In a process of its own: it leaves its nodes' Popen objects and log files to the garbage collector, which warns.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args=head)
cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def on_ray(cluster: str) -> Iterator[OrderedMap]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster)
        with ordered_map("ray", 2) as mapped:
            yield mapped


@pytest.fixture(scope="module")
def on_two() -> Iterator[OrderedMap]:
    with ordered_map("local", 2) as mapped:
        yield mapped


# A cluster of two nodes is a dozen processes: CI has it. A test of Ray that starts itself runs always.
@pytest.fixture(params=["on_two", pytest.param("on_ray", marks=pytest.mark.slow)])
def mapped(request: pytest.FixtureRequest) -> OrderedMap:
    return request.getfixturevalue(request.param)


# --- all tasks ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def at(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Path]]:
    """Return the function that enters the project of a task, whose corpus and base model are there."""
    with projects(request, download_corpus, download_model) as enter:
        yield enter


def encoded(task: str, mapped: OrderedMap, folder: Path) -> dict[str, Any]:
    """Return bytes and counts of the features of every table, written as the stage does."""
    encoding, settings = tasks.module(task, "encoding"), params.load("tokenize").tokenize
    tokenizer = encoding.load_tokenizer(layout.BASE_TOKENIZER, settings, tokenize.train)
    encoder = encoding.Encoder(tokenizer, encoding.target(tokenize.train(), settings), settings)
    found = {}
    for table, schema in encoder.tables.items():
        batches = tokenize.Batches(layout.table_file(layout.CORPUS, table).absolute(), None, BATCH)
        counts = tokenize.write(encoder.encode_table(table, batches, mapped), schema, folder / table, 1)
        found[table] = ((folder / table).read_bytes(), counts)
    return found


@pytest.mark.parametrize("task", tasks.names())
def test_every_task_gives_the_same_bytes_and_counts(
    task: str, mapped: OrderedMap, at: Callable[[str], Path], tmp_path: Path
) -> None:
    at(task)
    assert encoded(task, mapped, tmp_path) == encoded(task, map, tmp_path)


# --- the stage ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_stage_writes_the_same_folder_whatever_encodes(at: Callable[[str], Path], cluster: str) -> None:
    project = at("text_generation")  # whose tokenizer is trained in the stage
    recipe = project / "recipes/text_generation/toy.yaml"
    folders = []
    for engine, num_proc in (("local", 1), ("local", 2), ("ray", 2)):
        change(recipe, "tokenize", engine=engine, num_proc=num_proc)
        done = run_stage(project, RAY_ADDRESS=cluster)
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stderr.splitlines() if ": warning: " not in line]
        assert [line.split(":")[:2] for line in lines] == [["tokenize", f" {split}"] for split in layout.SPLITS]
        folders.append({path.name: path.read_bytes() for path in layout.TOKENIZED.rglob("*") if path.is_file()})
    assert folders[0] == folders[1] == folders[2]


def test_ray_without_an_address_is_started_here_and_ended() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTS_RAY], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 2] False\n", "")


STARTS_RAY = """
import numpy as np, pyarrow as pa, ray
from finetrail.encoding.engines import ordered_map
batches = [(np.array([row]), pa.table({"id": ["a"]})) for row in range(3)]
with ordered_map("ray", 2) as mapped:
    found = [int(row) for row in mapped(lambda batch: batch[0][0], batches)]
print(found, ray.is_initialized())
"""


def run_stage(project: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.tokenize"], cwd=project, capture_output=True, text=True, timeout=120,
        env=environment(project) | more,
    )  # fmt: skip


def environment(project: Path = ROOT) -> dict[str, str]:
    """Return that of a process which imports a project, and the functions of these tests."""
    kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return kept | {"PYTHONPATH": f"{project}{os.pathsep}{Path(__file__).parent}"}


def change(path: Path, section: str, **values: Any) -> None:
    yaml = YAML()
    recipe = yaml.load(path)
    recipe[section].update(values)
    yaml.dump(recipe, path)


# --- the map ------------------------------------------------------------------------------------------------------


def batches(count: int) -> list[Batch]:
    return [(np.array([row]), pa.table({"id": [str(row)]})) for row in range(count)]


def test_results_come_in_order_from_other_processes(mapped: OrderedMap) -> None:
    found = list(mapped(slower_first, batches(10)))
    assert [row for row, _ in found] == list(range(10))
    processes = {process for _, process in found}
    assert os.getpid() not in processes
    assert len(processes) > 1


@pytest.mark.slow
def test_both_nodes_of_a_cluster_encode(on_ray: OrderedMap) -> None:
    assert len(set(on_ray(node, batches(8)))) == 2


def test_no_batches_give_no_results(mapped: OrderedMap) -> None:
    assert list(mapped(row, [])) == []


def test_what_a_user_can_mend_is_told_as_in_one_process(mapped: OrderedMap) -> None:
    results = mapped(refuse, batches(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="^row 3: no good; expected good$"):
        next(results)


def test_a_bug_is_told_with_its_name(mapped: OrderedMap) -> None:
    with pytest.raises(Exception, match="a bug"):
        list(mapped(fail, batches(2)))


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_killed_process_ends_it_with_one_error(engine: str, request: pytest.FixtureRequest) -> None:
    if engine == "local":
        with pytest.raises(UserError, match=KILLED), ordered_map("local", 2) as mapped:
            list(mapped(die, batches(6)))
    else:
        with pytest.raises(UserError, match=KILLED):
            list(request.getfixturevalue("on_ray")(die, batches(6)))


KILLED = r"^tokenize: a .*process .*(was killed|was lost).*; expected it to finish: run the stage again"


@pytest.mark.parametrize("num_proc", [2, 3])
def test_few_batches_wait_at_a_time(num_proc: int) -> None:
    drawn = 0

    def counted() -> Iterator[Batch]:
        nonlocal drawn
        for batch in batches(30):
            drawn += 1
            yield batch

    with ordered_map("local", num_proc) as mapped:
        for done, found in enumerate(mapped(row, counted())):
            assert found == done
            assert drawn - done <= WAITING * num_proc + 1


def test_one_process_is_this_one() -> None:
    with ordered_map("local", 1) as mapped:
        assert [*mapped(lambda batch: os.getpid(), [(np.array([0]), pa.table({"id": ["a"]}))])] == [os.getpid()]


def test_processes_end_with_the_context_and_keep_their_function() -> None:
    with ordered_map("local", 2) as mapped:
        one, other = ({process for _, process in mapped(slower_first, batches(6))} for _ in range(2))
        assert one == other
    assert not [process for process in one if alive(process)]


def test_processes_end_with_a_killed_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], env=environment(), stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            assert parent.stdout is not None
            workers = [int(parent.stdout.readline()) for _ in range(2)]
            assert all(map(alive, workers))
        finally:
            parent.kill()
    deadline = time.monotonic() + 30
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


WAITS = """
import os, time
import numpy as np, pyarrow as pa
from batch_functions import process
from finetrail.encoding.engines import ordered_map

def batches():
    yield from ((np.array([row]), pa.table({"id": ["a"]})) for row in range(20))
    time.sleep(600)

with ordered_map("local", 2) as mapped:
    seen = set()
    for worker in mapped(process, batches()):
        if worker not in seen:
            seen.add(worker)
            print(worker, flush=True)
"""


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- Ray that is not there ------------------------------------------------------------------------------------------


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "finetrail.encoding.on_ray", raising=False)
    monkeypatch.delattr("finetrail.encoding.on_ray", raising=False)
    with (
        pytest.raises(UserError, match=r"^tokenize.engine: ray, but ray is not installed; expected `pip install"),
        ordered_map("ray", 2),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", r"^RAY_ADDRESS: no Ray cluster answers at 127.0.0.1:9 \(.*refused\); expected a running one"),
        ("ray://head:10001", r"^RAY_ADDRESS: 'ray://head:10001'; expected HOST:PORT of the cluster's head"),
        ("somewhere", r"^RAY_ADDRESS: 'somewhere'; expected HOST:PORT of the cluster's head"),
    ],
)
def test_a_cluster_that_does_not_answer_is_told(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=message), ordered_map("ray", 2):
        pass


ENDLESS = """
import re
import numpy as np
import pyarrow as pa
from finetrail.encoding import engines
engines.SECONDS = 0.3
batch = np.arange(7, 9), pa.table({"id": ["a", "b"]})
with engines.ordered_map("local", 1) as mapped:
    list(mapped(lambda batch: sum(1 for _ in iter(int, 1)), [batch]))
"""


def test_a_batch_that_takes_too_long_is_reported_with_its_rows(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ENDLESS], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: tokenize: examples 7 to 8: more than 0 seconds of CPU time; expected a ")
    assert done.stderr.count("\n") == 1
