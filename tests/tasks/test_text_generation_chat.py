"""Conversations through the task: settings, what is read, cut and counted, and a run from messages to a pipeline."""

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import toys
from chat_templates import CHATML, GEMMA, tokenizer
from conftest import toy_recipe
from peft import PeftModel
from pydantic import ValidationError
from test_text_generation_encoding import TOKENIZE, corpus_settings, recipe
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, pipeline

from finetrail import inference, layout
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.schema import NewSource
from finetrail.tasks.text_generation import concerns, corpus, encoding, serving
from finetrail.tasks.text_generation.settings import Tokenize, check
from stages import download_corpus, download_model, evaluate, export, report, tokenize, train

X = IGNORE_INDEX
CHAT = {"template": CHATML, "bad_conversations": "refuse"}
ALONE: dict[str, Any] = {"join_documents": False, "samples": {"prompt_tokens": None}}


def talk(*contents: str) -> list[dict[str, str]]:
    return [
        {"role": "assistant" if number % 2 else "user", "content": content} for number, content in enumerate(contents)
    ]


# --- settings -------------------------------------------------------------------------------------------------------


def of_chats(kind: str = "hub", **changes: Any) -> Any:
    made = recipe(**({"columns": ("messages",), "chat": CHAT, **ALONE} | changes))
    made.model = type("", (), {"source": type("", (), {"kind": kind})})
    return made


def test_conversations_and_prompts_have_recipes_that_agree() -> None:
    assert not list(check(of_chats()))
    assert not list(check(of_chats(columns=("prompt", "completion"))))
    assert not list(check(of_chats(chat=CHAT | {"template": None})))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chat": None}, "tokenize.chat: the corpus has messages; expected template and bad_conversations"),
        ({"template": "{prompt}"}, "tokenize.template: tokenize.chat lays out prompts"),
        ({"join_documents": True}, "a corpus with messages; expected join_documents false and remainder pad"),
        ({"samples": {}}, "prompt_tokens: the corpus has messages; expected null"),
        ({"columns": ("text",), "samples": {}}, "tokenize.chat: the corpus has no prompts; expected null"),
        ({"kind": "new", "chat": CHAT | {"template": None}}, "a new model has none of its own; expected a template"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(changed: dict[str, Any], message: str) -> None:
    assert message in "; ".join(check(of_chats(**changed)))


@pytest.mark.parametrize(("columns", "said"), [(("messages",), None), (("text",), "refuse")])
def test_bad_conversations_are_declared_for_conversations_alone(columns: tuple[str, ...], said: str | None) -> None:
    with pytest.raises(ValidationError, match="expected refuse or leave_out for a corpus with messages, null for"):
        corpus_settings(*columns, bad_conversations=said)


def test_a_path_in_place_of_a_template_is_refused() -> None:
    with pytest.raises(ValidationError, match="'my.jinja' is no template; expected Jinja .* or path and sha256"):
        Tokenize(**(TOKENIZE | {"chat": CHAT | {"template": "my.jinja"}}))


# --- corpus ---------------------------------------------------------------------------------------------------------


def read(*values: Any, bad: str = "refuse") -> tuple[list[dict[str, Any]], corpus.Counts]:
    settings = corpus_settings("messages", bad_conversations=bad)
    counts = {split: corpus.Counts() for split in layout.SPLITS}
    records = (Record(str(n), f"a.jsonl:{n + 1}", {"messages": value}) for n, value in enumerate(values))
    rows = [row for record in records for _, row in corpus.rows("train", record, settings, counts)]
    checked = corpus.checks(counts, settings)
    assert set(corpus.tables(settings)) == set(layout.SPLITS)
    assert pa.Table.from_pylist(rows, corpus.tables(settings)["train"]).to_pylist() == rows
    assert isinstance(concerns.of_corpus(checked), list)
    return rows, counts["train"]


def test_messages_are_read_as_openai_and_sharegpt_write_them() -> None:
    given = [
        {"from": "system", "value": "s"},
        {"from": "human", "value": "a"},
        {"from": "tool", "value": "t"},
        {"from": "gpt", "value": " b\n"},
    ]
    rows, counts = read(given, talk("a", "b", "c"))
    roles = ("system", "user", "tool", "assistant")
    expected = [{"role": role, "content": one["value"]} for role, one in zip(roles, given, strict=True)]
    assert rows[0] == {"id": "0", "place": "a.jsonl:1", "messages": expected}
    assert rows[1]["messages"] == talk("a", "b")
    assert (counts.examples, counts.turns, counts.turns_behind) == (2, 2, 1)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], r"\[\] is no conversation; expected a list of messages with role and content"),
        (None, "None is no conversation"),
        ("hello", "'hello' is no conversation"),
        (["hello"], r"messages\[0\] is 'hello'; expected an object with role and content"),
        ([{"role": "user"}], r"messages\[0\] has the keys 'role'; expected role and content, or from and value"),
        ([{"role": "user", "value": "a"}], r"messages\[0\] has the keys 'role', 'value'; expected"),
        ([{"role": "bot", "content": "a"}], r"messages\[0\] has the role 'bot'; expected one of system, user"),
        ([{"role": ["user"], "content": "a"}], r"messages\[0\] has the role \['user'\]; expected one of"),
        (talk("a", " \n"), r"the content of messages\[1\] is empty; expected text"),
        ([{"from": "human", "value": None}], r"the value of messages\[0\] is empty; expected text"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"the content of messages\[0\] is \[\{'type': 'text'\}\]"),
        ([{"role": "user", "content": 3}], r"the content of messages\[0\] is 3; expected text"),
        (talk("a"), "no turn of the assistant; expected one to learn from"),
        ([*talk("a"), {"role": "assistant", "content": "", "tool_calls": [1]}], r"messages\[1\] has tool_calls, which"),
    ],
)
def test_a_bad_conversation_is_told_in_one_line_or_counted(value: Any, reason: str) -> None:
    with pytest.raises(
        UserError, match=rf"^a.jsonl:2: example '1': {reason}.*; or corpus.bad_conversations: leave_out$"
    ):
        read(talk("a", "b"), value)
    rows, counts = read(talk("a", "b"), value, value, bad="leave_out")
    assert (len(rows), counts.examples, counts.bad_conversations) == (1, 1, 2)
    assert counts.first_bad["place"] == "a.jsonl:2: example '1'"


