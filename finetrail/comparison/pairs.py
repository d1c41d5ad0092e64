"""Compares two systems on the same test examples: differences of their scores, and the examples that changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError, create_model

from finetrail import layout, params, schema, tasks, upgrades
from finetrail.comparison.runs import Files, Run, System, opened
from finetrail.comparison.seeds import same_headline
from finetrail.errors import UserError
from finetrail.evaluation import slices
from finetrail.evaluation.significance import Difference, Settings, differences
from finetrail.reporting.summary import FINAL_SPLIT

if TYPE_CHECKING:
    from finetrail.tasks.contract import Outcome

# id, and which of those with that id: blocks of one text may share it.
Key = tuple[str, int]


@dataclass(frozen=True)
class Evaluated:
    """What one run predicted for the test split, and what it was scored with."""

    run: Run
    units: pa.Table  # a row for each example that is scored, as the task's scoring.units() has them
    target: object
    settings: schema.Evaluate  # the recipe's evaluate section
    corpus: dict[str, dict[str, Any]]  # table -> id -> row: the test split and what the splits share


@dataclass(frozen=True)
class Change:
    """One example with the predictions of both systems. Scores are the task's outcomes(): higher is better."""

    id: str
    before: float
    after: float
    input: str
    reference: str
    first: str
    second: str

    @property
    def is_loss(self) -> bool:
        """Whether the second system is worse here."""
        return self.after < self.before


@dataclass(frozen=True)
class Slice:
    """Two systems in one slice of the test split, by the headline; examples: those that change it."""

    slicing: str
    slice: str
    examples: int
    score: Difference


@dataclass(frozen=True)
class Compared:
    """Two systems: their scores by name, those of slices, and the examples that changed: largest losses, then gains."""

    first: str
    second: str
    headline: str
    lower_is_better: list[str]  # of the scores
    examples: int
    seeds: list[int]
    scores: dict[str, Difference]
    slices: list[Slice]
    changes: list[Change]


def compare(root: Path, first: System, second: System, settings: Settings) -> Compared:
    """Compare two systems on the examples that both predicted; UserError where these are not the same."""
    pairs = paired(first, second)
    headline = same_headline(pairs[0][0].record, pairs[0][1].record)
    read = [(evaluated(root, a), evaluated(root, b)) for a, b in pairs]
    base = read[0][0]
    tables = [(aligned(base, a), aligned(base, b)) for a, b in read]
    scoring = tasks.module(base.run.record["task"], "scoring")
    statistics = [scoring.statistics(joined(base, *pair), base.target, base.settings) for pair in tables]
    scores = differences(statistics, len(base.units), settings)
    # Not those of the records: the scores are computed anew, by this version of the task.
    lower_is_better = sorted(set(tasks.module(base.run.record["task"], "metrics").LOWER_IS_BETTER) & set(scores))
    units = slices.of_task(scoring, headline, headline in lower_is_better, base.target, base.settings)
    outcomes = [[scoring.outcomes(table, base.target, base.settings) for table in pair] for pair in tables]
    return Compared(
        first=first.name,
        second=second.name,
        headline=headline,
        lower_is_better=lower_is_better,
        examples=len(base.units),
        seeds=[a.record["seed"] for a, _ in pairs] if len(pairs) > 1 else [],
        scores=scores,
        slices=list(_slices(base, train_split(root, base.run), tables, units, settings)),
        changes=_changes(base.units["id"].to_pylist(), outcomes),
    )


def paired(first: System, second: System) -> list[tuple[Run, Run]]:
    """Pair the runs of two systems by their seed; one run of each is a pair whatever its seed."""
    if len(first.runs) == len(second.runs) == 1:
        return [(first.runs[0], second.runs[0])]
    of_first, of_second = ({run.record["seed"]: run for run in system.runs} for system in (first, second))
    if seeds := sorted(of_first.keys() & of_second.keys()):
        return [(of_first[seed], of_second[seed]) for seed in seeds]
    raise UserError(
        f"{first.name} has the seeds {_listed(of_first)}, {second.name} {_listed(of_second)}; expected one in common, "
        "such as dvc exp run -S seed=1 of both"
    )


def evaluated(root: Path, run: Run) -> Evaluated:
    """Read what a run predicted for the test split; Unavailable where it cannot be had."""
    task, recipe = run.record["task"], run.record["recipe"]
    scoring = tasks.module(task, "scoring")
    with opened(root, run) as files:
        predictions = files.table(layout.PREDICTIONS)
        return Evaluated(
            run=run,
            units=scoring.units(predictions.filter(pc.equal(predictions["split"], FINAL_SPLIT))),
            target=upgrades.target(task, files.json(layout.TARGET)),
            settings=_settings(files, task, layout.recipe_file(task, recipe)),
            corpus={path.stem: _by_id(files.table(path)) for path in _tables(files)},
        )


def train_split(root: Path, run: Run) -> pa.Table:
    """Read the train split of a run, whose labels and words define slices."""
    with opened(root, run) as files:
        return files.table(layout.table_file(layout.CORPUS, "train"))


