"""Searches: what a space may name, which trial is next, where it runs, and what is said at the end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import git
from dvc.repo import Repo
from dvc.utils.hydra import to_hydra_overrides
from ruamel.yaml import YAML

from finetrail import search
from finetrail.comparison.pairs import Compared
from finetrail.errors import UserError
from finetrail.evaluation.significance import Difference
from finetrail.searching import drive, ending, places, processes, space, trials
from finetrail.searching.drive import Search
from finetrail.searching.ending import Ending
from finetrail.searching.places import Place
from finetrail.searching.space import Space
from finetrail.searching.trials import Begun, Found, Running, Trial, Trials

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(ROOT.glob("searches/*.yaml"))
LR = {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True}
OWN = {"lr": 1e-4, "batch_size": 8}
MEDIAN = {"kind": "median", "startup_trials": 1, "warmup_epochs": 1}


def content(**changes: Any) -> dict[str, Any]:
    return {
        "task": "text_classification",
        "recipe": "bbc-news",
        "trials": 3,
        "seed": 0,
        "objective": None,
        "pruning": None,
        "always": None,
        "fields": {"lr": LR, "batch_size": {"kind": "choice", "values": [8, 16]}},
    } | changes


def write(path: Path, **changes: Any) -> Path:
    YAML(typ="safe", pure=True).dump(content(**changes), path)
    return path


def a_space(**changes: Any) -> Space:
    return Space.model_validate(content(**changes))


# --- the space ----------------------------------------------------------------------------------------------------


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Space, dict[str, Any]]]:
    """Return the function from changes of a space file to what is loaded, checked against this project's recipes."""
    monkeypatch.chdir(ROOT)

    def load(**changes: Any) -> tuple[Space, dict[str, Any]]:
        path = write(tmp_path / "x.yaml", **changes)
        found = space.load(path)
        return found, space.check(found, path)

    return load


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_is_valid_for_the_recipe_it_names(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    example = space.load(path)

    own = space.check(example, path)
    assert all(example.fields[field].holds(value) for field, value in own.items())


def test_the_recipes_own_values_are_those_without_overrides(loaded: Callable[..., Any]) -> None:
    warmup = {"kind": "float", "low": 0.0, "high": 0.5, "log": False}
    found, own = loaded(fields={"lr": LR, "train.warmup": warmup}, always={"limit": 100, "train.schedule": "cosine"})

    assert own == {"lr": 1e-4, "train.warmup": 0.1}
    recipe = "recipes/text_classification/bbc-news.yaml"
    assert space.overrides(found, {"lr": 3e-5, "train.warmup": 0.2}) == [
        "task='text_classification'",
        "recipe='bbc-news'",
        "limit=100",
        f"{recipe}:++train.schedule='cosine'",
        "lr=3e-05",
        f"{recipe}:++train.warmup=0.2",
    ]


LOW = {"kind": "float", "low": 0.0, "high": 0.5, "log": False}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fields": {"train.warmpu": LOW}}, "there is no train.warmpu in recipes/text_classification/bbc-news.yaml"),
        ({"fields": {"train.lora.rank": LOW}}, "there is no train.lora.rank in .*expected a key that has a section"),
        ({"fields": {"train.lora": LOW, "lr": LR}}, r"fields.train.lora: 0.0: recipes/text_.*: train.lora: "),
        ({"fields": {"learning_rate": LR}}, "learning_rate: expected a key of params.yaml such as lr, or the path"),
        ({"fields": {"train.warmup": LOW | {"high": 1.5}}}, "fields.train.warmup: 1.5: recipes/text_.* less than 1"),
        ({"fields": {"batch_size": LOW | {"high": 8.0}}}, "fields.batch_size: 0.0: params.yaml: batch_size: "),
        ({"fields": {"train.schedule": {"kind": "choice", "values": ["linear", "x"]}}}, "schedule: 'x': .*'linear'"),
        ({"fields": {"limit": {"kind": "int", "low": 1, "high": 9, "log": False}}}, "are not comparable"),
        ({"fields": {"corpus.splits.seed": {"kind": "choice", "values": [1]}}}, "model, tokenize, train"),
        ({"fields": {"lr": LR, "train.lr": LR}}, "lr replaces train.lr; expected one of the two"),
        ({"fields": {"lr": LR}, "always": {"lr": 1e-4}}, "lr: it is both in always and in fields"),
        ({"fields": {"train.lr": LR}, "always": {"lr": 1e-4}}, "lr replaces train.lr"),
        ({"fields": {"lr": LR | {"low": 1.0}}}, "low is 1 and high 0.01; expected low below high"),
        ({"fields": {"lr": LR | {"low": 0.0}}}, "expected it above 0, or log false"),
        ({"fields": {"lr": {"kind": "choice", "values": [1, 1]}}}, "values contains a value twice"),
        ({"fields": {"lr": LR | {"kind": "real"}}}, "'kind' is 'real'; expected 'float', 'int', 'choice'"),
        ({"fields": {}}, "fields: .*at least 1"),
        ({"always": {"train.epohcs": 1}}, "always: recipes/text_classification/bbc-news.yaml: train.epohcs: unknown"),
        ({"always": {"train.lora.rank": 1}}, "always: train.lora.rank: there is no section train.lora in"),
        ({"objective": "f2"}, "objective: recipes/.*: train.best_metric: 'f2' does not go with"),
        ({"recipe": "bbc"}, "recipes/text_classification/bbc.yaml is missing; expected one of those there: "),
        ({"trails": 3}, "trails: unknown key"),
    ],
)
def test_what_is_wrong_is_told_before_the_first_trial(
    loaded: Callable[..., Any], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        loaded(**changes)


def test_an_override_that_hides_a_field_is_told(
    project: Path, loaded: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("\nlr:", "\nlr: 1e-3"))
    toy = {"task": "token_classification", "recipe": "toy"}

    assert loaded(fields={"lr": LR}, **toy)[1] == {"lr": 1e-3}
    with pytest.raises(UserError, match="fields.train.lr: params.yaml has lr, which replaces it"):
        loaded(fields={"train.lr": LR}, **toy)


@pytest.mark.parametrize(
    "value", ["cosine", "1e-5", "null", "a,b", "it's", "a\\b", "a\\'b\\", "", 3, 3e-5, 1.0, True, False, None]
)
def test_dvc_reads_each_value_as_it_is(value: Any) -> None:
    one = a_space(fields={"train.x": {"kind": "choice", "values": [value]}})

    [override] = to_hydra_overrides([space.overrides(one, {"train.x": value})[-1].partition(":")[2]])
    read = override.value()
    assert read == value and type(read) is type(value)


# --- trials -------------------------------------------------------------------------------------------------------


def begun(folder: Path, own: dict[str, Any] = OWN, found: dict[int, Found] | None = None, **changes: Any) -> Trials:
    made = Trials(folder / "x", a_space(**changes))
    made.begin(Begun.of(made.space, "accuracy", own), found or {})
    return made


def claim(of: Trials, slot: int = 0, own: dict[str, Any] = OWN) -> Running:
    claimed = of.claim(slot, own, set())
    assert claimed is not None
    return claimed


def done(of: Trials, value: float, *curve: float, slot: int = 0) -> Running:
    running = claim(of, slot)
    running.finish(Found(value, list(curve) or [value], f"x-{running.number:04d}"))
    return running


def test_the_first_trial_is_the_default_then_draws_follow(tmp_path: Path) -> None:
    of = begun(tmp_path)

    first, second, third = done(of, 0.5), done(of, 0.7, 0.6, 0.7), done(of, 0.6)
    assert of.claim(0, OWN, set()) is None
    assert [one.number for one in (first, second, third)] == [0, 1, 2] and first.settings == {}
    for one in (second, third):
        assert all(of.space.fields[field].holds(value) for field, value in one.settings.items())
        assert list(one.settings) == ["lr", "batch_size"]
    assert second.settings != third.settings
    assert of.all()[1] == Trial(1, "finished", second.settings, False, 0.7, 2, "x-0001")
    assert of.study().trials[0].params == OWN  # Optuna learns from it too


def test_another_process_goes_on_as_this_one_would(tmp_path: Path) -> None:
    drawn = []
    for name in ("here", "there"):
        of = begun(tmp_path / name)
        done(of, 0.5)
        drawn += [done(of, 0.6).settings]
        again = Trials(of.folder, of.space) if name == "there" else of
        drawn += [claim(again).settings]

    assert drawn[:2] == drawn[2:]


def test_a_trial_of_a_dead_process_is_resumed_and_counts_once(tmp_path: Path) -> None:
    of = begun(tmp_path, trials=2)
    done(of, 0.5)
    running = claim(of, slot=3)
    running.is_hopeless(0.4)

    again = Trials(of.folder, of.space)
    assert again.slots() == [3] and again.all()[1].state == "unfinished"
    assert again.claim(0, OWN, set()) is None  # nothing but that one is left
    taken_up = claim(again, slot=3)
    assert (taken_up.number, taken_up.settings, taken_up.epochs) == (1, running.settings, 0)
    taken_up.finish(Found(0.6, [0.4, 0.6], "x-0001"))
    assert again.slots() == [] and again.claim(3, OWN, set()) is None
    assert [(one.number, one.state, one.value) for one in again.all()] == [(0, "finished", 0.5), (1, "finished", 0.6)]


def test_a_queued_trial_of_a_dead_process_comes_first(tmp_path: Path) -> None:
    of = begun(tmp_path)
    done(of, 0.5)
    of.study().enqueue_trial({}, user_attrs={"number": 1, "slot": 0, "default": False, "in_space": True})

    assert claim(of, slot=1).number == 1 and of.slots() == [1]
    assert claim(of, slot=0).number == 2


def test_a_default_outside_the_space_runs_unlearned_from(tmp_path: Path) -> None:
    own = {"lr": 1.0, "batch_size": 8}
    of = begun(tmp_path, own=own)

    first = claim(of, own=own)
    assert first.settings == {} and first.number == 0
    first.finish(Found(0.5, [0.5], "x-0000"))
    done(of, 0.6)
    assert of.study().trials[0].params == {} and of.all()[0].is_default


def test_existing_experiments_are_trials_with_taken_numbers(tmp_path: Path) -> None:
    other = {"task": "text_classification", "lr": 1e-3, "batch_size": 16}
    there = {0: Found(0.5, [0.4, 0.5], "x-0000", OWN), 4: Found(0.6, [0.6], "x-0004", other)}
    of = begun(tmp_path, found=there)

    assert [(one.number, one.value, one.epochs) for one in of.all()] == [(0, 0.5, 2), (4, 0.6, 1)]
    claimed = of.claim(0, OWN, {0, 4, 7})
    assert claimed is not None and claimed.number == 8
    assert of.study().trials[1].params == {"lr": 1e-3, "batch_size": 16}


def test_many_at_once_run_each_number_once(tmp_path: Path) -> None:
    begun(tmp_path, trials=12)

    def work(slot: int) -> list[int]:
        of, numbers = Trials(tmp_path / "x", a_space(trials=12)), []
        while running := of.claim(slot, OWN, set()):
            numbers.append(running.number)
            running.finish(Found(0.5, [0.5], "x"))
        return numbers

    with ThreadPoolExecutor(4) as pool:
        found = sorted(number for numbers in pool.map(work, range(4)) for number in numbers)
    assert found == list(range(12))


def test_a_curve_below_the_median_ends_a_trial_but_the_default(tmp_path: Path) -> None:
    of = begun(tmp_path, trials=6, pruning=MEDIAN)
    default = claim(of)
    default.finish(Found(0.8, [0.7, 0.8], "x-0000"))

    worse = claim(of)
    assert not worse.is_hopeless(0.1)  # warmup_epochs
    assert worse.is_hopeless(0.2)
    worse.end_early()
    assert of.all()[1] == Trial(1, "ended early", worse.settings, False, 0.2, 2)
    better = claim(of)
    assert not better.is_hopeless(0.7) and not better.is_hopeless(0.81)
    other = begun(tmp_path / "other", pruning=MEDIAN, found={3: Found(0.9, [0.9, 0.9], "x-0003", OWN)})
    default = claim(other)
    assert default.is_default and not default.is_hopeless(0.1) and not default.is_hopeless(0.1)


def test_a_loss_is_better_when_it_is_lower(tmp_path: Path) -> None:
    of = Trials(tmp_path / "x", a_space(pruning=MEDIAN, trials=4))
    of.begin(Begun.of(of.space, "loss", OWN), {})
    done(of, 0.8, 0.9, 0.8)

    lower = claim(of)
    assert not lower.is_hopeless(0.9) and not lower.is_hopeless(0.5)
    lower.finish(Found(0.5, [0.9, 0.5], "x-0001"))
    higher = claim(of)
    assert not higher.is_hopeless(1.0) and higher.is_hopeless(1.0)
    assert ending.best(of.all(), True) == of.all()[1] and ending.best(of.all(), False) == of.all()[0]


def test_hyperband_is_hyperband() -> None:
    settings = {"kind": "hyperband", "min_epochs": 1, "max_epochs": 9, "reduction_factor": 3}
    made = trials.pruner(a_space(pruning=settings).pruning)

    assert (type(made).__name__, made._max_resource, made._reduction_factor) == ("HyperbandPruner", 9, 3)  # type: ignore[attr-defined]


def test_only_the_number_of_trials_may_change(tmp_path: Path) -> None:
    of = begun(tmp_path)

    assert Trials(of.folder, a_space(trials=9)).begun() == of.begun()
    with pytest.raises(UserError, match="x: it began with another seed, fields; expected only `trials` to change"):
        Trials(of.folder, a_space(seed=1, fields={"lr": LR})).begun()


def test_a_damaged_journal_is_told(tmp_path: Path) -> None:
    of = begun(tmp_path)
    with (of.folder / "journal").open("a") as journal:
        journal.write('{"op_co\n{}\n')

    with pytest.raises(UserError, match="journal is damaged; expected it whole: remove "):
        Trials(of.folder, of.space)


# --- places -------------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A DVC project with a file in Git, an experiment, one more that is queued, and edits that nobody committed."""
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    Repo.init(str(root)).close()
    (root / ".gitignore").write_text("/.scratch/\n/corpora/\n/data/\n")
    (root / "params.yaml").write_text("lr: 1\n")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "first")
    git(root, "tag", "v1")
    commit = git(root, "rev-parse", "HEAD")
    git(root, "update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/earlier", "HEAD")
    git(root, "update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")
    (root / "params.yaml").write_text("lr: 2\n")
    (root / "corpora").mkdir()
    (root / "corpora/mine.txt").write_text("mine")
    (root / ".dvc/config.local").write_text(
        "[cache]\n    dir = ../../cache\n['remote \"team\"']\n    url = ../../team\n"
    )
    return root


