"""Keeps the trials of one search in a file, for any number of processes: which are done, and what to try next."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from finetrail.errors import UserError
from finetrail.searching.space import HyperbandPruning, MedianPruning, Scalar, Space, lower_is_better

optuna.logging.set_verbosity(optuna.logging.WARNING)

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "ended early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "unfinished",
}
FINISHED, ENDED, FAILED, UNFINISHED = STATES.values()


@dataclass(frozen=True)
class Begun:
    """The fixed part of a search: its space except for the number of trials, and the project's values at its start."""

    space: dict[str, Any]
    metric: str
    own: dict[str, Scalar]  # the recipe's values of the fields

    @classmethod
    def of(cls, space: Space, metric: str, own: dict[str, Scalar]) -> "Begun":
        """Return the fixed part of a search of this space."""
        return cls(space.model_dump(exclude={"trials"}), metric, own)


@dataclass(frozen=True)
class Trial:
    """One trial: its number is that of its experiment, and its value is the score on validation."""

    number: int
    state: str
    settings: dict[str, Scalar]
    is_default: bool
    value: float | None = None  # the last one if the trial was ended early
    epochs: int = 0
    revision: str | None = None  # the experiment's name, or the commit that it is equal to
    reason: str | None = None  # why it failed


@dataclass(frozen=True)
class Found:
    """A finished experiment: the metric after each epoch, and at the epoch whose model was kept."""

    value: float
    curve: list[float]
    revision: str
    settings: dict[str, Scalar] = field(default_factory=dict)


class Running:
    """A trial that this process runs: values are reported to the file, and the pruner decides."""

    def __init__(self, study: optuna.Study, trial: optuna.Trial) -> None:
        self._study, self._trial = study, trial
        self.number: int = trial.user_attrs["number"]
        self.is_default: bool = trial.user_attrs["default"]
        self.settings: dict[str, Scalar] = {} if self.is_default else dict(trial.params)
        self.epochs = 0  # reported

    def is_hopeless(self, value: float) -> bool:
        """Report the metric after one more epoch; return True if the trial should be pruned (never the first trial)."""
        self.epochs += 1
        self._trial.report(value, self.epochs)
        return not self.is_default and self._trial.should_prune()

    def finish(self, found: Found) -> None:
        """Record the value, and the epochs that were not reported yet."""
        for value in found.curve[self.epochs :]:
            self.is_hopeless(value)
        self._trial.set_user_attr("revision", found.revision)
        self._study.tell(self._trial, found.value)

    def end_early(self) -> None:
        """Record that the pruner ended it."""
        self._study.tell(self._trial, state=TrialState.PRUNED)

    def fail(self, reason: str) -> None:
        """Record why it failed."""
        self._trial.set_user_attr("reason", reason)
        self._study.tell(self._trial, state=TrialState.FAIL)


