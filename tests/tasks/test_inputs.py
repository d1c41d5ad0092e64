"""Valid inputs of a model, and the messages for invalid ones, are alike in all tasks."""

from typing import Any

import pytest

from finetrail import tasks
from finetrail.errors import UserError

GOOD = {
    "token_classification": {"tokens": ["Oslo", "grows"]},
    "masked_lm": {"text": "Oslo [MASK] ."},
    "text_classification": {"text": "Oslo grows ."},
    "question_answering": {"question": "what grows ?", "context": "Oslo grows ."},
    "retrieval": {"query": "what grows ?"},
    "text_generation": {"prompt": "Oslo"},
}


@pytest.fixture(params=tasks.names())
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ids(task: str, *inputs: dict[str, Any]) -> list[str]:
    return list(tasks.module(task, "serving").examples(list(inputs))["id"].to_pylist())


def test_an_id_is_kept_as_a_string_and_else_the_inputs_number(task: str) -> None:
    given = GOOD[task]
    assert ids(task, given, given | {"id": "mine"}, given | {"id": 7}, given) == ["0", "mine", "7", "3"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"txet": "Oslo"}, r"^input '1': unknown key 'txet'; expected id, "),
        ({"id": "mine", "label": None}, r"^input 'mine': unknown key 'label'; expected id, "),
        ({"id": None}, r"^input 1: the id is None; expected a string or a whole number$"),
        ({"id": 1.5}, r"^input 1: the id is 1.5; expected"),
    ],
)
def test_an_unknown_key_or_no_id_is_refused(task: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ids(task, GOOD[task], GOOD[task] | wrong)


def test_half_an_emoji_is_no_text(task: str) -> None:
    given = {key: value.copy() if isinstance(value, list) else value for key, value in GOOD[task].items()}
    key = next(iter(given))
    given[key] = [*given[key], "\ud83d"] if isinstance(given[key], list) else given[key] + "\ud83d"
    with pytest.raises(UserError, match=r"^input '0': a lone surrogate such as"):
        ids(task, given)


@pytest.mark.parametrize("value", [None, 3, ["Oslo"], {}])
def test_what_should_be_a_text_and_is_none_is_named(task: str, value: Any) -> None:
    key = {"token_classification": "text"}.get(task, next(iter(GOOD[task])))
    with pytest.raises(UserError, match=rf"^input 'mine': .*{key}.* ?; "):
        ids(task, (GOOD[task] if key in GOOD[task] else {}) | {"id": "mine", key: value})


def test_an_input_without_any_key_is_refused(task: str) -> None:
    with pytest.raises(UserError, match=r"^input '0': .*expected .*"):
        ids(task, {})