def test_a_clone_has_edits_experiments_cache_and_corpora(repository: Path, tmp_path: Path) -> None:
    folder, before = repository / ".scratch/search/x", git(repository, "status", "--porcelain")
    places.note(repository, folder)
    (repository / "params.yaml").write_text("lr: 3\n")
    with places.taken(folder, []) as place:
        for _ in range(2):  # it is made, and brought back
            places.prepare(repository, folder, place)
            clone = place.project
            assert (clone / "params.yaml").read_text() == "lr: 2\n"
            assert git(clone, "status", "--porcelain") == "M  params.yaml"
            (clone / "params.yaml").write_text("lr: 9\n")
            (clone / "more").write_text("left by a trial")
            (clone / "data").mkdir(exist_ok=True)
    assert (clone / "data").is_dir() and (clone / "corpora/mine.txt").read_text() == "mine"
    refs = git(clone, "for-each-ref", "--format=%(refname)").split()
    assert "refs/tags/v1" in refs and "refs/heads/main" in refs
    assert [ref.rpartition("/")[2] for ref in refs if ref.startswith("refs/exps")] == ["earlier"]
    with Repo(str(clone)) as own:
        assert own.cache.local.path == str(tmp_path / "cache/files/md5")
        assert own.config["remote"]["team"]["url"] == str(tmp_path / "team")
    assert git(repository, "status", "--porcelain") == before and (repository / "params.yaml").read_text() == "lr: 3\n"
    assert places.changed_since(repository, folder)
    (repository / "params.yaml").write_text("lr: 2\n")
    assert not places.changed_since(repository, folder)


