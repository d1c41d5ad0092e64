"""Runs of Git revisions, by the examples of their test split: what is read, paired, refused and printed."""

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dvc.repo import Repo
from sklearn.metrics import accuracy_score

from finetrail import compare
from finetrail.comparison import runs
from finetrail.errors import UserError

# DVC 3.67, as it adds files in this process.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")

ROOT = Path(__file__).parent.parent
RECIPE = "recipes/text_classification/tweets.yaml"
LABELS = ["bad", "good"]
COUNT = 40
TRUE = [LABELS[number % 2] for number in range(COUNT)]
Answers = list[str]


def wrong_at(*places: int) -> Answers:
    return [LABELS[1 - LABELS.index(label)] if place in places else label for place, label in enumerate(TRUE)]


class Project:
    """A project with runs in Git and DVC, as far as comparing reads them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet", "--initial-branch", "main")
        Repo.init(str(root)).close()
        (root / RECIPE).parent.mkdir(parents=True)
        for name in (RECIPE, RECIPE.replace("tweets", "defaults")):
            shutil.copy(ROOT / name, root / name)

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        done = subprocess.run(["git", *identity, *arguments], cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def run(
        self,
        name: str,
        predictions: Answers,
        seed: int = 1,
        texts: list[str] | None = None,
        rows: int = COUNT,
        source: list[str] | None = None,
    ) -> None:
        """Commit a run as a tag; its rows stand in another order for each seed."""
        texts = texts or [f"text {number}" for number in range(COUNT)]
        ids = [f"t{number}" for number in range(COUNT)]
        probabilities = [{label: 0.9 if label == found else 0.1 for label in LABELS} for found in predictions]
        more = {"slice_source": source} if source else {}
        columns = {"id": ids, "text": texts, "references": TRUE, "predictions": predictions} | more
        table = pa.table(columns | {"confidences": [0.9] * COUNT, "probabilities": probabilities})
        table = table.slice(0, rows).take([(row * 7 + seed) % rows for row in range(rows)])
        parts = [table.add_column(0, "split", [[split] * rows]) for split in ("validation", "test")]
        self.write("data/predictions.parquet", pa.concat_tables(parts))
        self.write("data/corpus/test.parquet", pa.table({"id": ids, "text": texts, "label": TRUE} | more))
        self.write("data/corpus/train.parquet", pa.table({"id": [name], "text": ["text"], "label": ["bad"]}))
        self.write("data/tokenized/target.json", {"problem": "single_label", "label_names": LABELS})
        score = accuracy_score(TRUE, predictions)
        self.write("metrics/record.json", record(seed, float(score)))
        self.write("metrics/train/plots/metrics/validation/accuracy.tsv", f"step\taccuracy\n10\t0.1\n20\t{score}\n")
        with Repo(str(self.root)) as repo:
            repo.add(str(self.root / "metrics" / "train"))
            repo.add([str(self.root / "data" / part) for part in ("predictions.parquet", "corpus", "tokenized")])
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", name)
        self.git("tag", name)

    def write(self, name: str, content: Any) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))


def record(seed: int, score: float) -> dict[str, Any]:
    return {
        "task": "text_classification",
        "recipe": "tweets",
        "seed": seed,
        "headline": "accuracy",
        "test": {"accuracy": score},
        "corpus": {"sha256": "0" * 64},
        "export": {"torch": {"accuracy": score, "mib": 12.5}},
    }


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return the function from command line arguments to what is printed."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["compare", *arguments, "--samples", "500"])
        compare.main()
        return capsys.readouterr().out

    return run


def as_json(told: Callable[..., str], *arguments: str) -> list[dict[str, Any]]:
    return list(json.loads(told(*arguments, "--json")))


def refused(told: Callable[..., str], *arguments: str) -> str:
    with pytest.raises(UserError) as error:
        told(*arguments)
    return str(error.value)


def test_two_revisions_are_paired_by_id_whatever_their_order(project: Project, told: Callable[..., str]) -> None:
    project.run("before", wrong_at(1, 2, 3, 4))
    project.run("after", wrong_at(3), seed=2)
    [found] = as_json(told, "before", "after")
    accuracy = found["scores"]["accuracy"]
    assert (accuracy["first"], accuracy["second"]) == (0.9, 0.975)
    assert [change["id"] for change in found["changes"]] == ["t1", "t2", "t4"]
    assert found["changes"][0] == {
        **{"id": "t1", "before": 0.0, "after": 1.0, "input": "text 1", "reference": "good"},
        **{"first": "bad", "second": "good"},
    }
    text = told("before", "after")
    assert "after against before: +0.0750 accuracy" in text
    assert "0 examples worse, 3 better (3 from wrong to right), 37 the same." in text


def test_a_clear_difference_is_called_so_and_a_small_one_noise(project: Project, told: Callable[..., str]) -> None:
    project.run("good", wrong_at(1, 2))
    project.run("alike", wrong_at(2, 3, 4))
    project.run("bad", wrong_at(*range(15)))
    text = told("good", "alike", "bad")
    assert "alike against good: -0.0250 accuracy" in text and ": noise. Such a test shows a difference of 0." in text
    assert ": worse, and not by chance alone." in text
    [alike, bad] = as_json(told, "good", "alike", "bad")
    scores = alike["scores"]["accuracy"], bad["scores"]["accuracy"]
    assert scores[1]["p_corrected"] == pytest.approx(2 * scores[1]["p"])  # Holm: the smaller of two
    assert scores[0]["p_corrected"] == scores[0]["p"] > 0.05


def test_slices_are_compared_with_corrected_p_values(project: Project, told: Callable[..., str]) -> None:
    texts = [f"text {'and more ' * (number % 4)}{number}" for number in range(COUNT)]
    short = [number for number in range(COUNT) if number % 4 == 0]
    project.run("before", wrong_at(1), texts=texts)
    project.run("after", wrong_at(1, *short), texts=texts)
    [found] = as_json(told, "before", "after")
    slices = {f"{part['slicing']}: {part['slice']}": part for part in found["slices"]}
    assert {name: part["examples"] for name, part in slices.items() if name.startswith("length")} == {
        f"length in words: {size}": 10 for size in (2, 4, 6, 8)
    }
    assert {"label: bad (1 in train)", "label: good (0 in train)"} < slices.keys()
    worse = slices["length in words: 2"]
    assert (worse["first"], worse["second"], worse["significant"]) == (1.0, 0.0, True)
    assert slices["length in words: 4"]["difference"] == 0.0
    assert worse["p_corrected"] >= len(slices) * min(part["p"] for part in slices.values())
    text = told("before", "after")
    assert "| length in words: 2 | 10 | 1.0000 | 0.0000 | -1.0000 | -1.0000 to -1.0000 |" in text
    assert next(line for line in text.splitlines() if "in words: 2 |" in line).endswith("| worse |")
    same = sum(part["low"] == part["high"] == part["difference"] == 0 for part in slices.values())
    assert "in words: 4 |" not in text and f"\n{same} more slices do not differ." in text
    told("before", "after", "--page", "page.html")
    assert (project.root / "page.html").read_text(encoding="utf-8").count("length in words") == 4


def test_columns_of_slices_are_no_other_examples(project: Project, told: Callable[..., str]) -> None:
    project.run("plain", wrong_at(1))
    project.run("named", wrong_at(2), source=["web", "book"] * (COUNT // 2))
    [found] = as_json(told, "named", "plain")
    assert [part["slice"] for part in found["slices"] if part["slicing"] == "source"] == ["book", "web"]
    assert "source" not in {part["slicing"] for part in as_json(told, "plain", "named")[0]["slices"]}


def test_the_workspace_is_a_run_too(project: Project, told: Callable[..., str]) -> None:
    project.run("kept", wrong_at(1))
    project.run("now", wrong_at(1))
    assert "workspace against kept: +0.0000 accuracy" in told("kept", "workspace")
    text = told("kept", "workspace")
    assert "the same at every example" in text and re.search(r"(?m)^None of \d+ slices differs\.$", text)
    assert re.search(r"(?m)^\| accuracy \|.* \|  \|$", text)  # what such a test shows is not known


def test_an_early_run_has_its_record_in_metrics_json(project: Project, told: Callable[..., str]) -> None:
    project.run("early", wrong_at(1))
    project.git("mv", "metrics/record.json", "metrics/metrics.json")
    project.git("commit", "--quiet", "--message", "early")
    project.git("tag", "--force", "early")
    project.write("metrics/metrics.json", {"test": {"accuracy": 0.9}})  # as versions of now have it
    project.run("now", wrong_at(1, 2))
    assert "now against early: -0.0250 accuracy" in told("early", "now")
    project.git("rm", "--quiet", "metrics/record.json")
    project.git("commit", "--quiet", "--message", "none")
    assert refused(told, "HEAD", "now").startswith("HEAD: metrics/record.json is missing in it")


def test_the_version_that_wrote_a_record_makes_no_other_run(project: Project, told: Callable[..., str]) -> None:
    project.run("one", wrong_at(1))
    project.write("metrics/record.json", record(1, 0.975) | {"schema_version": 8})
    project.git("commit", "--quiet", "--all", "--message", "the same, written by a later version")
    project.run("other", wrong_at(1, 2))
    assert "other against one,main~1: -0.0250 accuracy" in told("one,main~1", "other")


def test_several_revisions_are_the_seeds_of_one_system(project: Project, told: Callable[..., str]) -> None:
    for seed in (1, 2):
        project.run(f"plain-{seed}", wrong_at(1, 2, seed + 10), seed=seed)
        project.run(f"better-{seed}", wrong_at(seed), seed=seed)
    [found] = as_json(told, "plain-1,plain-2", "better-2,better-1")
    assert found["seeds"] == [1, 2]
    assert found["scores"]["accuracy"]["difference"] == pytest.approx(0.05)
    text = told("plain-1,plain-2", "better-2,better-1")
    assert "| 1 | 0.9250 | 0.9750 | +0.0500 |" in text and ", 2 seeds: " in text


def test_experiments_have_names(project: Project, told: Callable[..., str]) -> None:
    project.run("base", wrong_at(1))
    project.run("other", wrong_at(2))
    project.git("update-ref", "refs/exps/ab/cdef/tidy-owl", "other")
    project.git("tag", "--delete", "other")
    assert "tidy-owl against base" in told("base", "tidy-owl")


def test_what_the_cache_lacks_comes_from_the_remote(
    project: Project, told: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    remote = tmp_path_factory.mktemp("remote")
    project.run("one", wrong_at(1))  # before there was a remote
    with Repo(str(project.root)) as repo:
        with repo.config.edit() as config:
            config["remote"] = {"shared": {"url": str(remote)}}
            config["core"]["remote"] = "shared"
        repo.push()
    project.run("two", wrong_at(2))
    with Repo(str(project.root)) as repo:
        repo.push()
    for part in (project.root / ".dvc/cache", project.root / "data"):
        shutil.rmtree(part)
    assert "two against one: +0.0000 accuracy" in told("one", "two")


def test_what_cannot_be_had_is_told(project: Project, told: Callable[..., str]) -> None:
    project.run("one", wrong_at(1))
    project.run("two", wrong_at(2))
    shutil.rmtree(project.root / ".dvc/cache")
    message = refused(told, "one", "two")
    assert message.startswith("one: data/predictions.parquet: ") and "in a remote" in message
    assert "nobody: no such revision" in refused(told, "one", "nobody")
    project.git("rm", "--quiet", "metrics/record.json")
    project.git("commit", "--quiet", "--message", "none")
    assert "HEAD: metrics/record.json is missing in it" in refused(told, "one", "HEAD")


def test_seeds_alone_are_compared_where_predictions_are_missing(project: Project, told: Callable[..., str]) -> None:
    for seed in (1, 2, 3):
        project.run(f"plain-{seed}", wrong_at(1, 2), seed=seed)
        project.run(f"better-{seed}", wrong_at(*range(seed - 1)), seed=seed)
    shutil.rmtree(project.root / ".dvc/cache")
    text = told("plain-1,plain-2,plain-3", "better-1,better-2,better-3")
    assert "over 3 seeds: noise: the interval holds 0." in text


def test_other_test_splits_are_refused(project: Project, told: Callable[..., str]) -> None:
    project.run("one", wrong_at(1))
    project.run("edited", wrong_at(1), texts=[f"text {number}" + "!" * (number == 5) for number in range(COUNT)])
    project.run("limited", wrong_at(1), rows=30)
    assert "the corpus's test differs: 1 with other content (t5)" in refused(told, "one", "edited")
    assert "the scored examples differ: 10 only in the first (" in refused(told, "one", "limited")


def test_seeds_that_do_not_meet_are_refused(project: Project, told: Callable[..., str]) -> None:
    for seed in (1, 2, 3, 4):
        project.run(f"seed-{seed}", wrong_at(seed), seed=seed)
    assert "has the seeds 1, 2," in refused(told, "seed-1,seed-2", "seed-3,seed-4")


def test_the_page_has_scores_changes_curves_and_what_differs(project: Project, told: Callable[..., str]) -> None:
    hostile = [f"<script>alert({number})</script>" for number in range(COUNT)]
    project.run("one", wrong_at(1, 2, 3), texts=hostile)
    project.run("two", wrong_at(4), texts=hostile, seed=2)
    told("one", "two", "--page", "page.html")
    page = (project.root / "page.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1 and "&lt;script&gt;alert(4)" in page
    assert page.count('data-name="input"') == 4
    assert "3 examples better" in page and "1 example worse" in page
    assert str(project.root) not in page
    [chart] = re.findall(r'data-chart="([^"]*)"', page)
    spec = json.loads(html.unescape(chart))
    assert spec["data"] == [
        [10, 20],
        [0.1, accuracy_score(TRUE, wrong_at(1, 2, 3))],
        [0.1, accuracy_score(TRUE, wrong_at(4))],
    ]
    assert [line["label"] for line in spec["series"]] == ["one", "two"]
    assert '<tr><th scope="row">seed</th><td>1</td><td>2</td></tr>' in page
    assert page.count("12.500") == 2


def test_a_page_without_curves_says_so(
    project: Project, told: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    project.run("one", wrong_at(1))
    project.run("two", wrong_at(2))
    files = sorted((project.root / ".dvc" / "cache").rglob("*"))
    for file in files:
        if file.is_file() and file.read_bytes().startswith(b"step"):
            file.unlink()
    shutil.rmtree(project.root / "metrics" / "train")
    told("one", "two", "--page", "page.html")
    page = (project.root / "page.html").read_text(encoding="utf-8")
    assert 'data-chart="' not in page and "1 example better" in page


def test_control_characters_do_not_reach_the_terminal(project: Project, told: Callable[..., str]) -> None:
    texts = [f"\x1b[2Jtext\u202e {number}" for number in range(COUNT)]
    project.run("one", wrong_at(1), texts=texts)
    project.run("two", wrong_at(2), texts=texts)
    text = told("one", "two")
    assert "\x1b" not in text and "\u202e" not in text and "[2Jtext 1" in text


def locked(evaluated: str, reported: str | None) -> str:
    """A dvc.lock whose evaluation and report have these hashes of metrics/evaluation."""
    entry = "- path: metrics/evaluation\n      md5: {}\n"
    lines = f"stages:\n  evaluate:\n    outs:\n    {entry.format(evaluated)}"
    return lines if reported is None else f"{lines}  report:\n    deps:\n    {entry.format(reported)}"


@pytest.mark.parametrize(
    ("lock", "finished"),
    [(None, True), (locked("a", "a"), True), (locked("b", "a"), False), (locked("a", None), False)],
)
def test_an_unreported_run_is_not_taken_for_the_previous_one(lock: str | None, finished: bool) -> None:
    assert runs._is_finished(lock) == finished
