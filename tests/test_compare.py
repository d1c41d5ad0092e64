"""Two recipes over several seeds: is their difference noise?"""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy import stats

from finetrail.comparison import pairs, runs, seeds
from finetrail.comparison.runs import Run
from finetrail.errors import UserError

USUAL = {"train": {"lr": 1e-4, "epochs": 2.0, "batch_size": 16, "warmup": 0.1}, "tokenize": {"limit": None}}


def record(seed: int, score: float, recipe: str = "plain", metric: str = "accuracy", **train: Any) -> dict[str, Any]:
    return {
        "task": "text_classification",
        "recipe": recipe,
        "seed": seed,
        "headline": metric,
        "lower_is_better": ["perplexity"] if metric == "perplexity" else [],
        "test": {metric: score},
        "corpus": {"sha256": "0" * 64},
        "train": {"lr": 1e-4, "epochs": 2.0, "batch_size": 16} | train,
        "tokenize": {"limit": None},
    }


def records(scores: list[float], **changes: Any) -> list[dict[str, Any]]:
    return [record(seed, score, **changes) for seed, score in enumerate(scores)]


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    a, b = [0.90, 0.91, 0.89, 0.93], [0.92, 0.92, 0.93, 0.95]
    found = seeds.compare(records(a), records(b))
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.is_noise == (stats.ttest_rel(b, a).pvalue > 0.05)


def test_runs_are_paired_by_their_seed_whatever_their_order() -> None:
    a, b = records([0.90, 0.80, 0.85]), records([0.91, 0.81, 0.86])
    found = seeds.compare(a[::-1], [*b, record(9, 0.1)])
    assert found.seeds == [0, 1, 2]
    assert not found.is_noise  # 0.01 better in each pair, although the seeds differ by 0.1
    assert "better, and not by chance alone" in seeds.verdict(("plain", "other"), found)


@pytest.mark.parametrize(("metric", "word"), [("accuracy", "better"), ("perplexity", "worse")])
def test_higher_is_worse_for_a_perplexity(metric: str, word: str) -> None:
    found = seeds.compare(records([1.0, 2.0], metric=metric), records([1.5, 2.51], metric=metric))
    assert word in seeds.verdict(("a", "b"), found)


def test_noise_is_called_noise() -> None:
    found = seeds.compare(records([0.9, 0.8]), records([0.8, 0.91]))
    assert seeds.verdict(("a", "b"), found).endswith("noise: the interval holds 0.")


@pytest.mark.parametrize(
    ("second", "message"),
    [([record(7, 0.5)], "0 seeds in both"), (records([0.1, 0.2], metric="f1"), "headlines are accuracy and f1")],
)
def test_what_cannot_be_compared_is_refused(second: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        seeds.compare(records([0.9, 0.8]), second)


def test_runs_of_different_corpora_are_refused() -> None:
    others = [one | {"corpus": {"sha256": "1" * 64}} for one in records([0.9, 0.8])]
    with pytest.raises(UserError, match="different corpora"):
        seeds.compare(records([0.9, 0.8]), others)


def test_only_runs_with_the_recipes_own_settings_count() -> None:
    others = [record(1, 0.5, lr=1e-2), record(1, 0.4, warmup=0.2), record(1, 0.7, recipe="other")]
    mixed = [Run("any", None, one) for one in [record(1, 0.9), *others, record(2, 0.8, warmup=0.1)]]
    alike = runs.of_recipe(mixed, "text_classification/plain", USUAL)
    assert [one.record["test"]["accuracy"] for one in alike] == [0.9, 0.8]
    with pytest.raises(UserError, match="0 experiments.*expected runs of it.*text_classification/other"):
        runs.of_recipe(mixed, "text_classification/missing", USUAL)


def test_equal_runs_of_a_seed_count_once_and_others_are_refused() -> None:
    committed, applied, other = (Run(name, None, record(1, 0.9)) for name in ("HEAD", "tidy-owl", "other"))
    second = Run("second", None, record(2, 0.8))
    assert runs.by_seed("mine", [committed, second, applied]) == [committed, second]
    other.record["train"]["lr"] = 1e-3
    with pytest.raises(UserError, match="mine: HEAD and other both have the seed 1, and their .* differ; expected one"):
        runs.by_seed("mine", [committed, second, other])


def test_a_run_is_of_its_recipe_whatever_auto_became() -> None:
    committed = json.loads(Path("metrics/record.json").read_text())
    name = f"{committed['task']}/{committed['recipe']}"
    assert committed["train"]["execution"] != "auto"
    assert runs.of_recipe([Run("HEAD", None, committed)], name, runs._settings(name))


def test_experiments_are_read_from_their_commits(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    def commit(content: dict[str, Any] | None) -> str:
        file = tmp_path / "metrics/record.json"
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(json.dumps(content))
        git("add", "--all")
        git("commit", "--quiet", "--allow-empty", "--message", "run")
        return git("rev-parse", "HEAD")

    git("init", "--quiet")
    for name, content in (("a/one", record(1, 0.9)), ("b/two", record(2, 0.8)), ("c/unfinished", None)):
        git("update-ref", f"refs/exps/{name}", commit(content))
    git("update-ref", "refs/exps/exec/EXEC_HEAD", commit(record(4, 0.1)))
    commit(record(3, 0.7))
    assert sorted(one.record["seed"] for one in runs.experiments(tmp_path)) == [1, 2, 3]


def test_what_a_run_learns_from_need_not_be_the_same_in_both() -> None:
    names = ("train", "validation", "test", "documents", "rankings")
    files: Any = SimpleNamespace(below=lambda folder: [folder / f"{name}.parquet" for name in names])

    assert [path.stem for path in pairs._tables(files)] == ["test", "documents"]