def test_a_damaged_clone_is_remade_without_touching_the_project(repository: Path) -> None:
    folder = repository / ".scratch/search/x"
    places.note(repository, folder)
    with places.taken(folder, []) as place:
        place.project.mkdir()  # as if a kill came while it was removed
        (place.project / "params.yaml").write_text("lr: 9\n")
        places.prepare(repository, folder, place)

    assert (place.project / ".git").is_dir() and (place.project / "params.yaml").read_text() == "lr: 2\n"
    assert (repository / "params.yaml").read_text() == "lr: 2\n" and (repository / "corpora/mine.txt").is_file()
    assert git(repository, "rev-parse", "--abbrev-ref", "HEAD") == "main"


def test_a_clone_forgets_outputs_that_the_cache_lacks(repository: Path, tmp_path: Path) -> None:
    yaml, folder = YAML(typ="safe", pure=True), repository / ".scratch/search/x"
    stages = {name: {"cmd": name, "outs": [{"path": name, "hash": "md5", "md5": name * 16}]} for name in ("ab", "cd")}
    yaml.dump({"schema": "2.0", "stages": stages}, repository / "dvc.lock")
    git(repository, "add", "dvc.lock")
    git(repository, "commit", "--quiet", "--message", "lock", "dvc.lock")
    (tmp_path / "cache/files/md5/ab").mkdir(parents=True)
    (tmp_path / "cache/files/md5/ab" / ("ab" * 15)).touch()
    places.note(repository, folder)
    with places.taken(folder, []) as place:
        places.prepare(repository, folder, place)

    assert yaml.load(place.project / "dvc.lock") == {"schema": "2.0", "stages": {"ab": stages["ab"]}}
    assert len(yaml.load(repository / "dvc.lock")["stages"]) == 2


