"""The recipes of text generation: against a stand-in Hub, a web server, toy files, and the real corpus if present."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chat_templates
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import real
from datasets import Features, Value
from hub_server import StandInHub, write_parquet
from recipe_projects import download
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaForCausalLM

from finetrail import params, schema
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.text_generation import encoding, modeling

ROOT = Path(__file__).parents[2]
RECIPES = Path("recipes/text_generation")
NAMES = (
    "bbc",
    "bring-your-own-chat",
    "bring-your-own-prompts",
    "chatbot-ko",
    "chatbot-ko-files",
    "gpt2",
    "kogpt2",
)
PULL_REQUEST = "refs/pr/3"

# --- what the Hub has -----------------------------------------------------------------------------------------------

ARTICLE = [" = Robert Boulter = \n", "", " Robert Boulter is an English film , television and theatre actor . \n", ""]
COMMENTS = ["굳 ㅋ", None, "뭐야 이 평점들은.... 나쁘진 않지만 10점 짜리는 더더욱 아니잖아", "재미없다"]
CHATS = [("12시 땡!", "하루가 또 가네요."), ('"안녕", 하고', "안녕하세요."), ("여행 가고 싶다", "여행은 언제나 좋죠.")]
WIKITEXT_CARD = """---
license:
- cc-by-sa-3.0
- gfdl
configs:
- config_name: wikitext-2-raw-v1
  data_files:
  - split: test
    path: wikitext-2-raw-v1/test-*
  - split: train
    path: wikitext-2-raw-v1/train-*
  - split: validation
    path: wikitext-2-raw-v1/validation-*
---
"""


def write_corpora(root: Path) -> None:
    wikitext, nsmc = root / "Salesforce/wikitext", root / "e9t/nsmc"
    for split in ("train", "validation", "test"):
        path = wikitext / f"wikitext-2-raw-v1/{split}-00000-of-00001.parquet"
        write_parquet(path, [{"text": line} for line in ARTICLE], Features({"text": Value("string")}))
    (wikitext / "README.md").write_text(WIKITEXT_CARD, encoding="utf-8")
    features = Features({"id": Value("string"), "document": Value("string"), "label": Value("int64")})
    for split, count in (("train", 40), ("test", 8)):
        rows = [{"id": str(9000 + row), "document": COMMENTS[row % 4], "label": row % 2} for row in range(count)]
        write_parquet(nsmc / f"default/{split}/0000.parquet", rows, features)


def write_gpt2(folder: Path) -> None:
    """Write the files that openai-community/gpt2 has, whose weights lack the prefix of a language model."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(ARTICLE, trainer)
    backend.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=True)])  # the last, as there
    folder.mkdir(parents=True)
    backend.save(str(folder / "tokenizer.json"))
    backend.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    write_model(folder, backend.get_vocab_size(), backend.token_to_id("<|endoftext|>"), "mit", {"n_ctx": 1024})


def write_kogpt2(folder: Path) -> None:
    """Write the files of the pull request: a tokenizer.json alone, with pieces like ▁a and tokens for dialogues."""
    specials = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>"]
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=specials, show_progress=False)
    texts = [text for pair in CHATS for text in pair] + [text for text in COMMENTS if text]
    backend.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True)
    backend.save(str(folder / "tokenizer.json"))
    ids = {"bos_token_id": 0, "pad_token_id": 3, "author": "Heewon Jeon", "license": "CC-BY-NC-SA 4.0"}
    write_model(folder, backend.get_vocab_size(), 1, "cc-by-nc-sa-4.0", ids, "transformer.")


def write_smollm(folder: Path) -> None:
    """Write a small chat model: a Llama, whose tokenizer ends a turn and has the template in a file of its own."""
    made = chat_templates.tokenizer(chat_templates.CHATML, "<|im_start|>", eos="<|im_end|>")
    made.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(made),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")


def write_model(folder: Path, size: int, eos: int, license: str, more: dict[str, Any], prefix: str = "") -> None:
    config = GPT2Config(vocab_size=size, n_layer=2, n_head=2, n_embd=16, bos_token_id=eos, eos_token_id=eos)
    model = GPT2Model(config)
    weights = {prefix + name: tensor.clone() for name, tensor in model.state_dict().items()}
    for layer in range(2):  # the masks that old releases of transformers saved
        weights[f"{prefix}h.{layer}.attn.bias"] = torch.ones(1, 1, 4, 4).tril()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    settings = config.to_diff_dict() | {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]} | more
    (folder / "config.json").write_text(json.dumps(settings | {"task_specific_params": {"text-generation": {}}}))
    (folder / "README.md").write_text(f"---\nlicense: {license}\n---\n")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle, never fetched")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInHub]:
    root = tmp_path_factory.mktemp("hub")
    write_corpora(root / "datasets")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_gpt2(root / "models/openai-community/gpt2")
        write_kogpt2(root / "models/skt/kogpt2-base-v2")
        write_smollm(root / "models/HuggingFaceTB/SmolLM2-135M-Instruct")
    with StandInHub(root, refs=("refs/convert/parquet", PULL_REQUEST)) as server:
        yield server