def test_what_is_not_read_or_left_out_is_told() -> None:
    messages = [{**message, "name": "Ada", "weight": None} for message in talk("a", "b", "c")]
    settings = corpus_settings("messages", bad_conversations="leave_out")
    counts = {split: corpus.Counts() for split in layout.SPLITS}
    for number, value in enumerate((messages, messages, [])):
        list(corpus.rows("train", Record(str(number), "a.jsonl:9", {"messages": value}), settings, counts))
    checks = corpus.checks(counts, settings)
    assert [*map(str, concerns.of_corpus(checks))] == [
        "train: conversations left out: 1, the first: a.jsonl:9: example '2': [] is no conversation; expected a list "
        "of messages with role and content",
        "train: messages with 'name', which is not read: 6",
        "train: turns after the assistant's last one, left out: 2",
        "train: examples that repeat an earlier one of their split: 1",
    ]
    assert checks["splits"]["train"]["duplicates"] == 1
    assert corpus.summary(counts["train"], settings) == "2 conversations, 2 turns of the assistant, 4 characters"


# --- features -------------------------------------------------------------------------------------------------------


def table(*talks: Any) -> pa.Table:
    rows = [{"id": str(n), "place": f"a.jsonl:{n + 1}", "messages": one} for n, one in enumerate(talks)]
    return pa.Table.from_pylist(rows, corpus.CONVERSATIONS)