def test_an_experiment_comes_into_the_project(repository: Path) -> None:
    folder = repository / ".scratch/search/x"
    places.note(repository, folder)
    commit = git(repository, "rev-parse", "HEAD")
    with places.taken(folder, []) as place:
        places.prepare(repository, folder, place)
        assert places.bring(repository, folder, place, "x-0001") == commit  # DVC made none: nothing had changed
        assert not places.was_left(repository, folder, place, "x-0001")
        git(place.project, "commit", "--quiet", "--message", "trial")
        ref = f"refs/exps/{commit[:2]}/{commit[2:]}/x-0001"
        git(place.project, "update-ref", ref, "HEAD")
        assert places.was_left(repository, folder, place, "x-0001")
    with places.taken(folder, [7]) as place:
        assert not places.was_left(repository, folder, place, "x-0001")  # no clone
    assert git(repository, "show", f"{ref}:params.yaml") == "lr: 2"


def test_two_never_have_one_place_and_a_child_keeps_it(tmp_path: Path) -> None:
    with places.taken(tmp_path, [5]) as first, places.taken(tmp_path, [5]) as second:
        assert (first.number, second.number) == (5, 0)
        child = subprocess.Popen(["sleep", "60"], pass_fds=[first.lock])
    with places.taken(tmp_path, [5]) as third:  # the search was killed, and its trial still runs
        assert third.number == 0
    child.kill()
    child.wait()
    with places.taken(tmp_path, [5]) as fourth:
        assert fourth.number == 5


