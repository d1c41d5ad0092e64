"""Files as annotation tools write them are read as texts with spans; what is left out of them is counted."""

import json
import os
import sys
from pathlib import Path

import pytest

from finetrail.corpus import readers
from finetrail.errors import UserError
from finetrail.schema import (
    BratReader,
    DoccanoReader,
    LabelStudioReader,
    ProdigyReader,
    SpacyReader,
    SpanRules,
    SpansReader,
)

CASES = Path(os.environ.get("FINETRAIL_CASES", Path(__file__).parents[2] / "shared" / "cases")).resolve()
RULES = SpanRules(
    words="unicode", units="characters", blanks="trim", inside_words="snap", overlapping="longest", empty="drop"
)
TEXT = "Ada Roe lived in New-Port."
PER, LOC = (0, 7, "PER"), (17, 25, "LOC")

DOCCANO = DoccanoReader(format="doccano", spans=RULES, encoding="utf-8")
PRODIGY = ProdigyReader(format="prodigy", spans=RULES, encoding="utf-8")
PLAIN = SpansReader(format="spans", spans=RULES, encoding="utf-8")
BRAT = BratReader(format="brat", discontinuous="cover", spans=RULES, encoding="utf-8")


def studio(text="text", take="annotations", several="first"):
    return LabelStudioReader(
        format="label_studio", text=text, take=take, several=several, spans=RULES, encoding="utf-8"
    )


def read(root, reader, *names):
    return list(readers.read(root, [root / name for name in names], reader))


def spans(record):
    return [tuple(span[:3]) for span in record.values["spans"]]


def jsonl(*objects):
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)


def one(tmp_path, reader, content, name="a.jsonl"):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    (record,) = read(tmp_path, reader, name)
    return record


# --- doccano ------------------------------------------------------------------------------------------------------

OFFSETS = {"start_offset": 0, "end_offset": 7, "label": "PER", "id": 3}


@pytest.mark.parametrize(
    ("example", "expected", "left_out"),
    [
        ({"label": [[0, 7, "PER"], [17, 25, "LOC"]], "Comments": []}, [PER, LOC], {}),
        ({"labels": [[0, 7, "PER"]], "meta": {}, "annotation_approver": None}, [PER], {}),
        ({"label": []}, [], {}),
        (
            {
                "entities": [OFFSETS, {"id": 4, "label": "LOC", "start_offset": 17, "end_offset": 25}],
                "relations": [{"id": 1, "from_id": 3, "to_id": 4, "type": "lived"}],
                "Comments": ["sure?"],
            },
            [PER, LOC],
            {"relations": 1, "comments": 1},
        ),
        ({"entities": [[0, 7, "PER"]], "cats": ["news", "people"]}, [PER], {"document labels": 2}),
    ],
)
def test_doccano_in_each_of_its_shapes(tmp_path, example, expected, left_out):
    record = one(tmp_path, DOCCANO, jsonl({"id": 12, "text": TEXT} | example))
    assert (record.id, record.where, record.values["text"]) == ("12", "a.jsonl:1", TEXT)
    assert (spans(record), record.values["left_out"]) == (expected, left_out)


# --- Prodigy, and plain spans -------------------------------------------------------------------------------------


def test_prodigy_gives_what_was_accepted(tmp_path):
    span = {"start": 0, "end": 7, "label": "PER", "token_start": 0, "token_end": 1}
    tokens = [{"text": "Ada", "start": 0, "end": 3, "id": 0, "ws": True}]
    (tmp_path / "a.jsonl").write_text(
        jsonl(
            {"text": TEXT, "spans": [span, {"start": 17, "end": 25}], "tokens": tokens, "answer": "accept"},
            {"text": TEXT, "spans": [span], "answer": "reject", "_input_hash": 5},
            {"text": TEXT, "answer": "ignore"},
            {"text": TEXT, "answer": "accept", "label": "news", "accept": ["a", "b"], "relations": [{"head": 0}]},
        )
    )
    records = read(tmp_path, PRODIGY, "a.jsonl")
    assert [spans(record) for record in records] == [[PER], [], [], []]
    assert [record.values["skipped"] for record in records] == [None, "answered reject", "answered ignore", None]
    assert records[0].values["left_out"] == {"spans without a label": 1}
    assert records[3].values["left_out"] == {"relations": 1, "document labels": 3}