class Trials:
    """The trials of a search, in an Optuna journal; a lock guards what only one process may do at a time."""

    def __init__(self, folder: Path, space: Space) -> None:
        self.folder, self.space = folder, space
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = folder / "lock"
        try:
            self._storage = JournalStorage(JournalFileBackend(str(folder / "journal")))
        except (ValueError, KeyError):  # after a full disk or a power failure
            raise UserError(
                f"{folder / 'journal'} is damaged; expected it whole: remove {folder}, and begin the search again, "
                "which finds its finished experiments"
            ) from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of the search against other processes and threads."""
        with FileLock(self._lock):
            yield

    def begun(self) -> Begun | None:
        """Return what the search began with; None if it has not begun; UserError if it began with another space."""
        if not (self.folder / "begun.json").exists():
            return None
        begun = Begun(**json.loads((self.folder / "begun.json").read_text(encoding="utf-8")))
        now = json.loads(json.dumps(self.space.model_dump(exclude={"trials"})))
        if other := [key for key in now if now[key] != begun.space.get(key)]:
            raise UserError(
                f"{self.folder.name}: it began with another {', '.join(other)}; expected only `trials` to change: "
                f"give the file another name, or remove {self.folder} and its experiments (`dvc exp remove`)"
            )
        return begun

    def begin(self, begun: Begun, found: dict[int, Found]) -> None:
        """Begin a search; `found` has the experiments that exist already, by number."""
        lower = lower_is_better(self.space, begun.metric)
        study = optuna.create_study(
            storage=self._storage,
            study_name=self.folder.name,
            direction=StudyDirection.MINIMIZE if lower else StudyDirection.MAXIMIZE,
            load_if_exists=True,
        )
        for number, one in sorted(found.items()):
            is_default = number == 0
            settings = _inside(self.space, begun.own if is_default else one.settings)
            study.add_trial(
                optuna.create_trial(
                    value=one.value,
                    params=settings,
                    distributions=distributions(self.space) if settings else {},
                    intermediate_values=dict(enumerate(one.curve, start=1)),
                    user_attrs={"number": number, "default": is_default, "revision": one.revision},
                )
            )
        (self.folder / "begun.json").write_text(json.dumps(asdict(begun)), encoding="utf-8")

    def claim(self, slot: int, own: dict[str, Scalar], taken: set[int]) -> Running | None:
        """Return the trial to run in a slot that this process holds; None if no trial is left to begin.

        That is the unfinished trial of the slot, or a new one with a number that no experiment has (`taken`).
        own: the recipe's values, for the first trial.
        """
        with self.alone():
            study = self.study()
            trials = self._latest(study)
            left = [
                one for one in trials.values() if one.state is TrialState.RUNNING and one.user_attrs["slot"] == slot
            ]
            # If a trial waits, the process that queued it was killed.
            waiting = any(one.state is TrialState.WAITING for one in trials.values())
            if left and not waiting:
                self._queue_again(study, left[0])
            elif not waiting and len(trials) >= self.space.trials:
                return None
            elif not waiting and 0 in trials:
                number = max([*trials, *taken]) + 1
                self._queue(study, {}, number=number, slot=slot, default=False, in_space=True)
            elif not waiting:
                inside = _inside(self.space, own)
                self._queue(study, inside, number=0, slot=slot, default=True, in_space=bool(inside))
            return Running(study, self._asked(study, slot))

    def all(self) -> list[Trial]:
        """Return the trials, by number."""
        return [_shown(one) for _, one in sorted(self._latest(self.study()).items())]

    def slots(self) -> list[int]:
        """Return the slots whose trial is unfinished: it is running, or its process has died."""
        running = (one for one in self._latest(self.study()).values() if one.state is TrialState.RUNNING)
        return [one.user_attrs["slot"] for one in running]

    def study(self) -> optuna.Study:
        """Load Optuna's study; the sampler's seed depends on the number of trials, so all processes draw the same."""
        study = optuna.load_study(storage=self._storage, study_name=self.folder.name, pruner=pruner(self.space.pruning))
        draws = np.random.SeedSequence([self.space.seed, len(study.get_trials(deepcopy=False))])
        study.sampler = optuna.samplers.TPESampler(seed=int(draws.generate_state(1)[0]))
        return study

    def _queue(self, study: optuna.Study, settings: dict[str, Scalar], **attributes: Any) -> None:
        study.enqueue_trial(settings, user_attrs=attributes)

    def _queue_again(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Queue a trial again, under its number, after its process died; Optuna itself cannot resume it."""
        self._queue(study, trial.params, **trial.user_attrs)
        study.tell(trial.number, state=TrialState.FAIL)

    def _asked(self, study: optuna.Study, slot: int) -> optuna.Trial:
        """Take the queued trial, and draw the settings that are not given."""
        trial = study.ask()
        trial.set_user_attr("slot", slot)
        if trial.user_attrs["in_space"]:
            for name, values in self.space.fields.items():
                values.draw(trial, name)
        return trial

    def _latest(self, study: optuna.Study) -> dict[int, FrozenTrial]:
        """Return the trials by number; of a trial that was resumed, the last attempt."""
        return {one.user_attrs["number"]: one for one in study.get_trials(deepcopy=False)}


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the space as Optuna's distributions."""
    trial = optuna.create_study().ask()
    for name, values in space.fields.items():
        values.draw(trial, name)
    return dict(trial.distributions)


def pruner(settings: MedianPruning | HyperbandPruning | None) -> optuna.pruners.BasePruner:
    """Return the pruner; its steps are epochs, from 1."""
    if isinstance(settings, MedianPruning):
        return optuna.pruners.MedianPruner(settings.startup_trials, settings.warmup_epochs + 1)
    if isinstance(settings, HyperbandPruning):
        return optuna.pruners.HyperbandPruner(settings.min_epochs, settings.max_epochs, settings.reduction_factor)
    return optuna.pruners.NopPruner()


def _inside(space: Space, settings: dict[str, Scalar]) -> dict[str, Scalar]:
    """Return the values of the fields if the space contains all of them, else {}: Optuna learns from no others."""
    of_fields = {name: settings[name] for name in space.fields}
    return of_fields if all(values.holds(of_fields[name]) for name, values in space.fields.items()) else {}


def _shown(trial: FrozenTrial) -> Trial:
    attributes, values = trial.user_attrs, trial.intermediate_values
    return Trial(
        number=attributes["number"],
        state=STATES.get(trial.state, UNFINISHED),
        settings={} if attributes["default"] else dict(trial.params),
        is_default=attributes["default"],
        value=trial.value if trial.value is not None else values.get(max(values, default=0)),
        epochs=len(values),
        revision=attributes.get("revision"),
        reason=attributes.get("reason"),
    )