def encode(
    tokens: Any, examples: pa.Table, size: int = 200, **chat: Any
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    chosen = Tokenize(
        **(TOKENIZE | {"block_size": size, "join_documents": False, "chat": CHAT | {"template": None} | chat})
    )
    encoder = encoding.Encoder(tokens, encoding.target(iter([]), chosen), chosen)
    rows: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    for features, counted in encoder.encode_table("train", iter([(np.arange(len(examples)), examples)])):
        assert features.schema == encoding.FEATURES
        rows += features.to_pylist()
        counts = {key: counts.get(key, 0) + counted.get(key, 0) for key in {**counts, **counted}}
    return rows, counts


@pytest.fixture(scope="module")
def tokens() -> Any:
    return tokenizer(CHATML, eos="<|im_end|>")


LONG = talk("the cat sat " * 4, "on the mat", "What is it? " * 4, "It is a dog!")


def test_a_long_chat_keeps_its_last_turn_and_the_end_before_it(tokens: Any) -> None:
    [whole], counts = encode(tokens, table(LONG))
    assert (counts["examples_truncated"], counts.get("earlier_turns_tokens_truncated", 0)) == (0, 0)
    answer = [label for label in whole["labels"] if label != X]
    first = whole["labels"].index(answer[0])
    last = len(whole["labels"]) - whole["labels"][::-1].index(X)  # where the last turn begins
    size = len(whole["labels"]) - first - 2  # of the first turn, two tokens are lost, and the third has none before it

    [cut], counts = encode(tokens, table(LONG), size)

    assert cut["input_ids"] == whole["input_ids"][-size:]
    assert cut["labels"] == [X, *whole["labels"][-size + 1 :]]
    assert (counts["examples_truncated"], counts["tokens_truncated"]) == (1, first + 2)
    assert counts["earlier_turns_tokens_truncated"] == 2
    assert cut["bytes"] == len(b"on the mat") + len("It is a dog!") - len(tokens.decode(answer[:3]).encode())

    [least], counts = encode(tokens, table(LONG), 4)
    assert least["input_ids"] == whole["input_ids"][last - 1 : last + 3]
    assert least["labels"] == [X, *whole["input_ids"][last : last + 3]]
    assert counts["completions_truncated"] == 1


def test_pairs_are_conversations_of_two_turns(tokens: Any) -> None:
    pairs = pa.table([["0"], ["What is it?"], ["a dog"]], schema=corpus.SCHEMA)
    found, _ = encode(tokens, pairs)
    assert found == encode(tokens, table(talk("What is it?", "a dog")))[0]


def test_template_refusals_are_reported_with_place_or_counted() -> None:
    gemma = tokenizer(GEMMA, "<bos>", eos="<end_of_turn>")
    talks = table(talk("a", "b"), talk("a", "b")[1:], talk("c", "d"))
    message = r"^a.jsonl:2: example '1': the chat template refuses it: Conversation roles must alternate.*: leave_out$"
    with pytest.raises(UserError, match=message):
        encode(gemma, talks)
    rows, counts = encode(gemma, talks, bad_conversations="leave_out")
    assert [row["example"] for row in rows] == [0, 2]
    assert (counts["examples"], counts["conversations_left_out"]) == (3, 1)


def test_messages_to_a_model_that_learned_no_chats_are_refused(tokens: Any) -> None:
    chosen = Tokenize(**(TOKENIZE | {"block_size": 64}))
    encoder = encoding.Encoder(tokens, encoding.target(iter([]), chosen), chosen)
    asked = serving.examples([{"prompt": "a"}, {"messages": talk("a")}])
    with pytest.raises(UserError, match="messages: the model was not trained with tokenize.chat; expected a prompt"):
        list(encoder.encode_table("test", iter([(np.arange(2), asked)])))


# --- the template and the token that ends a turn --------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 with a chat template whose tokenizer names another token for the end of a text."""
    folder = tmp_path_factory.mktemp("base")
    made = tokenizer(CHATML)
    made.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 128, "bos_token_id": 0, "eos_token_id": 0}
        GPT2LMHeadModel(GPT2Config(vocab_size=len(made), **sizes)).save_pretrained(folder)
    return folder


def load(folder: Path, **changes: Any) -> Any:
    chat = {"template": None, "bad_conversations": "refuse"} | changes.pop("chat", {})
    return encoding.load_tokenizer(
        folder, Tokenize(**(TOKENIZE | {"block_size": 64, "chat": chat} | changes)), lambda: iter(())
    )