def test_plain_spans_have_an_id_or_a_running_number(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        jsonl({"text": TEXT, "spans": [{"start": 0, "end": 7, "label": "PER"}], "id": "x"}, {"text": TEXT, "spans": []})
    )
    assert [(record.id, spans(record)) for record in read(tmp_path, PLAIN, "a.jsonl")] == [("x", [PER]), ("1", [])]


def test_what_tools_know_of_a_text_are_columns_beside_it(tmp_path):
    known = {"source": "web", "text": TEXT, "meta": {"source": "other", "page": 3}}
    for reader, more in (
        (DOCCANO, {"label": []}),
        (PRODIGY, {"spans": []}),
        (PRODIGY, {"answer": "reject"}),
        (PLAIN, {"spans": []}),
    ):
        values = one(tmp_path, reader, jsonl(known | more)).values
        assert (values["source"], values["page"], values["text"]) == ("web", 3, TEXT)
    for given in ([task(annotation(PERSON))], [task()], [{"id": 1, "text": TEXT, "page": 3, "annotation_id": None}]):
        assert one(tmp_path, studio(), given, "a.json").values["page"] == 3


# --- Label Studio -------------------------------------------------------------------------------------------------


def region(start, end, *labels, text=None, **more):
    value = {"start": start, "end": end, "labels": list(labels)} | ({} if text is None else {"text": text})
    return {"id": f"r{start}", "from_name": "label", "to_name": "text", "type": "labels", "value": value} | more


def task(*annotations, **more):
    return {"id": 7, "data": {"text": TEXT, "page": 3}, "annotations": list(annotations)} | more


def annotation(*results, **more):
    return {"id": 1, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "result": list(results)} | more


PERSON, PLACE = region(0, 7, "PER", text="Ada Roe"), region(17, 25, "LOC")


@pytest.mark.parametrize(("several", "expected"), [("first", [PER]), ("last", [LOC])])
def test_one_annotation_of_a_task_is_taken(tmp_path, several, expected):
    given = [task(annotation(PERSON), annotation(PERSON, PLACE, was_cancelled=True), annotation(PLACE))]
    record = one(tmp_path, studio(several=several), given)
    assert (record.id, spans(record)) == ("7", expected)
    assert record.values["left_out"] == {"cancelled annotations": 1, "further annotations of a task": 1}
    with pytest.raises(UserError, match=r"item 0: 2 annotations; expected one, or reader.several: first or last$"):
        one(tmp_path, studio(several="refuse"), given)


def test_ground_truth_comes_before_others(tmp_path):
    given = [task(annotation(PERSON), annotation(PLACE, ground_truth=True), annotation(PERSON))]
    for several in ("first", "last", "refuse"):
        assert spans(one(tmp_path, studio(several=several), given)) == [LOC]


def test_results_that_are_no_spans_are_counted(tmp_path):
    relation = {"from_id": "r0", "to_id": "r17", "type": "relation", "direction": "right"}
    choice = {"from_name": "topic", "to_name": "text", "type": "choices", "value": {"choices": ["news"]}}
    note = {"from_name": "note", "to_name": "text", "type": "textarea", "value": {"text": ["?"]}}
    record = one(
        tmp_path,
        studio(),
        [task(annotation(PERSON, relation, choice, note, region(17, 25), region(17, 25, "LOC", "X")))],
    )
    assert spans(record) == [PER, LOC, (17, 25, "X")]
    assert record.values["left_out"] == {
        "relations": 1,
        "document labels": 1,
        "results of type textarea": 1,
        "spans without a label": 1,
    }


