"""Reads the JSON of annotation tools as raw records of texts with spans: doccano, Prodigy, Label Studio.

The values of a record are its text, its spans, the counts of annotations that are ignored (left_out), the spans that
the reader changed or dropped (misfits), the reason why the example is skipped (skipped, or None), and its other keys.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from finetrail.corpus.labels import shown
from finetrail.corpus.raw import Raw, as_id, document, listed, objects, require_text, with_more
from finetrail.corpus.spans import Misfit, Span
from finetrail.errors import UserError
from finetrail.schema import DoccanoReader, LabelStudioReader, ProdigyReader, SpansReader

NO_LABEL = "spans without a label"
RELATIONS = "relations"
DOCUMENT_LABELS = "document labels"
# Types of results of Label Studio besides spans. Other types are reported by their own names.
RESULTS = {"relation": RELATIONS, "choices": DOCUMENT_LABELS, "taxonomy": DOCUMENT_LABELS}
# Types whose offsets refer to HTML or dialogues instead of a text.
NOT_IN_TEXTS = ("hypertextlabels", "paragraphlabels", "timeserieslabels")


def annotated(
    text: str,
    spans: list[Span],
    left_out: Mapping[str, int],
    skipped: str | None = None,
    misfits: list[Misfit] | None = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the values of a record; `about` has columns that are not the task's own, such as a source."""
    kept = {what: count for what, count in left_out.items() if count}
    own = {"text": text, "spans": spans, "left_out": kept, "skipped": skipped, "misfits": misfits or []}
    return {**(about or {}), **own}


# --- JSON Lines ---------------------------------------------------------------------------------------------------


def plain_spans(path: Path, name: str, reader: SpansReader) -> Iterator[Raw]:
    """Yield objects with text, spans and optionally id."""
    for where, example in objects(path, name, reader.encoding):
        spans = [_span(*item) for item in _items(example, "spans", where)]
        yield _id(example, where), where, annotated(_text(example, "text", where), spans, {}, about=_about(example))


def doccano(path: Path, name: str, reader: DoccanoReader) -> Iterator[Raw]:
    """Yield doccano's examples: spans as lists (label, labels, entities) or, with relations, as objects (entities)."""
    for where, example in objects(path, name, reader.encoding):
        key = next((key for key in ("label", "labels", "entities") if key in example), None)
        if key is None:
            numbered = "; annotations have numbers for labels" if "annotations" in example else ""
            raise UserError(
                f"{where}: no key 'label', 'labels' or 'entities'; the keys there are {listed(example)}{numbered}; "
                "expected doccano's JSONL of sequence labelling"
            )
        spans = [_doccano_span(place, value) for place, value in _items(example, key, where)]
        left_out = {RELATIONS: _length(example, "relations"), DOCUMENT_LABELS: _length(example, "cats")}
        left_out["comments"] = _length(example, "Comments") + _length(example, "comments")
        text = _text(example, "text", where)
        yield _id(example, where), where, annotated(text, spans, left_out, about=_about(example))


def _doccano_span(where: str, value: Any) -> Span:
    if isinstance(value, dict):
        return _span(where, value, "start_offset", "end_offset")
    if not isinstance(value, list) or len(value) != 3:
        raise UserError(f"{where} is {value!r:.60}; expected [start, end, label]")
    return _span(where, dict(zip(("start", "end", "label"), value, strict=True)))


def prodigy(path: Path, name: str, reader: ProdigyReader) -> Iterator[Raw]:
    """Yield Prodigy's examples; rejected and ignored ones without spans. Its own tokens are not taken for words."""
    for where, example in objects(path, name, reader.encoding):
        text, answer = _text(example, "text", where), example.get("answer", "accept")
        if answer != "accept":
            yield None, where, annotated(text, [], {}, f"answered {shown(str(answer)):.20}", about=_about(example))
            continue
        given = _items(example, "spans", where) if "spans" in example else []
        labelled = [(place, value) for place, value in given if not isinstance(value, dict) or "label" in value]
        left_out = {
            NO_LABEL: len(given) - len(labelled),
            RELATIONS: _length(example, "relations"),
            DOCUMENT_LABELS: _length(example, "accept") + ("label" in example),
        }
        spans = [_span(*item) for item in labelled]
        yield None, where, annotated(text, spans, left_out, about=_about(example))


# --- Label Studio -------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """A task of Label Studio: its id, its place, what holds its text, and its annotations or predictions."""

    id: str | None
    where: str
    data: dict[str, Any]
    annotations: list[dict[str, Any]]


def label_studio(path: Path, name: str, reader: LabelStudioReader) -> Iterator[Raw]:
    """Yield the tasks of JSON (an object has data), or of JSON-MIN (an object is an annotation with its data)."""
    items = document(path, name, reader.encoding)
    if not isinstance(items, list):
        raise UserError(f"{name}: {type(items).__name__}; expected an array of tasks: Label Studio's JSON or JSON-MIN")
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise UserError(f"{name}, item {number}: {item!r:.60}; expected a task")
    full = [isinstance(item.get("data"), dict) for item in items]
    if any(full) and not all(full):
        raise UserError(f"{name}, item {full.index(False)}: no data; expected it in all tasks, or in none (JSON-MIN)")
    tasks = _tasks(items, name, reader) if any(full) else _minimal_tasks(items, name, reader)
    for task in tasks:
        text = _text(task.data, reader.text, task.where, "; reader.text names the one that holds the text")
        chosen, left_out = _chosen(task, reader)
        if chosen is None:
            yield task.id, task.where, annotated(text, [], left_out, f"without {reader.take}", about=task.data)
            continue
        spans = _results(chosen, task.where, left_out)
        yield task.id, task.where, annotated(text, spans, left_out, about=task.data)


