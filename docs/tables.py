"""Writes the parts of README.md and docs/ that are made from files: the graph, results, benchmarks, recipe keys.

python docs/tables.py    (or `make docs`; a test holds the documents against it)
"""

import json
import math
import subprocess
import sys
import types
from collections.abc import Callable
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import reruns  # noqa: E402

from benchmarks.faults import outcomes  # noqa: E402
from finetrail import params, schema, tasks, upgrades  # noqa: E402
from finetrail.comparison import seeds  # noqa: E402
from finetrail.searching import space  # noqa: E402

# Copies of record.json, because the files in metrics/ change with every experiment.
RESULTS = [path for task in tasks.names() for path in sorted((ROOT / "docs/results" / task).glob("*.json"))]
DOCUMENTS = ("README.md", "docs/results.md", "docs/performance.md", "docs/recipes.md", "docs/using.md",
             "docs/scale.md", "docs/reruns.md")  # fmt: skip


def graph() -> str:
    """Return the picture of the pipeline, as DVC draws it."""
    drawn = subprocess.run(["dvc", "dag", "--mermaid"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return f"```mermaid\n{drawn.strip()}\n```"


def results() -> str:
    """Return a row for each record: the headline with its interval, and what it has to beat."""
    rows = ["| recipe | base model | test examples | headline | best baseline | ONNX int8 | learning rate, epochs |",
            "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for path in RESULTS:
        record = upgrades.record(json.loads(path.read_text()))
        name, test = record["headline"], record["test"]
        choose = min if name in record["lower_is_better"] else max
        baseline, best = choose(record["baselines"]["test"].items(), key=lambda item: item[1])
        int8 = record["export"].get("onnx_int8")
        quantized = f"{int8[name]:.3f}{'' if int8['kept'] else ' (not kept)'}" if int8 else "–"
        examples = record["corpus"]["examples"]["test"]
        rows.append(
            f"| {record['task']}/{record['recipe']} | {record['model']['name']} | {examples:,} "
            f"| {name} **{test[name]:.3f}** [{test[f'{name}_low']:.3f}, {test[f'{name}_high']:.3f}] "
            f"| {best:.3f} ({baseline.replace('_', ' ')}) | {quantized} "
            f"| {record['train']['lr']:g}, {record['train']['epochs']:g} |"
        )
    return "\n".join(rows)


def details() -> str:
    """Return all scores of each record on both held-out splits."""
    parts = []
    for path in RESULTS:
        record = json.loads(path.read_text())
        parts += [
            f"### {record['task']}/{record['recipe']}",
            "",
            "| metric | validation | test |",
            "| --- | --- | --- |",
        ]
        for name in (key for key in record["test"] if f"{key}_low" in record["test"]):
            cells = (record[split] for split in ("validation", "test"))
            shown = (f"{cell[name]:.4f} [{cell[f'{name}_low']:.4f}, {cell[f'{name}_high']:.4f}]" for cell in cells)
            parts.append(f"| {name} | {' | '.join(shown)} |")
        train = record["train"]
        trained = f"{train['updates']:,} updates of {train['effective_batch_size']} features in {train['precision']}"
        kept = f"kept update {train['best_update']:,} by {train['best_metric']}"
        parts += ["", f"Seed {record['seed']}, {trained}; {kept}.", ""]
    return "\n".join(parts).strip()


def chaining() -> str:
    """Return the runs of the chaining by seed, and whether their difference is noise."""
    paths = sorted((ROOT / "docs/results/chaining").glob("*.json"))
    records = [upgrades.record(json.loads(path.read_text())) for path in paths]
    plain, adapted = ([one for one in records if one["recipe"] == name] for name in ("bbc-news", "bbc-news-adapted"))
    names, found = ("bbc-news", "bbc-news-adapted"), seeds.compare(plain, adapted)
    return f"{seeds.table(names, found)}\n\n{seeds.verdict(names, found)}"


def benchmark(name: str) -> str:
    """Return one benchmark's figures."""
    record = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    rows = ["| figure | value |", "| --- | --- |"]
    for key, value in flat(record):
        rows.append(f"| {key.replace('_', ' ')} | {shown(value)} |")
    return "\n".join(rows)


def training() -> str:
    """Return a row for each kind of machine and recipe of the training benchmark."""
    rows = ["| machine | recipe | plain, tokens/s | ours, tokens/s | ratio | share of the peak "
            "| that peak, GFLOP/s | first update, s |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for machine, record in json.loads((ROOT / "benchmarks/results/train.json").read_text()).items():
        for name, found in record.items():
            if isinstance(found, dict):
                plain, ours = (found[side]["useful_tokens_per_second"] for side in ("plain", "ours"))
                rows.append(
                    f"| {machine} | {name} | {plain:,} | {ours:,} | **{found['ratio']:.2f}** "
                    f"| {found['share_of_peak_of_all_products']:.2f} | {found['peak_gigaflops']:,} "
                    f"| {found['seconds_to_first_update']:.1f} |"
                )
    return "\n".join(rows)


def portable() -> str:
    """Return the hashes of what each machine computed, and the cost of an update."""
    record = json.loads((ROOT / "benchmarks/results/portable.json").read_text())
    rows = ["| machine | fast: model | portable: model | predictions | evaluation's metrics |",
            "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for name, files in record["portable"].items():
        fast = record["fast"].get(name, {}).get("model.safetensors", "not run")
        rows.append(f"| {name} | {fast} | {' | '.join(files.values())} |")
    rows += ["", f"An update takes, on {record['machine']}:", "", "| numerics | milliseconds |", "| --- | --- |"]
    rows += [f"| {name} | {shown(value)} |" for name, value in record["milliseconds_per_update"].items()]
    return "\n".join(rows)


def fuzzing() -> str:
    """Return a row for each target of the fuzzer."""
    record = json.loads((ROOT / "benchmarks/results/fuzz.json").read_text())
    rows = ["| target | executions | edges reached | seconds | open findings |", "| --- | --- | --- | --- | --- |"]
    rows += [
        f"| {name} | {found['executions']:,} | {found['edges']:,} | {found['seconds']} | {len(found['findings'])} |"
        for name, found in record.items()
    ]
    return "\n".join(rows)


def opens() -> str:
    """Return a table of which tool opens the exported folder of which task, and a list of the failures."""
    record = json.loads((ROOT / "benchmarks/results/opens.json").read_text())
    cells, tools = record["cells"], record["tools"]
    kinds = list(dict.fromkeys(kind for found in cells.values() for kind in found))
    rows = [f"| model | {' | '.join(tools[name] for name in cells)} |", f"| --- |{' --- |' * len(cells)}"]
    for kind in kinds:
        found = (cells[name].get(kind, "–").partition(":")[0] for name in cells)
        rows.append(f"| {kind.replace('_', ' ')} | {' | '.join(found)} |")
    failed = {(kind, text) for found in cells.values() for kind, text in found.items() if text != "yes"}
    return "\n".join([*rows, "", *(f"- {kind.replace('_', ' ')}: {text}" for kind, text in sorted(failed))]).rstrip()


def faults() -> str:
    """Return a table of how often each fault was tried and with which outcome, and a list of the wrong outcomes."""
    record = json.loads((ROOT / "benchmarks/results/faults.json").read_text())
    rows = [f"On {record.pop('machine')}:", "", f"| fault | tasks | tried | {' | '.join(outcomes.CLASSES)} |",
            f"| --- | --- | --- |{' --- |' * len(outcomes.CLASSES)}"]  # fmt: skip
    wrong: list[str] = []
    for of_part in record.values():
        for fault in dict.fromkeys(fault for of_task in of_part.values() for fault in of_task):
            found = {task: of_task[fault] for task, of_task in of_part.items() if fault in of_task}
            counts = [sum(of_task[kind] for of_task in found.values()) for kind in outcomes.CLASSES]
            rows.append(f"| {fault} | {len(found)} | {sum(counts)} | {' | '.join(map(str, counts))} |")
            wrong += [f"- {fault}: {task}: {one}" for task, of in found.items() for one in of["what was wrong"]]
    return "\n".join([*rows, "", *wrong]).rstrip()


def accelerator() -> str:
    """Return what was found on each card: the speed of each case, then the other parts in a line each."""
    file = ROOT / "benchmarks/results/accelerator.json"
    if not file.is_file():
        return "Not measured yet."
    lines = []
    for card, record in json.loads(file.read_text()).items():
        parts = {name: part["result"] for name, part in record["parts"].items()}
        lines += [f"{card}{', tiny models' if record['tiny'] else ''}, in {record['seconds']:.0f} s:", ""]
        lines += ["| case | side | useful tokens/s | times plain | times plain_best | share of the peak "
                  "| idle | GiB |",
                  "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
        for case, sides in parts.get("speed", {}).get("cases", {}).items():
            lines += [f"| {case} | {side} | {sped(found, sides)} |" for side, found in sides.items()]
        lines += ["", "| part | what | found |", "| --- | --- | --- |"]
        for name, part in record["parts"].items():
            rows = [["failure", what] for what in part["failures"]] + (part["rows"] if name != "speed" else [])
            lines += [f"| {name} | {what} | {found} |" for what, found in rows]
        lines.append("")
    return "\n".join(lines).rstrip()


def settings_combined() -> str:
    """Return what came of the combinations of settings, a row for each start, and how many pairs of values they had."""
    record = json.loads((ROOT / "benchmarks/results/combinations.json").read_text())
    rows = ["| corpus | engine | combinations | ran | through export | refused before training | diverged | faults |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for name, engines in record["starts"].items():
        for engine, found in engines.items():
            rows.append(f"| {name} | {engine} | {' | '.join(map(str, found.values()))} |")
    return "\n".join([*rows, "", *(f"- {key}: {shown(value)}" for key, value in record["all"].items())])


def scale() -> str:
    """Return a row for each size of each corpus, and how CPU time grew from the size before: its exponent."""
    record = json.loads((ROOT / "benchmarks/results/scale.json").read_text())
    stages = ("download_corpus", "tokenize", "evaluate", "export", "report")
    rows = [f"| corpus | MB | {' | '.join(name.replace('_', '@') for name in stages)} |", "| --- |" + " --- |" * 6]
    for name, case in record["cases"].items():
        known: dict[str, Any] = {}
        for size, found in sorted(case["sizes"].items(), key=lambda item: int(item[0])):
            cells = (step(found.get(stage), known.get(stage), int(size), known.get("size")) for stage in stages)
            rows.append(f"| {name.replace('_', ' ')}: {int(size):,} {case['unit']} | {found['corpus_mb']} "
                        f"| {' | '.join(cells)} |")  # fmt: skip
            known = found | {"size": int(size)}
    return "\n".join([f"On {record['machine'].replace('1 threads', '1 thread')}:", "", *rows])


def step(found: dict[str, Any] | None, before: dict[str, Any] | None, size: int, size_before: int | None) -> str:
    """Return the cell of one stage: seconds of CPU, the exponent of their growth, and peak memory."""
    if found is None:
        return "not run"
    if "failed" in found:
        return "failed"
    power = ""
    if before and size_before and "failed" not in before:
        grown = math.log(found["cpu_seconds"] / before["cpu_seconds"]) / math.log(size / size_before)
        power = f" ({grown:.2f})"
    return f"{found['cpu_seconds']:,} s{power}, {found['peak_mib']:,} [{found['anonymous_mib']:,}] MiB"


def sped(found: dict[str, Any], sides: dict[str, Any]) -> str:
    """Return the cells of one side of the accelerator's speed."""
    name = "useful_tokens_per_second"
    if name not in found:
        return "not available | | | | |" if "not_available" in found else "failed | | | | |"
    others = [sides.get(side, {}).get(name) for side in ("plain", "plain_best")]
    times = [f"{found[name] / other:.2f}" if other else "" for other in others]
    rest = [found.get(key, "") for key in ("share_of_peak", "idle_share", "peak_memory_gib")]
    return " | ".join([f"{found[name]:,}", *times, *map(str, rest)])


def shown(value: Any) -> str:
    """Return a figure as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def flat(record: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return (dotted key, value) pairs of a nested record."""
    found: list[tuple[str, Any]] = []
    for key, value in record.items():
        found += flat(value, f"{prefix}{key}: ") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def keys() -> str:
    """Return every key of params.yaml and of recipes, from the schema: what tasks share once, then each task's own."""
    shared = {"corpus": schema.Corpus, "model": schema.Model, "tokenize": schema.Tokenize, "train": schema.Train,
              "evaluate": schema.Evaluate, "export": schema.Export}  # fmt: skip
    parts = ["## params.yaml", "", *section(schema.Params), "## What recipes of all tasks have", ""]
    parts += ["### beside the sections", "", *section(schema.Recipe)]
    for name, model in shared.items():
        parts += [f"### {name}", "", *section(model)]
        if model is schema.Corpus:
            parts += ["### corpus: with slices", "", *section(schema.Slices)]
        if model is schema.Model:
            parts += ["### model: of a student", "", *section(schema.Student, model)]
        if model is schema.Train:
            parts += ["### train: with a teacher", "", *section(schema.Distillation, prefix="distillation.")]
    readers: dict[str, Any] = {}
    for task in tasks.names():
        settings = tasks.module(task, "settings")
        own = {"corpus": settings.Corpus, "tokenize": settings.Tokenize, "train": settings.Train,
               "evaluate": settings.Evaluate}  # fmt: skip
        parts += [f"## Recipes of {task}", ""]
        for name, model in own.items():
            if len(rows := section(model, shared[name])) > len(section(shared[name], shared[name])):
                parts += [f"### {task}: {name}", "", *rows]
        if settings.Mixture is not None:
            rows = section(settings.Mixture, schema.Mixture)
            parts += [f"### {task}: corpus of several parts", "", *rows]
        readers |= {
            kind(reader, "format"): reader for reader in members(settings.Corpus.model_fields["reader"].annotation)
        }
    parts += ["## Defaults (recipes/TASK/defaults.yaml)", "", *defaults()]
    parts += ["## Corpora of several parts (corpus, where it has parts)", "", *section(schema.Mixture)]
    parts += ["## Readers (corpus.reader)", ""]
    for name, model in sorted(readers.items()):
        parts += [f"### format: {name}", "", *section(model)]
    parts += ["## Sources (corpus.source and model.source)", ""]
    for model in members(schema.Model.model_fields["source"].annotation):
        parts += [f"### kind: {kind(model, 'kind')}", "", *section(model)]
    parts += ["## Searches (searches/NAME.yaml)", "", *section(space.Space)]
    for model in space.KINDS:
        parts += [f"### fields of kind: {kind(model, 'kind')}", "", *section(model)]
    return "\n".join(parts).strip()


def defaults() -> list[str]:
    """Return a table of the keys that some task has a default for, and what it is in each task."""
    with chdir(ROOT):
        given = {task: params.read_defaults(task) for task in tasks.names()}
    rows = [
        "A recipe may leave out a key that has a value here. `required`: each recipe of the task gives it; an empty "
        "cell: the task has no such key.", "", f"| key | {' | '.join(given)} |", "| --- |" + " --- |" * len(given),
    ]  # fmt: skip
    for name in params.DEFAULTED:
        of_tasks = {task: of[name] if isinstance(of[name], dict) else {"": of[name]} for task, of in given.items()}
        for key in dict.fromkeys(key for of in of_tasks.values() for key in of):
            cells = [default(of, key, task, name) for task, of in of_tasks.items()]
            rows.append(f"| `{name}{'.' if key else ''}{key}` | {' | '.join(cells)} |")
    return [*rows, ""]


def default(given: dict[str, Any], key: str, task: str, name: str) -> str:
    """Return the cell of a key of a section in a task."""
    if key in given:
        return f"`{'null' if given[key] is None else json.dumps(given[key])}`"
    section = {"tokenize": "Tokenize", "train": "Train", "evaluate": "Evaluate"}[name]
    return "required" if key in getattr(tasks.module(task, "settings"), section).model_fields else ""


def kind(model: Any, key: str) -> str:
    """Return the value of the key that discriminates a union."""
    return str(get_args(model.model_fields[key].annotation)[0])


def section(model: Any, known: Any = None, prefix: str = "") -> list[str]:
    """Return one section as a table, nested sections with dotted keys, without the keys of a known section."""
    rows = [" ".join((model.__doc__ or "").split()), "", "| key | type | meaning |", "| --- | --- | --- |"]
    return [*rows, *fields(model, prefix, known), ""]


def fields(model: Any, prefix: str, known: Any = None) -> list[str]:
    rows = []
    known_fields = known.model_fields if known else {}
    for name, field in model.model_fields.items():
        inner = members(field.annotation)
        is_section = any(issubclass(member, schema.Settings) for member in inner)
        if name == "source" or (name in ("kind", "format") and not prefix):  # the heading has it
            continue
        if name in known_fields:
            if is_section and len(inner) == 1:  # which a task may widen
                rows += fields(inner[0], f"{prefix}{name}.", members(known_fields[name].annotation)[0])
        elif name == "reader":
            formats = " or ".join(f"`{kind(reader, 'format')}`" for reader in inner)
            rows.append(f"| `{prefix}reader.format` | {formats} | and the keys of that reader, below |")
        elif is_section:
            if field.description:
                rows.append(f"| `{prefix}{name}` | {typename(field.annotation)} | {field.description} |")
            for member in inner:
                rows += fields(member, f"{prefix}{name}.") if issubclass(member, schema.Settings) else []
        else:
            rows.append(f"| `{prefix}{name}` | {typename(field.annotation)} | {field.description or ''} |")
    return rows


def members(annotation: Any) -> list[Any]:
    """Return the classes of a union, or the one class; none for other types."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (types.UnionType, Union):
        return [member for part in get_args(annotation) for member in members(part)]
    return [annotation] if isinstance(annotation, type) and annotation is not type(None) else []


def typename(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return typename(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (types.UnionType, Union):
        return " or ".join(typename(part) for part in get_args(annotation))
    if get_origin(annotation) in (list, dict):
        return f"{get_origin(annotation).__name__} of {typename(get_args(annotation)[-1])}"
    if isinstance(annotation, type) and issubclass(annotation, schema.Settings):
        return "section"
    return "null" if annotation is type(None) else str(annotation.__name__)


def filled(text: str) -> str:
    """Replace the text between the markers <!-- NAME --> and <!-- end NAME -->."""
    makers: dict[str, Callable[[], str]] = {"graph": graph, "results": results, "details": details, "keys": keys}
    makers |= {"chaining": chaining, "reruns": reruns.table}
    measured = (path.stem for path in (ROOT / "benchmarks/results").glob("*.json"))
    makers |= {f"benchmark {name}": partial(benchmark, name) for name in measured}
    makers |= {"benchmark opens": opens, "benchmark fuzz": fuzzing, "benchmark faults": faults}
    makers |= {"benchmark train": training, "benchmark portable": portable, "benchmark accelerator": accelerator}
    makers |= {"benchmark scale": scale, "benchmark combinations": settings_combined}
    for name, make in makers.items():
        opening, closing = f"<!-- {name} -->", f"<!-- end {name} -->"
        if opening in text:
            before, rest = text.split(opening)
            text = f"{before}{opening}\n{make()}\n{closing}{rest.split(closing)[1]}"
    return text


def main() -> None:
    """Rewrite the documents."""
    for name in DOCUMENTS:
        path = ROOT / name
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