@pytest.mark.parametrize("annotations", [[], [annotation(PERSON, was_cancelled=True)]])
def test_unannotated_tasks_are_skipped_entity_free_examples_kept(tmp_path, annotations):
    assert one(tmp_path, studio(), [task(*annotations)]).values["skipped"] == "without annotations"
    assert one(tmp_path, studio(), [task(annotation())]).values["skipped"] is None


def test_predictions_and_the_completions_of_old_versions(tmp_path):
    given = [task(annotation(PERSON), predictions=[{"model_version": "m", "score": 0.5, "result": [PLACE]}])]
    assert spans(one(tmp_path, studio(take="predictions"), given)) == [LOC]
    old = {"id": 7, "data": {"review": TEXT}, "completions": [{"result": [PERSON]}]}
    assert spans(one(tmp_path, studio(text="review"), [old])) == [PER]


def test_json_min_has_an_object_for_each_annotation(tmp_path):
    def minimal(id, annotation_id, *values, **more):
        found = {"label": [value["value"] for value in values]} if values else {}
        return {"text": TEXT, "id": id, "annotator": 1, "annotation_id": annotation_id} | found | more

    (tmp_path / "a.json").write_text(
        json.dumps(
            [
                minimal(1, 4, PERSON, sentiment="Positive"),
                minimal(2, 5, PERSON, PLACE),
                minimal(1, 6, PLACE),
                minimal(3, 7),
                minimal(4, None),
            ]
        )
    )
    records = read(tmp_path, studio(several="last"), "a.json")
    assert [(record.id, spans(record)) for record in records] == [("1", [LOC]), ("2", [PER, LOC]), ("3", []), ("4", [])]
    assert [record.values["skipped"] for record in records] == [None, None, None, "without annotations"]
    assert records[0].values["left_out"] == {"further annotations of a task": 1}


# --- brat ---------------------------------------------------------------------------------------------------------

ANN = (
    "T1\tPER 0 7\tAda Roe\n"
    "T2\tLOC 17 25\tNew-Port\n"
    "R1\tLives Arg1:T1 Arg2:T2\n"
    "*\tEquiv T1 T2\n"
    "E1\tLive:T1 Place:T2\n"
    "A1\tSure T1\n"
    "M1\tSure T1\n"
    "N1\tReference T1 Wikipedia:1\tAda\n"
    "#1\tAnnotatorNotes T1\twho?\n"
)


def write_brat(root, text, ann, name="d/one"):
    (root / name).parent.mkdir(exist_ok=True)
    (root / f"{name}.txt").write_bytes(text.encode())
    (root / f"{name}.ann").write_bytes(ann.encode())
    return f"{name}.txt", f"{name}.ann"


def test_brat_has_a_document_in_two_files(tmp_path):
    names = write_brat(tmp_path, TEXT + "\n", ANN)
    (tmp_path / "d/annotation.conf").write_text("[entities]\nPER\n")
    (record,) = read(tmp_path, BRAT, "d/annotation.conf", *names)
    assert (record.id, record.values["text"], spans(record)) == ("d/one", TEXT + "\n", [PER, LOC])
    assert record.values["left_out"] == {
        "relations": 2, "events": 1, "attributes": 2, "normalizations": 1, "notes": 1
    }  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_brat_counts_line_ends_as_they_are_and_parts_spans_there(tmp_path, end):
    text = f"Ada{end}Roe lived in New-Port."
    ann = f"T1\tPER 0 3;{3 + len(end)} {6 + len(end)}\tAda Roe\r\n"
    (record,) = read(tmp_path, BRAT, *write_brat(tmp_path, text, ann))
    assert spans(record) == [(0, 6 + len(end), "PER")]
    assert (record.values["misfits"], record.values["left_out"]) == ([], {})


