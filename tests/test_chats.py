"""Conversations to tokens and labels: over the families of chat templates, against marks, and what is refused."""

import resource
import signal
from typing import Any

import pytest
from chat_templates import CHATML, FAMILIES, GEMMA, LLAMA3, MARKED, UNMARKED, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from finetrail.encoding import chats
from finetrail.labels import IGNORE_INDEX

Messages = list[dict[str, str]]


def talk(*contents: str, system: str | None = None) -> Messages:
    """Return a conversation of the user and the assistant in turn."""
    roles = ("user", "assistant")
    turns = [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system else []) + turns


def made(name: str, **options: Any) -> Any:
    template, end, bos = FAMILIES[name]
    return tokenizer(template, bos, eos=end, **options)


def fail(number: int, reason: str) -> None:
    raise chats.Refused(reason)


def learned(tokens: Any, messages: Messages) -> tuple[str, list[str]]:
    """Return the text of all tokens of a conversation, and that of each run of labels."""
    [encoded] = chats.Encoder(tokens).encode([messages], fail)
    assert encoded is not None
    ids, labels = encoded
    runs: list[list[int]] = []
    for before, (token, label) in zip([IGNORE_INDEX, *labels], zip(ids, labels, strict=True), strict=False):
        assert label in (token, IGNORE_INDEX)
        if label != IGNORE_INDEX:
            if before == IGNORE_INDEX:
                runs.append([])
            runs[-1].append(token)
    assert labels[-1] == ids[-1]  # text after the last turn is left out
    return tokens.backend_tokenizer.decode(ids, skip_special_tokens=False), [
        tokens.backend_tokenizer.decode(run, skip_special_tokens=False) for run in runs
    ]


CONTENTS = ["What is it?", "It is a dog!", "the cat", "sat on 안녕 😀", "and then", "the\n\nmat. "]


@pytest.mark.parametrize("kind", ["bytes", "blanks"])
@pytest.mark.parametrize("name", FAMILIES)
def test_assistant_turns_and_their_ends_alone_are_learned(name: str, kind: str) -> None:
    tokens = made(name, kind=kind)
    end = FAMILIES[name][1]
    whole = tokens.apply_chat_template(talk(*CONTENTS), tokenize=False)
    text, runs = learned(tokens, talk(*CONTENTS))

    contents = [content.strip() if name in ("llama3", "gemma") else content for content in CONTENTS[1::2]]
    if name == "qwen3":
        contents[-1] = f"<think>\n\n</think>\n\n{contents[-1]}"  # which the model is to write itself
    assert [run.lstrip(" ") for run in runs] == [content + end for content in contents]
    if kind == "bytes":
        assert whole.removesuffix("\n") == text


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tokens_are_transformers_up_to_the_last_turns_end(name: str) -> None:
    tokens = made(name)
    whole = tokens.apply_chat_template(talk(*CONTENTS), return_dict=True)["input_ids"]
    [encoded] = chats.Encoder(tokens).encode([talk(*CONTENTS)], fail)
    assert encoded is not None
    ids = encoded[0]
    assert whole[: len(ids)] == ids and len(whole) - len(ids) <= 1  # the line end


WORDS = st.text("abc .,!?éü안😀\n\t<>|{}%", min_size=1, max_size=12).filter(lambda text: bool(text.strip()))


@settings(max_examples=80)
@given(st.lists(WORDS, min_size=2, max_size=7), st.booleans())
def test_spans_are_those_of_the_marks_and_of_transformers(contents: list[str], system: bool) -> None:
    messages = talk(*contents, system="be brief" if system else None)
    if messages[-1]["role"] == "user":
        messages = messages[:-1]
    marked, unmarked = tokenizer(MARKED, eos="<|im_end|>"), tokenizer(UNMARKED, eos="<|im_end|>")
    by_marks, by_spans = (chats.Encoder(one).encode([messages], fail) for one in (marked, unmarked))
    assert by_marks == by_spans and by_spans[0] is not None
    found = marked.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    ids, labels = by_spans[0]
    assert found["input_ids"][: len(ids)] == ids
    mask = [int(label != IGNORE_INDEX) for label in labels]
    if not any(message["content"][0].isspace() for message in messages):  # see below
        assert found["assistant_masks"][: len(ids)] == mask


def test_two_marks_in_a_turn_are_one_turn() -> None:
    twice = MARKED.replace(
        "'<|im_end|>' -}}{%- endgen", "'' -}}{%- endgeneration -%}{%- generation -%}{{- '<|im_end|>' -}}{%- endgen", 1
    )
    assert twice != MARKED
    assert learned(tokenizer(twice, eos="<|im_end|>"), talk("a", "b"))[1] == ["b<|im_end|>"]


def test_a_token_that_begins_in_the_header_is_not_learned() -> None:
    """transformers' mask has it; but a model that answers has the header as its own tokens before it."""
    tokens = tokenizer(MARKED, eos="<|im_end|>")
    assert len(tokens.tokenize("\n\n")) == 1  # the header's line end, and the first one of the content
    text, runs = learned(tokens, talk("a", "\n\nb"))
    assert text.endswith("assistant\n\n\nb<|im_end|>") and runs == ["\nb<|im_end|>"]