def _settings(files: Files, task: str, recipe: Path) -> schema.Evaluate:
    """Return the evaluate section of the recipe that the run had, as this version of the schema has it."""
    settings = tasks.module(task, "settings")
    model: Any = create_model("Settings", evaluate=(settings.Evaluate, ...))
    defaults = layout.defaults_file(task)
    found = params.composed(files.yaml(recipe), recipe, files.yaml(defaults), defaults).values
    section, _ = upgrades.upgraded({"evaluate": found["evaluate"]}, model)
    try:
        return model.model_validate(section).evaluate
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise UserError(
            f"{files.run.name}: {recipe}: evaluate: {keys}: not valid in this version of finetrail; "
            "expected a run of this version, or check out the run's version to compare"
        ) from None


def _tables(files: Files) -> list[Path]:
    """Return the corpus's tables that decide what is scored: the test split, and what the splits share."""
    found = [path for path in files.below(layout.CORPUS) if path.suffix == ".parquet"]
    only_learned_from = {layout.RANKINGS, *layout.SPLITS} - {FINAL_SPLIT}
    return [path for path in found if path.stem not in only_learned_from]


def _by_id(table: pa.Table) -> dict[str, Any]:
    """Return the rows by their id, without where they were read, and without the columns of corpus.slices."""
    names = [name for name in table.column_names if name == "place" or name.startswith(layout.SLICE)]
    contents = table.drop_columns(names)
    return {str(row["id"]): row for row in contents.to_pylist()}


def aligned(base: Evaluated, other: Evaluated) -> pa.Table:
    """Return the rows of `other` in the order of base's; UserError where their examples differ."""
    names = f"{base.run.name} and {other.run.name}"
    for table in sorted(base.corpus.keys() | other.corpus.keys()):
        difference = _different(base.corpus.get(table, {}), other.corpus.get(table, {}))
        if difference:
            raise UserError(f"{names}: the corpus's {table} differs: {difference}; expected the same examples in both")
    rows, wanted = ({key: row for row, key in enumerate(_keys(one.units))} for one in (other, base))
    if difference := _different(wanted, rows, contents=False):
        raise UserError(
            f"{names}: the scored examples differ: {difference}; expected the same tokenize.limit, and "
            "of language models the same blocks"
        )
    found = other.units.take(list(map(rows.__getitem__, wanted)))
    same = [a == b for a, b in zip(*(one["references"].to_pylist() for one in (base.units, found)), strict=True)]
    if not all(same):
        example = base.units["id"][same.index(False)].as_py()
        raise UserError(
            f"{names}: {same.count(False)} examples have other references (the first: {example}); expected the same "
            "labels, and of language models the same tokenizer and masks"
        )
    return found


def _different(first: dict[Any, Any], second: dict[Any, Any], contents: bool = True) -> str:
    """Say how two collections by id differ; "" where they do not."""
    only = [[key for key in one if key not in other] for one, other in ((first, second), (second, first))]
    changed = [key for key, row in first.items() if contents and key in second and second[key] != row]
    kinds = zip((*only, changed), ("only in the first", "only in the second", "with other content"), strict=True)
    return ", ".join(f"{len(keys)} {words} ({_shown(keys[0])})" for keys, words in kinds if keys)


def _shown(key: str | Key) -> str:
    return key if isinstance(key, str) else key[0]


def _keys(units: pa.Table) -> list[Key]:
    seen: dict[str, int] = {}
    keys = []
    for name in units["id"].to_pylist():
        seen[name] = seen.get(name, -1) + 1
        keys.append((name, seen[name]))
    return keys


def joined(base: Evaluated, first: pa.Table, second: pa.Table) -> pa.Table:
    """Stack the rows of both systems, of the columns that both have."""
    common = [name for name in first.column_names if name in second.column_names]
    try:
        return pa.concat_tables([table.select(common).replace_schema_metadata(None) for table in (first, second)])
    except pa.ArrowInvalid:
        raise UserError(
            f"{base.run.name}: the other predictions have other labels; expected the same labels in both train splits"
        ) from None


def _slices(
    base: Evaluated, train: pa.Table, tables: list[tuple[pa.Table, pa.Table]], units: slices.Units, settings: Settings
) -> Iterator[Slice]:
    """Yield each slice of base's units, with the difference there; tables: of each seed both systems' units."""
    scoring = tasks.module(base.run.record["task"], "scoring")
    for slicing in slices.parted(scoring.slicings(base.units, train, base.target)):
        for name in slicing.slices:
            taken = [[slicing.take(table, [name]) for table in pair] for pair in tables]
            counted = np.any([units.counted(table) for pair in taken for table in pair], axis=0)
            if n := int(counted.sum()):
                kept = [[table.filter(pa.array(counted)) for table in pair] for pair in taken]
                statistics = [units.statistic(joined(base, *pair)) for pair in kept]
                yield Slice(slicing.name, name, n, differences(statistics, n, settings)[units.metric])


def _changes(ids: list[str], outcomes: "list[list[list[Outcome]]]") -> list[Change]:
    """Return the examples whose score changed, by the means over the seeds; the texts are those of the first seed."""
    before, after = (np.mean([[row["score"] for row in pair[of]] for pair in outcomes], axis=0) for of in (0, 1))
    firsts, seconds = outcomes[0]
    found = [
        Change(name, float(a), float(b), one["input"], one["reference"], one["prediction"], other["prediction"])
        for name, a, b, one, other in zip(ids, before, after, firsts, seconds, strict=True)
        if a != b
    ]
    return sorted(found, key=lambda change: (not change.is_loss, -abs(change.after - change.before)))


def _listed(by_seed: dict[int, Run]) -> str:
    return ", ".join(map(str, sorted(by_seed)))