def test_the_token_that_ends_a_turn_becomes_the_end_of_text(base: Path) -> None:
    assert load(base).eos_token == "<|im_end|>"
    assert load(base, chat={"template": GEMMA}).eos_token == "<end_of_turn>"
    assert load(base, eos_token="<|im_end|>").chat_template == CHATML
    with pytest.raises(UserError, match=r"eos_token: '</s>', but the chat template ends a turn with '<\|im_end\|>'"):
        load(base, eos_token="</s>")


def test_a_template_in_a_file_is_pinned_by_its_hash(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "gemma.jinja"
    file.write_text(GEMMA)
    declared = {"path": str(file), "sha256": sha256(GEMMA.encode()).hexdigest()}
    loaded = load(base, chat={"template": declared})
    assert loaded.chat_template == GEMMA
    with pytest.raises(UserError, match=f"gemma.jinja: its sha256 is {declared['sha256']}; expected .*{'0' * 64}$"):
        load(base, chat={"template": declared | {"sha256": "0" * 64}})
    for content, problem in ((b"\xff{", "byte 0 is not UTF-8"), (b"{{ 1 }}\r\n", "lines that end with")):
        file.write_bytes(content)
        with pytest.raises(UserError, match=f"gemma.jinja: {problem}"):
            load(base, chat={"template": declared | {"sha256": sha256(content).hexdigest()}})
    file.unlink()
    with pytest.raises(UserError, match="gemma.jinja is missing; expected a file with a chat template"):
        load(base, chat={"template": declared})
    loaded.save_pretrained(tmp_path / "saved")  # where the file is not needed any more
    (tmp_path / "saved/config.json").write_bytes((base / "config.json").read_bytes())
    assert load(tmp_path / "saved", chat={"template": declared}).chat_template == GEMMA


def test_a_model_without_a_usable_chat_template_is_refused(base: Path, tmp_path: Path) -> None:
    tokenizer(None).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    with pytest.raises(UserError, match="tokenize.chat.template: the base model has no chat template; expected a"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"^tokenize.chat: the template cannot be used: no special token of the vocab"):
        load(base, chat={"template": "{% for m in messages %}{{ m.content }}{% endfor %}"})


# --- a whole run ----------------------------------------------------------------------------------------------------

STAGES = (download_corpus, download_model, tokenize, train, evaluate, export, report)


@pytest.fixture(scope="module")
def project(
    base: Path, make_project: Callable[[Path], Path], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A project that has run once through all stages on 40 conversations of four turns."""
    parent = tmp_path_factory.mktemp("chat")
    folder = make_project(parent)
    made = toys.write("text_generation", toy_recipe(parent, tiny_checkpoint), ["a b c"], parent)
    talks = [{"conversations": talk(f"What is {n}?", f"It is {n}!", "the cat", f"sat on {n}")} for n in range(40)]
    (parent / "toy.jsonl").write_text("\n".join(map(json.dumps, talks)))
    made["corpus"] |= {"bad_conversations": "refuse"}
    made["corpus"]["reader"] = {"format": "jsonl", "columns": {"messages": "conversations"}, "encoding": "utf-8"}
    made["model"]["source"] = {"kind": "file", "path": str(base), "sha256": None}
    made["tokenize"] |= {"template": None, "chat": {"template": None, "bad_conversations": "refuse"}, "block_size": 128}
    lora = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": None, "keep": True, "quantize": None}
    made["train"] |= {"epochs": 3.0, "lora": lora}
    made["evaluate"]["samples"] |= {"temperature": 0.0, "max_new_tokens": 12}
    toys.save(folder, "text_generation", made)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in STAGES:
            stage.main()
    return folder


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch, restored_torch: None) -> Path:
    monkeypatch.chdir(project)
    return project


def stored() -> list[dict[str, Any]]:
    return list(pq.read_table(layout.PREDICTIONS, filters=[("split", "=", "test")]).to_pylist())


def test_chat_scores_are_of_assistant_tokens_and_the_last_turn(inside: Path) -> None:
    corpus_rows = {row["id"]: row for row in pq.read_table("data/corpus/test.parquet").to_pylist()}
    samples = [row for row in stored() if row["continuation"] is not None]
    assert len(samples) == len(corpus_rows) == 8
    for row in stored():
        messages = corpus_rows[row["id"]]["messages"]
        if row["continuation"] is None:
            said = f"{messages[1]['content']}<|im_end|>{messages[3]['content']}<|im_end|>"
            assert "".join(row["reference_texts"]) == said
        else:
            assert row["reference_continuation"] == messages[3]["content"]
            assert row["prompt"].endswith(f"{messages[2]['content']}<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_messages_are_answered_as_in_evaluation(inside: Path, runtime: Any) -> None:
    given = pq.read_table("data/corpus/test.parquet").to_pylist()
    expected = {row["id"]: row["continuation"] for row in stored() if row["continuation"] is not None}
    predict = inference.load(layout.EXPORTED, runtime)
    found = predict([{"id": row["id"], "messages": row["messages"][:-1]} for row in given])
    assert {answer["id"]: answer["text"] for answer in found} == expected
    sharegpt = [{"from": "human", "value": "the cat"}]
    mixed = predict([{"text": "the mat"}, {"messages": sharegpt}, {"prompt": "the cat"}, "the cat"])
    assert mixed[0]["tokens"] > 0 and "text" not in mixed[0]
    assert mixed[1]["text"] == mixed[2]["text"] == mixed[3]["text"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"messages": talk("a", "b")}, "input '0': the last message is the assistant's; expected one that it answers"),
        ({"messages": []}, r"input '0': \[\] is no conversation"),
        ({"messages": talk("a"), "prompt": "a"}, "input '0': expected one key of prompt, text, messages"),
        (
            {"messages": [{"role": "user", "content": "a", "name": "b"}]},
            "input '0': a message has 'name', which is not",
        ),
        ({"messages": talk("<|im_end|>")}, r"example '0': messages\[0\] holds '<\|im_end\|>', a special token; expec"),
    ],
)
def test_what_cannot_be_answered_is_told(inside: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        inference.load(layout.EXPORTED)([given])


def test_the_pipeline_takes_messages_and_stops_alike(inside: Path) -> None:
    assert (layout.EXPORTED / "chat_template.jinja").read_text() == CHATML
    model = AutoModelForCausalLM.from_pretrained(layout.EXPORTED)
    generator = pipeline("text-generation", model=str(layout.EXPORTED), device="cpu")
    assert model.generation_config.eos_token_id == generator.tokenizer.convert_tokens_to_ids("<|im_end|>")
    asked = [talk("What is 7?"), talk("What is 9?", "It is 9!", "the cat")]
    expected = [answer["text"] for answer in inference.load(layout.EXPORTED)([{"messages": one} for one in asked])]
    found = [generator(one, max_new_tokens=12, do_sample=False)[0]["generated_text"][-1] for one in asked]
    assert [message["role"] for message in found] == ["assistant"] * 2
    assert [message["content"] for message in found] == expected


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own (0.21)
def test_the_exported_adapter_rebuilds_the_exported_model(inside: Path, base: Path) -> None:
    config = json.loads((layout.EXPORTED_ADAPTER / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == json.loads(layout.MODEL_PROVENANCE.read_text())["name"]
    ids = torch.tensor([[5, 20, 21, 22]])
    plain, exported = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (base, layout.EXPORTED))
    with torch.inference_mode():
        before, expected = plain(ids).logits, exported(ids).logits
        found = PeftModel.from_pretrained(plain, layout.EXPORTED_ADAPTER)(ids).logits
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(before, expected, atol=1e-2)
    assert "folder `adapter`" in (layout.EXPORTED / "README.md").read_text()


def test_the_card_shows_messages(inside: Path) -> None:
    text = (layout.EXPORTED / "README.md").read_text()
    assert 'generator([{"role": "user", "content": "Hello!"}]' in text
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")


def test_a_new_models_tokenizer_learns_from_what_is_said(tmp_path: Path) -> None:
    assert NewSource.model_fields  # kind: new
    texts = encoding._texts(lambda: iter([table(talk("a b", "c d"), talk("e", "f"))]))
    assert list(texts) == ["a b", "c d", "e", "f"]