def test_a_recipe_that_git_has_not_is_told(repository: Path) -> None:
    places.check_tracked(repository, Path("params.yaml"))
    (repository / "mine.yaml").write_text("x")

    with pytest.raises(UserError, match="mine.yaml: not tracked by Git, .*: git add mine.yaml"):
        places.check_tracked(repository, Path("mine.yaml"))


# --- processes ----------------------------------------------------------------------------------------------------


def test_a_curve_is_read_but_for_a_line_that_is_being_written() -> None:
    text = "step\tf1\n90\t0.25\n180\t0.5\n"

    assert processes.parsed(text) == [(90, 0.25), (180, 0.5)]
    assert processes.parsed(text + "270\t0.") == processes.parsed(text)
    assert processes.parsed("") == processes.parsed("step\tf1\n") == []
    assert processes.reached([(90, 0.25), (180, 0.5)], 90, "x-0001") == 0.25
    with pytest.raises(UserError, match="x-0001: its validation curve has no update 91"):
        processes.reached([(90, 0.25)], 91, "x-0001")


def test_a_failure_is_told_in_our_own_words_first() -> None:
    log = "Running stage 'train'\nerror: train.precision: fp16\nERROR: failed to reproduce 'train'\n"

    assert processes.reason(log) == "train.precision: fp16"
    assert processes.reason("ERROR: no space\n") == "no space"
    assert processes.reason("Killed\n") == "it was killed, or ended without saying why"