def _tasks(items: list[dict[str, Any]], name: str, reader: LabelStudioReader) -> Iterator[Task]:
    for number, item in enumerate(items):
        where = f"{name}, item {number}"
        key = "completions" if reader.take == "annotations" and "annotations" not in item else reader.take
        given = [value for _, value in _items(item, key, where)] if key in item else []
        for value in given:
            if not isinstance(value, dict) or not isinstance(value.get("result") or [], list):
                raise UserError(f"{where}: {key} has {value!r:.60}; expected objects with a list as their result")
        yield Task(_id(item, where), where, item["data"], given)


def _minimal_tasks(items: list[dict[str, Any]], name: str, reader: LabelStudioReader) -> Iterator[Task]:
    """Yield the tasks of JSON-MIN: objects with one id are annotations of one task."""
    if reader.take != "annotations":
        raise UserError(f"{name}: JSON-MIN has no predictions; expected reader.take: annotations, or the full JSON")
    tasks: dict[str, Task] = {}
    for number, item in enumerate(items):
        where = f"{name}, item {number}"
        known = _id(item, where)
        task = tasks.setdefault(where if known is None else known, Task(known, where, item, []))
        if item.get("annotation_id", 0) is not None:  # null: not annotated
            spans = [value for values in item.values() if _are_spans(values) for value in values]
            task.annotations.append({"result": [{"type": "labels", "value": value} for value in spans]})
    yield from tasks.values()


def _are_spans(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, dict) and {"start", "end"} <= value.keys() for value in values
    )


def _chosen(task: Task, reader: LabelStudioReader) -> tuple[dict[str, Any] | None, Counter[str]]:
    """Return the annotation to use, if there is one, and the counts of the others."""
    valid = [one for one in task.annotations if not one.get("was_cancelled") and not one.get("skipped")]
    candidates = [one for one in valid if one.get("ground_truth")] or valid
    if len(candidates) > 1 and reader.several == "refuse":
        raise UserError(
            f"{task.where}: {len(candidates)} {reader.take}; expected one, or reader.several: first or last"
        )
    left_out = Counter({"cancelled annotations": len(task.annotations) - len(valid)})
    left_out[f"further {reader.take} of a task"] = max(0, len(valid) - 1)
    return (candidates[-1 if reader.several == "last" else 0] if candidates else None), left_out


def _results(annotation: dict[str, Any], where: str, left_out: Counter[str]) -> list[Span]:
    """Return the spans of an annotation, and count its other results."""
    spans = []
    for number, result in enumerate(annotation.get("result") or []):
        place = f"{where}: result[{number}]"
        kind = result.get("type") if isinstance(result, dict) else None
        if kind in NOT_IN_TEXTS:
            raise UserError(f"{place} is of type {kind}, which counts no characters of a text; expected labels")
        if kind != "labels":
            left_out[RESULTS.get(str(kind), f"results of type {shown(str(kind)):.40}")] += 1
            continue
        value = result.get("value")
        if not isinstance(value, dict) or not isinstance(value.get("labels") or [], list):
            raise UserError(f"{place}: value is {value!r:.60}; expected an object with start, end and labels")
        labels = value.get("labels") or []
        left_out[NO_LABEL] += not labels
        spans += [_span(place, value | {"label": label}) for label in labels]
    return spans


# --- shared functions ----------------------------------------------------------------------------------------------


def _id(example: dict[str, Any], where: str) -> str | None:
    return as_id(example["id"], where) if "id" in example else None


def _about(example: dict[str, Any]) -> dict[str, Any]:
    """Return an object's keys, and those of its `meta`, in which Prodigy and doccano keep the uploaded fields."""
    return with_more(example, "meta")


def _text(example: dict[str, Any], key: str, where: str, hint: str = "") -> str:
    if key not in example:
        raise UserError(f"{where}: no key {key!r}; the keys there are {listed(example)}{hint}")
    text = example[key]
    if not isinstance(text, str):
        raise UserError(f"{where}: {key} is {text!r:.60}; expected a string")
    require_text(text, where)
    return text


def _items(example: dict[str, Any], key: str, where: str) -> list[tuple[str, Any]]:
    """Return (place, item) of the list under a key."""
    if key not in example:
        raise UserError(f"{where}: no key {key!r}; the keys there are {listed(example)}")
    if not isinstance(example[key], list):
        raise UserError(f"{where}: {key} is {example[key]!r:.60}; expected a list")
    return [(f"{where}: {key}[{number}]", item) for number, item in enumerate(example[key])]


def _length(example: dict[str, Any], key: str) -> int:
    value = example.get(key)
    return len(value) if isinstance(value, list) else 0


def _span(where: str, value: Any, start: str = "start", end: str = "end") -> Span:
    if not isinstance(value, dict):
        raise UserError(f"{where} is {value!r:.60}; expected an object with {start}, {end} and label")
    for key in (start, end):
        if not isinstance(value.get(key), int) or isinstance(value[key], bool):
            raise UserError(f"{where}: {key} is {value.get(key)!r:.60}; expected a whole number")
    label, text = value.get("label"), value.get("text")
    if not isinstance(label, str) or not label.strip():
        raise UserError(f"{where}: label is {label!r:.60}; expected a name")
    require_text(label, where)
    return Span(value[start], value[end], label, text if isinstance(text, str) else None)
