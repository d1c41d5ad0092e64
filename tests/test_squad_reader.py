"""The squad reader: every question once with its context, and the path of what is malformed."""

import json
import re

import pytest
from conftest import real

from finetrail.corpus import readers
from finetrail.errors import UserError
from finetrail.schema import SquadReader

SQUAD = SquadReader(format="squad")


def read(root, content):
    (root / "a.json").write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return list(readers.read(root, [root / "a.json"], SQUAD))


def question(**changes):
    given = {"id": "q1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]} | changes
    return {key: value for key, value in given.items() if value is not None}


def articles(*questions, context="Ada wrote it.", **article):
    return {"version": "1.1", "data": [{"paragraphs": [{"context": context, "qas": list(questions)}]} | article]}


def test_each_question_has_its_title_context_and_all_its_answers(tmp_path):
    answers = [{"text": "Ada", "answer_start": 0}, {"text": "Ada wrote", "answer_start": 0}]
    content = articles(question(), question(id=7, answers=answers), title="Ada")
    content["data"].append({"title": "None", "paragraphs": []})
    content["data"].append({"title": "민수", "paragraphs": [{"context": "c", "qas": [question(id="q3", answers=[])]}]})
    ada = {"title": "Ada", "question": "Who?", "context": "Ada wrote it."}
    assert read(tmp_path, content) == [
        ("q1", "a.json: data[0].paragraphs[0].qas[0]", ada | {"answers": [{"text": "Ada", "start": 0}]}),
        (
            "7",
            "a.json: data[0].paragraphs[0].qas[1]",
            ada | {"answers": [{"text": "Ada", "start": 0}, {"text": "Ada wrote", "start": 0}]},
        ),
        (
            "q3",
            "a.json: data[2].paragraphs[0].qas[0]",
            {"title": "민수", "question": "Who?", "context": "c", "answers": []},
        ),
    ]


def test_an_impossible_question_has_no_answers(tmp_path):
    plausible = [{"text": "it", "answer_start": 10}]
    impossible = question(is_impossible=True, plausible_answers=plausible)
    possible = question(id="q2", is_impossible=False)
    records = read(tmp_path, articles(impossible, question(id="q3", is_impossible=True, answers=None), possible))
    assert [record.values["answers"] for record in records] == [[], [], [{"text": "Ada", "start": 0}]]
    assert records[0].values["title"] == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{\n", "a.json:2: not JSON: it breaks off, column 1; expected one value"),
        ('{"data":\n [1,]}', "a.json:2: not JSON: "),
        ("[" * 100_000, "a.json: JSON nested too deeply"),
        ([], "a.json: list; expected an object with 'data'"),
        ({"version": "1"}, "a.json: no 'data'; the keys there are 'version'"),
        ({"data": {}}, "a.json: data is {}; expected a list"),
        ({"data": ["x"]}, "a.json: data[0]: 'x'; expected an object"),
        ({"data": [{"title": "x"}]}, "a.json: data[0]: no 'paragraphs'; the keys there are 'title'"),
        (articles(question(), title=1), "a.json: data[0]: title is 1; expected a string"),
        (articles(question(), context=None), "a.json: data[0].paragraphs[0]: context is None; expected a string"),
        (
            articles(question(), question(question=["?"])),
            "a.json: data[0].paragraphs[0].qas[1]: question is ['?']; expected a string",
        ),
        (
            articles(question(id=None)),
            "a.json: data[0].paragraphs[0].qas[0]: the id is None; expected a string or a whole number",
        ),
        (articles(question(answers=None)), "a.json: data[0].paragraphs[0].qas[0]: no 'answers'; the keys there are"),
        (
            articles(question(answers=[{"text": "Ada"}])),
            "a.json: data[0].paragraphs[0].qas[0].answers[0]: no 'answer_start'; the keys there are 'text'",
        ),
        (
            articles(question(answers=[{"text": "Ada", "answer_start": True}])),
            "a.json: data[0].paragraphs[0].qas[0].answers[0]: answer_start is True; expected a whole number",
        ),
        (
            articles(question(), question()),
            "a.json: data[0].paragraphs[0].qas[1]: the id 'q1' occurs a second time here",
        ),
        (articles(question(question="\ud83d")), "a.json: data[0].paragraphs[0].qas[0]: a lone surrogate"),
    ],
)
def test_a_mistake_is_told_with_its_path_in_the_file(tmp_path, content, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, content)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "name",
    [
        "squad_v1.1_part/squad_v1.1_part_train.json",
        "squad_v1.1_part/squad_v1.1_part_dev.json",
        "korquad1/KorQuAD_v1.0_dev.json",
    ],
)
def test_real_corpora_have_their_published_questions_and_answers(name):
    path = real(name)
    line = re.search(
        rf"{re.escape(path.name)}: .*?([\d,]+) questions, ([\d,]+) answers",
        (path.parent / "SOURCE.txt").read_text(encoding="utf-8"),
    )
    records = list(readers.read(path.parent, [path], SQUAD))
    answers = [(record.values["context"], answer) for record in records for answer in record.values["answers"]]
    assert [len(records), len(answers)] == [int(count.replace(",", "")) for count in line.groups()]
    assert all(context[answer["start"] :].startswith(answer["text"]) for context, answer in answers)