# Stands in for DVC: `python -m dvc` takes it from the clone. It "trains" epochs whose metric is lr, by an override.
FAKE = """
import json, os, subprocess, sys, time
from pathlib import Path
settings = dict(word.partition("=")[::2] for word in sys.argv if "=" in word)
lr = float(settings.get("lr", 1e-4))
Path("name").write_text(sys.argv[sys.argv.index("--name") + 1])
if settings.get("batch_size") == "99":
    sys.exit("error: batch_size: too large")
folder = Path(".scratch/train/key/history/plots/metrics/validation")
folder.mkdir(parents=True, exist_ok=True)
stage = subprocess.Popen(["sleep", "60"])
Path("pids").write_text(f"{os.getpid()} {stage.pid}")
for epoch in range(1, 4):
    with (folder / "accuracy.tsv").open("a" if epoch > 1 else "w") as curve:
        curve.write("" if epoch > 1 else "step\\taccuracy\\n")
        curve.write(f"{epoch}\\t{lr * 100}\\n")
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0.2")))
stage.kill()
"""


class Faked(Search):
    """A search whose clones have the stand-in for DVC, and whose experiments are what it wrote."""

    def __init__(self, root: Path, path: Path) -> None:
        super().__init__(root, path)
        self.brought: dict[int, str] = {}

    def experiments(self) -> dict[int, str]:
        return self.brought

    def read(self, revision: str, metric: str) -> Found:
        self.brought[int(revision.rpartition("-")[2])] = revision
        curve = processes.parsed(Path(self.brought_from[revision]).read_text())
        return Found(curve[-1][1], [value for _, value in curve], revision)

    brought_from: dict[str, str] = {}


@pytest.fixture
def faked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Faked]:
    """Return the function that begins a search with the stand-in; its trials are done in a second."""

    def prepare(root: Path, folder: Path, place: Place) -> None:
        place.project.mkdir(exist_ok=True)
        (place.project / "dvc.py").write_text(FAKE)

    def bring(root: Path, folder: Path, place: Place, name: str) -> str:
        assert (place.project / "name").read_text() == name
        curve = place.project / ".scratch/train/key/history" / processes.CURVE.format("accuracy")
        Faked.brought_from[name] = str(curve.rename(tmp_path / f"{name}.tsv"))
        return name

    monkeypatch.setattr(places, "prepare", prepare)
    monkeypatch.setattr(places, "bring", bring)
    monkeypatch.setattr(places, "was_left", lambda *_: False)
    monkeypatch.setattr(places, "changed_since", lambda *_: False)
    monkeypatch.setattr(drive, "SECONDS", 0.02)

    def begin(**changes: Any) -> Faked:
        made = Faked(tmp_path, write(tmp_path / "x.yaml", **changes))
        if made.trials.begun() is None:
            made.trials.begin(Begun.of(made.space, "accuracy", OWN), {})
        return made

    return begin


def test_two_at_a_time_run_all_trials_and_end_the_worse_ones(
    faked: Callable[..., Faked], capsys: pytest.CaptureFixture[str]
) -> None:
    of = faked(trials=8, pruning=MEDIAN)
    search.run(of, jobs=2)

    found = of.trials.all()
    assert [one.number for one in found] == list(range(8)) and found[0].value == 0.01
    assert {one.state for one in found} == {"finished", "ended early"}
    told = capsys.readouterr().err
    for one in found:
        ended = one.state == "ended early"
        assert one.epochs in ((2, 3) if ended else (3,))
        assert one.revision == (None if ended else f"x-{one.number:04d}")
        assert (f"x-{one.number:04d}: ended early" in told) == ended
        assert one.value == pytest.approx(one.settings.get("lr", 1e-4) * 100)
    assert not list(of.folder.glob("*/project"))  # nothing is left to run


def test_an_ended_search_ends_its_trials_and_resumes_them(
    faked: Callable[..., Faked], monkeypatch: pytest.MonkeyPatch
) -> None:
    of, stop = faked(trials=2), threading.Event()
    monkeypatch.setenv("FAKE_SECONDS", "20")
    worker = threading.Thread(target=of.work, args=(stop,))
    worker.start()
    pids = of.folder / "0/project/pids"
    while not pids.exists() or not pids.read_text():
        time.sleep(0.01)
    opened = Path(f"/proc/{pids.read_text().split()[0]}/fd")
    assert str(of.folder / "0/lock") in [os.readlink(file) for file in opened.iterdir()]
    stop.set()
    worker.join()

    until = time.monotonic() + 5  # a process of the group that was signalled may end after its parent
    while left := [pid for pid in map(int, pids.read_text().split()) if alive(pid)]:
        assert time.monotonic() < until, f"{left} still run"
        time.sleep(0.01)
    assert [one.state for one in of.trials.all()] == ["unfinished"]
    monkeypatch.setenv("FAKE_SECONDS", "0.01")
    search.run(faked(trials=2), jobs=1)
    assert [(one.number, one.state) for one in of.trials.all()] == [(0, "finished"), (1, "finished")]