# --- projects -------------------------------------------------------------------------------------------------------


@pytest.fixture
def start(make_project: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return the function that makes a project of a recipe, its source changed in places, and enters it."""

    def make(recipe: str, **source: Any) -> Path:
        folder = make_project(tmp_path)
        for path, section, changes in (
            (folder / "params.yaml", None, {"task": "text_generation", "recipe": recipe}),
            (folder / RECIPES / f"{recipe}.yaml", "corpus", source),
        ):
            yaml = YAML()
            content = yaml.load(path)
            (content[section]["source"] if section else content).update(changes)
            yaml.dump(content, path)
        monkeypatch.chdir(folder)
        return folder

    return make


def rows(split: str) -> list[dict[str, Any]]:
    return pq.read_table(f"data/corpus/{split}.parquet").to_pylist()


def sizes() -> list[int]:
    return [len(rows(split)) for split in ("train", "validation", "test")]


def recipe(name: str) -> Any:
    return params.load_recipe("text_generation", name)


def encode(name: str, most: int | None = None) -> tuple[Any, list[dict[str, Any]]]:
    """Encode train as the recipe says; return the tokenizer and the features."""
    table, chosen = pq.read_table("data/corpus/train.parquet")[:most], recipe(name).tokenize
    tokenizer = encoding.load_tokenizer(Path("data/model/tokenizer"), chosen, lambda: iter([table]))
    encoder = encoding.Encoder(tokenizer, encoding.target(iter([table]), chosen), chosen)
    parts = encoder.encode_table("train", iter([(np.arange(len(table)), table)]))
    return tokenizer, [row for part, _ in parts for row in part.to_pylist()]


def test_every_recipe_is_run_here() -> None:
    assert sorted(path.stem for path in params.layout.recipe_files(ROOT, RECIPES.name)) == sorted(NAMES)


def test_bbc_is_embedded_and_its_model_is_new(start: Callable[..., Path]) -> None:
    folder = start("bbc")
    corpus, base = download(folder, "corpus", "model")
    assert corpus["sha256"] == recipe("bbc").corpus.source.sha256
    assert sizes() == [1604, 200, 200]
    assert rows("train")[0]["prompt"] is None and "£" in "".join(row["text"] for row in rows("train"))
    assert base["kind"] == "new"
    tokenizer, features = encode("bbc", most=60)
    assert {len(row["input_ids"]) for row in features[:-1]} == {128}
    assert isinstance(recipe("bbc").model.source, schema.NewSource)
    model = modeling.build_model(Path("data/model/weights"), None, None, None)  # type: ignore[arg-type]
    assert len(tokenizer) == model.config.vocab_size == 4000
    assert tokenizer.decode(features[0]["input_ids"]).startswith(rows("train")[0]["text"][:100])


def test_wikitext_goes_through_gpt2(start: Callable[..., Path], hub: StandInHub) -> None:
    folder = start("gpt2")
    corpus, base = download(folder, "corpus", "model", hub=hub)
    assert (corpus["name"], corpus["source"]["config"]) == ("Salesforce/wikitext", "wikitext-2-raw-v1")
    assert [row["text"] for row in rows("test")] == [line for line in ARTICLE if line]
    assert base["resolved"] == {"commit": hub.commit("model", "openai-community/gpt2")}
    tokenizer, features = encode("gpt2")
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.decode(features[0]["input_ids"]) == "<|endoftext|>".join([ARTICLE[0], ARTICLE[2], ""])
    weights = load_file(hub.folder("model", "openai-community/gpt2") / "model.safetensors")
    model = modeling.build_model(Path("data/model/weights"), None, None, None)  # type: ignore[arg-type]
    assert torch.equal(model.transformer.h[1].attn.c_attn.weight, weights["h.1.attn.c_attn.weight"])
    assert torch.equal(model.lm_head.weight, weights["wte.weight"])


def test_nsmcs_texts_go_through_kogpt2s_own_tokenizer(start: Callable[..., Path], hub: StandInHub) -> None:
    folder = start("kogpt2")
    corpus, provenance = download(folder, "corpus", "model", hub=hub)
    assert corpus["license"] == "cc0-1.0"
    assert sizes() == [29, 1, 6]  # those without a text are left out
    assert (provenance["license"], provenance["source"]["revision"]) == ("cc-by-nc-sa-4.0", PULL_REQUEST)
    tokenizer, features = encode("kogpt2")
    tokens = tokenizer.convert_ids_to_tokens(features[0]["input_ids"])
    assert tokens[0].startswith("▁") and "</s>" in tokens and "<unk>" not in tokens
    weights = load_file(hub.folder("model", "skt/kogpt2-base-v2") / "model.safetensors")
    model = modeling.build_model(Path("data/model/weights"), None, None, None)  # type: ignore[arg-type]
    assert torch.equal(model.transformer.wpe.weight, weights["transformer.wpe.weight"])


def test_a_chatbot_learns_answers_between_kogpt2_dialogue_tokens(
    start: Callable[..., Path], web: tuple[Path, str], hub: StandInHub
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([("Q", "A", "label"), *((*CHATS[row % 3], row) for row in range(40))])
    served, url = web
    (served / "ChatbotData.csv").write_bytes(text.getvalue().encode())
    folder = start("chatbot-ko", urls=[f"{url}/ChatbotData.csv"], sha256=None)
    corpus, _ = download(folder, "corpus", "model", hub=hub)
    assert corpus["license"] == "mit"
    assert sizes() == [36, 2, 2]
    assert {(row["prompt"], row["text"]) for row in rows("train")} == set(CHATS)
    tokenizer, features = encode("chatbot-ko")
    tokens = tokenizer.convert_ids_to_tokens(features[0]["input_ids"])
    assert (tokens[0], tokens[-1], tokens.count("<usr>"), tokens.count("<sys>")) == ("<usr>", "</s>", 1, 1)
    learned = [label for label in features[0]["labels"] if label != IGNORE_INDEX]
    assert tokenizer.decode(learned[:-1]) == rows("train")[0]["text"] and learned[-1] == tokenizer.eos_token_id


def test_the_chatbot_corpus_is_the_one_that_the_recipe_pins(start: Callable[..., Path]) -> None:
    given = real("ko_chatbot/ChatbotData.csv")
    folder = start("chatbot-ko", urls=[given.as_uri()])  # the pinned sha256 stays
    download(folder, "corpus")
    assert sizes() == [10_641, 591, 591]
    assert rows("train")[0]["prompt"] == "12시 땡!"


def test_prompts_of_ones_own_need_one_file(start: Callable[..., Path], hub: StandInHub) -> None:
    folder = start("bring-your-own-prompts")
    given = folder / "corpora/mine"
    given.mkdir(parents=True)
    lines = (json.dumps({"prompt": f"{number} + 1?", "completion": f"{number + 1}."}) for number in range(20))
    (given / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    download(folder, "corpus", "model", hub=hub)
    assert sizes() == [16, 2, 2]
    tokenizer, features = encode("bring-your-own-prompts")
    first = rows("train")[0]
    assert tokenizer.decode(features[0]["input_ids"]) == f"{first['prompt']}\n{first['text']}<|endoftext|>"
    learned = [label for label in features[0]["labels"] if label != IGNORE_INDEX]
    assert tokenizer.decode(learned) == f"{first['text']}<|endoftext|>"


def test_conversations_of_ones_own_need_one_file(start: Callable[..., Path], hub: StandInHub) -> None:
    folder = start("bring-your-own-chat")
    given = folder / "corpora/mine"
    given.mkdir(parents=True)
    lines = [
        {"messages": [{"from": "human", "value": f"{number} + 1?"}, {"from": "gpt", "value": f"{number + 1}."}] * 2}
        for number in range(20)
    ]
    (given / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    download(folder, "corpus", "model", hub=hub)
    assert sizes() == [16, 2, 2]
    tokenizer, features = encode("bring-your-own-chat")
    question, answer = (message["content"] for message in rows("train")[0]["messages"][:2])
    turns = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>"
    system = "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n"
    assert tokenizer.decode(features[0]["input_ids"]) == f"{system}{turns}\n{turns}"
    learned = [label for label in features[0]["labels"] if label != IGNORE_INDEX]
    assert tokenizer.decode(learned) == f"{answer}<|im_end|>" * 2
    model = modeling.build_model(Path("data/model/weights"), None, None, None)  # type: ignore[arg-type]
    assert model.config.model_type == "llama"


def test_a_new_chatbot_learns_pairs_by_its_own_template(start: Callable[..., Path]) -> None:
    folder = start("chatbot-ko-files")
    given = folder / "corpora/ko_chatbot/ChatbotData.csv"
    given.parent.mkdir(parents=True)
    with given.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("Q", "A", "label"), *((*CHATS[row % 3], row) for row in range(40))])
    download(folder, "corpus", "model")
    tokenizer, features = encode("chatbot-ko-files")
    first = rows("train")[0]
    learned = [label for label in features[0]["labels"] if label != IGNORE_INDEX]
    assert tokenizer.decode(features[0]["input_ids"]) == (
        f"user:\n{first['prompt']}\nassistant:\n{first['text']}<|endoftext|>"
    )
    assert tokenizer.decode(learned) == f"{first['text']}<|endoftext|>"