@pytest.mark.parametrize(("rule", "expected"), [("cover", [(0, 7, "PER")]), ("drop", [])])
def test_a_span_in_parts_is_covered_or_dropped_and_told(tmp_path, rule, expected):
    names = write_brat(tmp_path, "Ada Roe", "T1\tPER 0 1;4 7\tA Roe\n")
    reader = BRAT.model_copy(update={"discontinuous": rule})
    (record,) = read(tmp_path, reader, *names)
    done = "taken as 'Ada Roe'" if expected else "dropped"
    assert spans(record) == expected
    assert record.values["misfits"] == [("discontinuous", f"'A Roe' (PER), {done}")]
    with pytest.raises(UserError, match=r"^d/one.ann:1: 'A Roe' \(PER\) is in parts; expected none, or"):
        read(tmp_path, BRAT.model_copy(update={"discontinuous": "refuse"}), *names)


# --- spaCy --------------------------------------------------------------------------------------------------------


def test_spacy_is_asked_for_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    (tmp_path / "a.spacy").write_bytes(b"")
    with pytest.raises(UserError, match=r"^a.spacy: .* needs spaCy, which is not installed; expected it: pip install"):
        read(tmp_path, SpacyReader(format="spacy", group=None, spans=RULES), "a.spacy")


def test_spacy_files_are_read_by_spacy(tmp_path):
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed")
    from spacy.tokens import Doc, DocBin, Span

    doc = Doc(spacy.blank("en").vocab, words=["Ada", "Roe", "lived", "in", "New", "-", "Port", "."],
              spaces=[True, True, True, True, False, False, False, False])  # fmt: skip
    doc.ents = [Span(doc, 0, 2, label="PER"), Span(doc, 4, 7, label="LOC")]
    doc.spans["sc"] = [Span(doc, 0, 7, label="X")]
    doc.cats = {"news": 1.0}
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "a.spacy")

    (record,) = read(tmp_path, SpacyReader(format="spacy", group=None, spans=RULES), "a.spacy")
    assert (record.values["text"], spans(record)) == (TEXT, [PER, LOC])
    assert record.values["left_out"] == {"document labels": 1, "spans of other groups": 1}
    (record,) = read(tmp_path, SpacyReader(format="spacy", group="sc", spans=RULES), "a.spacy")
    assert spans(record) == [(0, 25, "X")]
    with pytest.raises(UserError, match=r"^a.spacy, document 0: no group 'x' in doc.spans; the groups there are 'sc'$"):
        read(tmp_path, SpacyReader(format="spacy", group="x", spans=RULES), "a.spacy")
    (tmp_path / "a.spacy").write_bytes(b"none")
    with pytest.raises(UserError, match=r"^a.spacy: not a .spacy file: "):
        read(tmp_path, SpacyReader(format="spacy", group=None, spans=RULES), "a.spacy")


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (
            DOCCANO,
            {"text": TEXT},
            r"a:1: no key 'label', 'labels' or 'entities'; the keys there are 'text'; exp",
        ),
        (DOCCANO, {"text": TEXT, "annotations": []}, r"a:1: no key .*; annotations have numbers for labels; expected"),
        (DOCCANO, {"text": TEXT, "label": ["news"]}, r"a:1: label\[0\] is 'news'; expected \[start, end, label\]$"),
        (DOCCANO, {"text": TEXT, "label": [[0, 7, 3]]}, r"a:1: label\[0\]: label is 3; expected a name$"),
        (DOCCANO, {"text": TEXT, "label": [[0, "7", "X"]]}, r"a:1: label\[0\]: end is '7'; expected a whole number$"),
        (DOCCANO, {"label": []}, r"a:1: no key 'text'; the keys there are 'label'$"),
        (DOCCANO, [{"text": TEXT, "label": []}], r"a:1: a JSON array; expected one JSON object per line$"),
        (PLAIN, {"text": TEXT}, r"a:1: no key 'spans'; the keys there are 'text'$"),
        (PLAIN, {"text": TEXT, "spans": {}}, r"a:1: spans is {}; expected a list$"),
        (
            PLAIN,
            {"text": TEXT, "spans": [[0, 1]]},
            r"a:1: spans\[0\] is \[0, 1\]; expected an object with start,",
        ),
        (PLAIN, {"text": 3, "spans": []}, r"a:1: text is 3; expected a string$"),
        (PLAIN, {"text": "\ud83d", "spans": []}, r"a:1: a lone surrogate"),
        (
            PLAIN,
            {"text": TEXT, "spans": [{"start": True, "end": 2, "label": "X"}]},
            r"\[0\]: start is True; exp",
        ),
        (
            PLAIN,
            {"text": TEXT, "spans": [{"start": 0, "end": 2, "label": " "}]},
            r"\[0\]: label is ' '; expected",
        ),
        (PRODIGY, {"text": TEXT, "spans": "x"}, r"a:1: spans is 'x'; expected a list$"),
        (studio(), {"data": {}}, r"a: dict; expected an array of tasks: Label Studio's JSON or JSON-MIN$"),
        (studio(), [3], r"a, item 0: 3; expected a task$"),
        (studio(), [task(), {"text": TEXT}], r"a, item 1: no data; expected it in all tasks, or in none \(JSON-MIN\)$"),
        (studio("x"), [task()], r"item 0: no key 'x'; the keys there are 'text', 'page'; reader.text names the one"),
        (
            studio(take="predictions"),
            [task(predictions=[4])],
            r"item 0: predictions has 4; expected objects with a",
        ),
        (studio(take="predictions"), [{"text": TEXT}], r"a: JSON-MIN has no predictions; expected reader.take"),
        (
            studio(),
            [task(annotation(region(0, 7, "X", type="hypertextlabels")))],
            r"item 0: result\[0\] is of type hypertextlabels, which counts no characters of a text; expected labels$",
        ),
        (studio(), [task(annotation(region("0", 7, "X")))], r"result\[0\]: start is '0'; expected a whole number$"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_place(tmp_path, reader, content, message):
    (tmp_path / "a").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, reader, "a")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("ann", "message"),
    [
        (
            "T1 PER 0 7 Ada\n",
            r"^d/one.ann:1: 'T1 PER 0 7 Ada'; expected an id, a tab, 'LABEL START END', a tab and",
        ),
        ("T1\tPER 0 7\tAda\n\nRoe lived\tx\n", r"^d/one.ann:3: 'Roe .*; expected an annotation of brat: T1, R1, E1"),
        (None, r"^d/one.txt: there is no d/one.ann; expected it beside, empty if there are no spans$"),
    ],
)
def test_a_mistake_in_brats_files_is_told(tmp_path, ann, message):
    names = write_brat(tmp_path, TEXT, ann or "")
    if ann is None:
        (tmp_path / names[1]).unlink()
    with pytest.raises(UserError, match=message):
        read(tmp_path, BRAT, names[0])


# --- files that were written for this -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("spans_doccano.jsonl", DOCCANO),
        ("spans_prodigy.jsonl", PRODIGY),
        ("spans_prodigy.jsonl", PLAIN),
        ("spans_label_studio.json", studio()),
    ],
)
def test_the_same_texts_in_each_format_are_the_same_records(name, reader):
    if not (CASES / name).is_file():
        pytest.skip(f"no {CASES / name}")
    records = read(CASES, reader, name)
    assert [record.values["text"] for record in records] == [
        f"Dr. Jane Roe (born {1940 + number}) lived in New-Port, Exampleland." for number in range(8)
    ]
    for record in records:
        assert spans(record) == [(4, 12, "PER"), (19, 23, "YEAR"), (34, 42, "LOC"), (44, 55, "LOC")]