def test_a_token_of_header_and_turn_is_refused() -> None:
    template = CHATML.replace("message['role'] + '\n'", "message['role'] + ': '").replace("assistant\n", "assistant: ")
    tokens = tokenizer(template, eos="<|im_end|>")
    with pytest.raises(chats.Refused, match="one token, ' cat', is the end of the header and the beginning of the"):
        learned(tokens, talk("a", "cat"))


def test_earlier_thoughts_are_left_out_later_answers_learned() -> None:
    thought = "<think>\nI know.\n</think>\n\nYes"
    text, runs = learned(made("qwen3"), talk("a?", thought, "b?", thought))
    assert runs == ["Yes<|im_end|>", f"{thought}<|im_end|>"]
    assert text.count("I know") == 1


def test_thoughts_that_vanish_between_turns_are_refused() -> None:
    messages = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nI look it up"},
        {"role": "tool", "content": "found"},
        {"role": "assistant", "content": "It is b"},
        {"role": "user", "content": "c?"},
        {"role": "assistant", "content": "d"},
    ]
    with pytest.raises(chats.Refused, match=r"before messages\[3\] differently when it asks for that answer"):
        learned(made("qwen3"), messages)
    assert learned(made("qwen3"), messages[:4])[1][-1].endswith("It is b<|im_end|>")


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        (GEMMA, talk("a", "b", system="c"), "the chat template refuses it: System role not supported"),
        (GEMMA, talk("a", "b")[1:], "the chat template refuses it: Conversation roles must alternate"),
        (LLAMA3, talk("a", "say <|eot_id|> to me"), r"messages\[1\] holds '<\|eot_id\|>', a special token"),
        (
            CHATML.replace("message['content']", "'no'"),
            talk("a", "b"),
            r"makes 'no<\|im_end\|>' of the content of mess",
        ),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", talk("a", "b"), "does not end the assistant's turn 0"),
        ("{% for m in messages %}", talk("a", "b"), "the chat template refuses it: Unexpected end of template"),
        ("{{ messages.__class__.__mro__ }}", talk("a", "b"), "the chat template refuses it: access to attribute"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", talk("a", "b"), "maximum recursion depth"),
    ],
)
def test_what_cannot_be_learned_is_refused_with_the_reason(template: str, messages: Messages, reason: str) -> None:
    end = next((end for end in ("<|eot_id|>", "<end_of_turn>", "<|im_end|>") if end in template), "<|im_end|>")
    tokens = tokenizer(template, "<|begin_of_text|>", eos=end)
    with pytest.raises(chats.Refused, match=reason):
        learned(tokens, messages)


def test_a_template_that_does_not_come_to_an_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "SECONDS", 0.2)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(chats.Refused, match="the chat template refuses it: it takes more than 0.2 seconds"):
        learned(tokenizer(loop + CHATML, eos="<|im_end|>"), talk("a", "b"))
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_template_that_writes_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "CHARACTERS", 100)
    with pytest.raises(chats.Refused, match="makes 1,120 characters of it; expected at most 100"):
        learned(tokenizer("{{ 'a' * 1000 }}" + CHATML, eos="<|im_end|>"), talk("a", "b"))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_token_that_ends_a_turn_is_found_in_the_template(name: str) -> None:
    assert chats.Template.of(made(name)).end_of_turn() == FAMILIES[name][1]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (CHATML.replace("<|im_end|>", "."), "no special token of the vocabulary ends the assistant's turn"),
        ("{{ strftime_now('%Y') }}" + CHATML, "writes today's date"),
    ],
)
def test_a_template_that_serves_no_conversation_is_refused(template: str, reason: str) -> None:
    with pytest.raises(chats.Refused, match=reason):
        chats.Template.of(tokenizer(template)).end_of_turn()


def test_a_prompt_of_a_chat_ends_with_the_assistant_header() -> None:
    for name in FAMILIES:
        tokens = made(name)
        [encoded] = chats.Encoder(tokens).encode([talk("a", "b", "c")], fail)
        assert encoded is not None and set(encoded[1]) == {IGNORE_INDEX}
        assert encoded[0] == tokens.apply_chat_template(talk("a", "b", "c"), add_generation_prompt=True)["input_ids"]


def test_what_is_refused_is_left_out_where_the_caller_takes_it() -> None:
    told: list[tuple[int, str]] = []
    talks = [talk("a", "b"), talk("a", "b", system="c"), talk("d", "e")]
    found = chats.Encoder(made("gemma")).encode(talks, lambda number, reason: told.append((number, reason)))
    assert [encoded is None for encoded in found] == [False, True, False]
    assert told == [(1, "the chat template refuses it: System role not supported")]


@pytest.mark.parametrize("repeated", ["{{ 'x' * 3000000000 }}", "{{ ('x' * 30000) * 100000 }}"])
def test_a_template_that_takes_all_memory_is_stopped(repeated: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(chats.Refused, match="the chat template refuses it: MemoryError"):
        learned(tokenizer(repeated + CHATML, eos="<|im_end|>"), talk("a", "b"))
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_template_that_computes_a_huge_number_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "SECONDS", 0.2)
    with pytest.raises(chats.Refused, match="the chat template refuses it: it takes more than 0.2 seconds"):
        learned(tokenizer("{% set n = 3 %}{% set m = n ** 99999999 %}" + CHATML, eos="<|im_end|>"), talk("a", "b"))