def test_an_unrecorded_finished_experiment_is_not_run_again(faked: Callable[..., Faked], tmp_path: Path) -> None:
    of = faked(trials=2)
    claim(of.trials)
    (tmp_path / "done.tsv").write_text("step\taccuracy\n1\t0.75\n")
    of.brought, of.brought_from["x-0000"] = {0: "x-0000"}, str(tmp_path / "done.tsv")
    search.run(of, jobs=1)

    assert [(one.number, one.value) for one in of.trials.all()][0] == (0, 0.75)


def test_a_first_trials_failure_ends_the_search_later_ones_warn(
    faked: Callable[..., Faked], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {"lr": LR, "batch_size": {"kind": "choice", "values": [99]}}
    of = faked(trials=3, always={"batch_size": 99}, fields={"lr": LR})
    with pytest.raises(UserError, match=r"x-0000: batch_size: too large \(full log: .scratch/search/x/x-0000.log\)"):
        search.run(of, jobs=1)
    assert [one.state for one in of.trials.all()] == ["unfinished"]

    (of.folder / "begun.json").unlink()
    (of.folder / "journal").unlink()
    of = faked(trials=3, fields=fields)
    search.run(of, jobs=1)
    assert [one.state for one in of.trials.all()] == ["finished", "failed", "failed"]
    assert of.trials.all()[1].reason == "batch_size: too large"
    assert "x-0002: failed: batch_size: too large" in capsys.readouterr().err


def alive(pid: int) -> bool:
    """Return True if a process runs; False for a zombie."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


# --- the end ------------------------------------------------------------------------------------------------------


def compared(p: float, low: float = -0.1, high: float = 0.2) -> Compared:
    one = Difference(first=0.7, second=0.75, difference=0.05, low=low, high=high, p=p, detectable=0.1)
    return Compared("x-0000", "x-0002", "accuracy", [], 40, [], {"accuracy": one}, [], [])


FIRST = Trial(0, "finished", {}, True, 0.7, 3, "x-0000")
ENDED = Trial(1, "ended early", {"lr": 1e-3, "batch_size": 8}, False, 0.2, 2)
BEST = Trial(2, "finished", {"lr": 2e-4, "batch_size": 16}, False, 0.8, 3, "x-0002")
FAILED = Trial(3, "failed", {"lr": 3e-4, "batch_size": 16}, False, reason="out of memory")


def an_ending(*found: Trial, wanted: int = 4, of: Compared | None = None, reason: str = "") -> Ending:
    start = Begun(space={}, metric="accuracy", own=OWN)
    return Ending("x", wanted, start, list(found), {"lr": 0.9, "batch_size": 0.1}, False, of, reason)


def test_the_end_shows_table_importances_and_noise_warning() -> None:
    told = ending.as_text(an_ending(FIRST, ENDED, BEST, FAILED, of=compared(p=0.4)))

    for line in (
        "| trial | accuracy | epochs | lr | batch_size | experiment |",
        "| 0 (default) | 0.7000 | 3 | 0.0001 | 8 | x-0000 |",
        "| 1 | 0.2000 | 2 | 0.001 | 8 | ended early |",
        "| 2 | **0.8000** | 3 | 0.0002 | 16 | x-0002 |",
        "| 3 | – | 0 | 0.0003 | 16 | failed |",
        "x: 4 of 4 trials: 2 finished, 1 ended early, 1 failed.",
        "trial 3 failed: out of memory",
    ):
        assert f"{line}\n" in told
    assert "(fANOVA, 2 finished trials): lr 0.90, batch_size 0.10. Unreliable: expected 10" in told
    assert "x-0002 is the best of 2 on validation, and was chosen by that" in told
    assert "x-0002 against x-0000: +0.0500 accuracy" in told
    assert told.endswith("over several seeds.") and "warning: on test, x-0002 is within noise of the default" in told


def test_the_end_without_noise_warns_of_none() -> None:
    told = ending.as_text(an_ending(FIRST, BEST, of=compared(p=0.001, low=0.01)))

    assert "better, and not by chance alone" in told and "warning" not in told
    worse = compared(p=0.001, low=-0.2, high=-0.01)
    worse = replace(worse, scores={"accuracy": replace(worse.scores["accuracy"], difference=-0.1)})
    assert "warning: on test, x-0002 is worse than the default" in ending.as_text(an_ending(FIRST, BEST, of=worse))
    assert "2 of 4 trials: 2 finished. The same command resumes it." in told


def test_the_end_without_a_better_or_comparable_trial() -> None:
    worse = replace(BEST, value=0.6)
    assert "No trial is better on validation than the default settings, accuracy 0.7000." in ending.as_text(
        an_ending(FIRST, worse)
    )
    assert "not compared with the default settings: gone" in ending.as_text(an_ending(FIRST, BEST, reason="gone"))
    assert ending.as_text(an_ending(ENDED)).count("\n\n") == 2  # table, counts, importance


def test_the_end_as_json_has_the_same() -> None:
    found = json.loads(json.dumps(ending.as_json(an_ending(FIRST, ENDED, BEST, of=compared(p=0.4)))))

    assert (
        found["best"] == 2
        and found["is_noise"]
        and not found["is_better"]
        and found["comparison"]["scores"]["accuracy"]["p_corrected"] == 0.4
    )
    assert found["trials"][1]["state"] == "ended early" and not found["importance_is_reliable"]


def test_importance_finds_the_field_that_matters(tmp_path: Path) -> None:
    of = begun(tmp_path, trials=30, own={"lr": 1.0, "batch_size": 8})
    assert ending.importance(of.study(), ["lr", "batch_size"]) == {}
    while running := of.claim(0, OWN, set()):
        value = 0.9 if running.settings.get("batch_size") == 16 else 0.1
        running.finish(Found(value, [value], "x"))

    found = ending.importance(of.study(), ["lr", "batch_size"])
    assert found["batch_size"] > 0.9 and sum(found.values()) == pytest.approx(1)


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_asks_for_optuna_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["search", "searches/bbc-news.yaml"])
    monkeypatch.setattr(search.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(UserError, match="optuna is not installed; expected it: pip install 'optuna>=5'"):
        search.main()


@pytest.mark.parametrize(("name", "told"), [("a.b", "letters, digits, - and _ alone"), ("x", "has not started")])
def test_what_the_command_refuses(name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["search", str(write(tmp_path / f"{name}.yaml")), "--show"])

    with pytest.raises(UserError, match=told):
        search.main()


@pytest.mark.slow  # four trials through DVC
def test_a_search_through_dvc_that_is_ended_and_goes_on(
    make_project: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path)
    git(project, "init", "--quiet", "--initial-branch=main")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=before")
    toy = {"task": "token_classification", "recipe": "toy", "always": {"threads": 1, "epochs": 8.0}}
    write(project / "toy.yaml", trials=4, pruning=MEDIAN | {"startup_trials": 3}, **toy)
    before = git(project, "status", "--porcelain")
    command = [sys.executable, "-m", "finetrail.search", "toy.yaml", "--jobs", "2"]
    ended = subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True)
    assert ended.stderr
    while "epoch 1" not in (line := ended.stderr.readline()):
        assert line, "it ended before its first epoch"
    ended.send_signal(signal.SIGINT)
    assert "the same command resumes" in ended.communicate()[1] and ended.returncode == 130

    done = subprocess.run([*command, "--json"], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    states = [one["state"] for one in found["trials"]]
    assert len(states) == 4 and set(states) <= {"finished", "ended early"} and states[0] == "finished"
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "list", "--name-only"], cwd=project, capture_output=True
    )
    names = {one["revision"] for one in found["trials"] if one["state"] == "finished"}
    assert set(listed.stdout.decode().split()) == names
    assert git(project, "status", "--porcelain") == before
    assert not list(project.glob(".scratch/search/toy/*/project"))
    assert found["best"] == 0 or found["comparison"]["first"] == "toy-0000"
