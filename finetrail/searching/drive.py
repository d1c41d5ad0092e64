"""Drives the trials of a search: claims one, runs it in a clone, ends it early or records what it has reached."""

import re
import threading
from pathlib import Path

from finetrail import layout, stage
from finetrail.comparison import runs
from finetrail.errors import UserError
from finetrail.searching import places, processes, space
from finetrail.searching.places import Place
from finetrail.searching.space import Scalar
from finetrail.searching.trials import FINISHED, UNFINISHED, Begun, Found, Running, Trials

FOLDER = layout.SCRATCH / "search"
SECONDS = 1.0  # between two looks at a trial that runs


class Search:
    """A space file, the trials that there are, and the project that they are experiments of."""

    def __init__(self, root: Path, path: Path) -> None:
        self.root, self.path, self.space = root, path, space.load(path)
        self.name = path.stem
        if not re.match(space.SEARCH_NAME, self.name):
            raise UserError(f"{path}: experiments get the file's name; expected it of letters, digits, - and _ alone")
        self.folder = root / FOLDER / self.name
        self.trials = Trials(self.folder, self.space)
        self._reading = threading.Lock()

    @property
    def begun(self) -> Begun:
        """Return what the search began with; UserError where it has not."""
        if begun := self.trials.begun():
            return begun
        raise UserError(f"{self.path}: the search has not started; expected a run without --show first")

    def begin(self) -> None:
        """Start the search, or check that it can resume."""
        with self.trials.alone():
            if self.trials.begun() is None:
                self._begin()
            elif places.changed_since(self.root, self.folder):
                commit = (self.folder / places.COMMIT).read_text()
                stage.log(
                    f"{self.name}: the project's files have changed since it started; it resumes with the earlier ones "
                    f"(commit {commit[:7]} and the changes in {self.folder.relative_to(self.root) / places.CHANGES})"
                )

    def work(self, stop: threading.Event) -> None:
        """Run trials one after another until none is left or `stop` is set."""
        own = self.begun.own
        while not stop.is_set():
            with places.taken(self.folder, self.trials.slots()) as place:
                running = self.trials.claim(place.number, own, set(self.experiments()))
                if running is None:
                    return
                self._run(place, running, stop)

    def clear(self) -> None:
        """Remove the clones, once nothing is left to run."""
        found = self.trials.all()
        if len(found) >= self.space.trials and all(trial.state != UNFINISHED for trial in found):
            for lock in sorted(self.folder.glob("*/lock")):
                with places.taken(self.folder, [int(lock.parent.name)]) as place:
                    stage.remove(place.project)  # another one's, where another process has just begun in that slot

    def experiments(self) -> dict[int, str]:
        """Return the experiments with the search's name in the project, by their number."""
        refs = places.git(self.root, "for-each-ref", "--format=%(refname)", runs.EXPERIMENTS).split()
        names = (ref.rpartition("/")[2] for ref in refs if not ref.startswith(runs.UNFINISHED))
        matches = (re.fullmatch(rf"{re.escape(self.name)}-(\d{{4,}})", name) for name in names)
        return {int(match[1]): match[0] for match in matches if match}

    def read(self, revision: str, metric: str) -> Found:
        """Return what an experiment has reached, and its settings; UserError where that cannot be had."""
        run = runs.system(self.root, revision).runs[0]
        with self._reading, runs.opened(self.root, run) as files:
            curve = processes.parsed(files.bytes(layout.TRAIN_HISTORY / processes.CURVE.format(metric)).decode())
            contents = self.space.contents(files.yaml)
        names = (*self.space.changes({}), *self.space.fields)
        return Found(
            value=processes.reached(curve, run.record["train"]["best_update"], revision),
            curve=[value for _, value in curve],
            revision=revision,
            settings={field: space.effective(self.space, field, contents) for field in names},
        )

    def _begin(self) -> None:
        own = space.check(self.space, self.path)
        for file in (self.space.files[1], layout.defaults_file(self.space.task)):
            places.check_tracked(self.root, file)
        begun = Begun.of(self.space, space.metric(self.space), own)
        there = {number: self._there(name, number, begun) for number, name in self.experiments().items()}
        places.note(self.root, self.folder)
        self.trials.begin(begun, there)
        if there:
            stage.log(f"{self.name}: {len(there)} of its experiments exist already")

    def _there(self, name: str, number: int, begun: Begun) -> Found:
        """Return the result of an experiment that existed before the search; UserError if it does not belong to it."""
        found = self.read(name, begun.metric)
        wanted = self.space.changes(begun.own if number == 0 else {})
        for field, value in found.settings.items():
            if value != wanted[field] if field in wanted else not self.space.fields[field].holds(value):
                raise UserError(
                    f"{name}: this experiment exists already, with {field} {value}, and does not belong to this "
                    f"search; expected another name of {self.path}, or `dvc exp remove {name}`"
                )
        return found

    def _run(self, place: Place, running: Running, stop: threading.Event) -> None:
        """Run a trial to its end, unless the pruner or `stop` ends it before."""
        name, metric = f"{self.name}-{running.number:04d}", self.begun.metric
        if running.number in self.experiments() or places.was_left(self.root, self.folder, place, name):
            return running.finish(self.read(name, metric))  # the search was killed before it noted that
        places.prepare(self.root, self.folder, place)
        log = self.folder / f"{name}.log"
        stage.log(f"{name}: {shown(running.settings)} (log: {log.relative_to(self.root)})")
        is_hopeless = False
        with processes.started(place, log, name, space.overrides(self.space, running.settings)) as process:
            while process.poll() is None and not is_hopeless:
                if stop.wait(SECONDS):
                    return None
                curve = [value for _, value in processes.curve_so_far(place.project, metric)]
                is_hopeless = self._reported(running, name, curve)
        if is_hopeless:
            running.end_early()
            stage.log(f"{name}: ended early")
        elif process.returncode:
            self._failed(log, running, name)
        else:
            revision = places.bring(self.root, self.folder, place, name)
            running.finish(self.read(revision, metric))
        places.forget(place)
        return None

    def _reported(self, running: Running, name: str, curve: list[float]) -> bool:
        """Log new epochs and report them to the pruner; return True if the trial should end."""
        for epoch, value in enumerate(curve[running.epochs :], start=running.epochs + 1):
            stage.log(f"{name}: epoch {epoch}: {self.begun.metric} {value:.4f}")
            if running.is_hopeless(value):
                return True
        return False

    def _failed(self, log: Path, running: Running, name: str) -> None:
        """Record a failure; where no trial has succeeded yet, leave this one to be run again, and stop: UserError."""
        reason = processes.reason(log.read_text(encoding="utf-8", errors="replace"))
        if not any(trial.state == FINISHED for trial in self.trials.all()):
            raise UserError(f"{name}: {reason} (full log: {log.relative_to(self.root)})")
        running.fail(reason)
        stage.log(f"{name}: failed: {reason}")


def shown(settings: dict[str, Scalar]) -> str:
    """Return settings for people, in one line."""
    words = (
        f"{field} {value:.4g}" if isinstance(value, float) else f"{field} {value}" for field, value in settings.items()
    )
    return ", ".join(words) or "the default settings"
