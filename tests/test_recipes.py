"""Every shipped recipe does what it says: against a stand-in Hub, a web server, toy files, and real corpora if present.

The stand-ins have the layout, the features and the quirks that the real repositories have (names of old checkpoints'
weights, configurations of a tokenizer that name no class), and sizes that take seconds.
"""

import json
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import NO_FEATURES, PLAIN_LOSS, real, toy_settings, whole
from datasets import ClassLabel, Features, List, Value
from hub_server import StandInHub, write_parquet
from huggingface_hub import ModelCard
from recipe_projects import download, edit, run
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForPreTraining, DistilBertConfig, DistilBertForMaskedLM

from finetrail import layout
from finetrail.encoding.tokenizer import load_tokenizer
from finetrail.evaluation import splits
from finetrail.schema import Bootstrap, Evaluate
from finetrail.stage import read_json
from finetrail.tasks.token_classification import modeling, scoring
from finetrail.tasks.token_classification.settings import Train
from stages import evaluate, tokenize, train

ROOT = Path(__file__).parents[1]
RECIPES = Path("recipes/token_classification")
SPLITS = ("train", "validation", "test")

# --- the corpora ----------------------------------------------------------------------------------------------------

# As in the Hub's dataset, in the order of their numbers.
POS = [
    '"', "''", "#", "$", "(", ")", ",", ".", ":", "``", "CC", "CD", "DT", "EX", "FW", "IN", "JJ", "JJR", "JJS", "LS",
    "MD", "NN", "NNP", "NNPS", "NNS", "NN|SYM", "PDT", "POS", "PRP", "PRP$", "RB", "RBR", "RBS", "RP", "SYM", "TO",
    "UH", "VB", "VBD", "VBG", "VBN", "VBP", "VBZ", "WDT", "WP", "WP$", "WRB",
]  # fmt: skip
KINDS = ("ADJP", "ADVP", "CONJP", "INTJ", "LST", "NP", "PP", "PRT", "SBAR", "UCP", "VP")
CHUNKS = ["O"] + [f"{prefix}-{name}" for name in KINDS for prefix in "BI"]
ENTITIES = ["O"] + [f"{prefix}-{name}" for name in ("PER", "ORG", "LOC", "MISC") for prefix in "BI"]
KLUE = [f"{prefix}-{name}" for name in ("DT", "LC", "OG", "PS", "QT", "TI") for prefix in "BI"] + ["O"]

# token part-of-speech chunk entity
NEWS = [
    "{PER} visited/VBD/B-VP/O {LOC} on/IN/B-PP/O Monday/NNP/B-NP/O ././O/O",
    '``/``/O/O She/PRP/B-NP/O paid/VBD/B-VP/O $/$/B-NP/O 3/CD/I-NP/O ,/,/O/O "/"/O/O he/PRP/B-NP/O said/VBD/B-VP/O',
    "{ORG} \u2019s/POS/B-NP/O her/PRP$/I-NP/O Norwegian/JJ/I-NP/B-MISC boats/NNS/I-NP/O left/VBD/B-VP/O {LOC}",
    "(/(/O/O {ORG} bought/VBD/B-VP/O {ORG} )/)/O/O :/:/O/O ''/''/O/O 1-0/NN|SYM/B-NP/O",
    "Nobody/NN/B-NP/O saw/VBD/B-VP/O {PER} and/CC/O/O {PER} in/IN/B-PP/O {LOC} ././O/O",
]
NAMES = {
    "{PER}": ["Ada/NNP/B-NP/B-PER Berg/NNP/I-NP/I-PER", "Lee/NNP/B-NP/B-PER", "Zo\u00eb/NNP/B-NP/B-PER"],
    "{LOC}": ["Oslo/NNP/B-NP/B-LOC", "New/NNP/B-NP/B-LOC York/NNP/I-NP/I-LOC", "Quito/NNP/B-NP/B-LOC"],
    "{ORG}": ["Acme/NNP/B-NP/B-ORG Ltd/NNP/I-NP/I-ORG", "Reuters/NNP/B-NP/B-ORG"],
}
NEWS_LABELS = {
    "ner_tags": {"O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC"},
    "chunk_tags": {"O", "B-NP", "I-NP", "B-VP", "B-PP"},
    "pos_tags": {
        "NNP", "VBD", "IN", ".", "``", "PRP", "$", "CD", ",", '"', "POS", "PRP$", "JJ", "NNS", "(", ")", ":", "''",
        "NN|SYM", "NN", "CC",
    },
}  # fmt: skip

Word = list[str]  # token, part of speech, chunk, entity


def news(count: int, seed: int) -> list[list[Word]]:
    draw = random.Random(seed)
    sentences = []
    for number in range(count):
        words = re.sub(r"\{\w+\}", lambda match: draw.choice(NAMES[match[0]]), NEWS[number % len(NEWS)])
        sentences.append([word.split("/") for word in words.split()])
    return sentences


def columns(sentences: list[list[Word]], *chosen: int) -> str:
    """Return the text of a CoNLL file."""
    blocks = ("".join(" ".join(word[column] for column in chosen) + "\n" for word in words) for words in sentences)
    return "\n".join(blocks)


def write_hub_conll2003(folder: Path) -> None:
    """Write the files of refs/convert/parquet: no card, a folder for the configuration and one for each split."""
    names = {"pos_tags": POS, "chunk_tags": CHUNKS, "ner_tags": ENTITIES}
    labels = {column: List(ClassLabel(names=list(kinds))) for column, kinds in names.items()}
    features = Features({"id": Value("string"), "tokens": List(Value("string"))} | labels)
    for seed, (split, count) in enumerate(zip(SPLITS, (40, 10, 15), strict=True)):
        rows = [
            {"id": str(number), "tokens": [word[0] for word in words]}
            | {column: [word[place] for word in words] for place, column in enumerate(names, start=1)}
            for number, words in enumerate(news(count, seed))
        ]
        write_parquet(folder / f"conll2003/{split}/0000.parquet", rows, features)


KLUE_SENTENCES = [
    [("\ubbfc\uc218", "PS"), ("\uac00 ", ""), ("\uc11c\uc6b8", "LC"), ("\uc5d0 \uac14\ub2e4.", "")],
    [("3\uc6d4 1\uc77c", "DT"), (" ", ""), ("KBS", "OG"), ("\uac00 \ubcf8 ", ""), ("2\uba85", "QT")],
    [("\uc601\ud76c", "PS"), ("\ub294 ", ""), ("\uc624\uc804 9\uc2dc", "TI"), ("\uc5d0 \uc654\ub2e4\u200b.", "")],
]
UNSEEN = (" ", "\u200b")  # BERT's tokenizer makes nothing of a blank
KLUE_CARD = """---
license:
- cc-by-sa-4.0
dataset_info:
- config_name: ner
  features:
  - name: sentence
    dtype: string
  - name: tokens
    sequence: string
  - name: ner_tags
    sequence:
      class_label:
        names:
{names}
  splits:
  - name: train
    num_examples: 30
  - name: validation
    num_examples: 9
configs:
- config_name: ynat
  data_files:
  - split: train
    path: ynat/train-*
- config_name: ner
  data_files:
  - split: train
    path: ner/train-*
  - split: validation
    path: ner/validation-*
---
"""


def write_hub_klue(folder: Path) -> None:
    """Write two of its configurations; in `ner` every token is a character, blanks included."""
    tags = List(ClassLabel(names=KLUE))
    features = Features({"sentence": Value("string"), "tokens": List(Value("string")), "ner_tags": tags})
    for split, count in (("train", 30), ("validation", 9)):
        rows = []
        for number in range(count):
            parts = KLUE_SENTENCES[number % 3]
            labels = [
                f"{'I' if at else 'B'}-{kind}" if kind else "O" for text, kind in parts for at in range(len(text))
            ]
            text = "".join(part for part, _ in parts)
            rows.append({"sentence": text, "tokens": list(text), "ner_tags": labels})
        write_parquet(folder / f"ner/{split}-00000-of-00001.parquet", rows, features)
    titles = Features({"title": Value("string"), "label": ClassLabel(names=["IT", "\uc815\uce58"])})
    write_parquet(folder / "ynat/train-00000-of-00001.parquet", [{"title": "\uc81c\ubaa9", "label": 0}], titles)
    names = "\n".join(f"          '{number}': {name}" for number, name in enumerate(KLUE))
    (folder / "README.md").write_text(KLUE_CARD.format(names=names), encoding="utf-8")


def write_hub_own(folder: Path) -> None:
    """Write the files that Dataset.push_to_hub() creates: data/SPLIT-*.parquet and a card."""
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=ENTITIES))})
    for seed, split in enumerate(SPLITS):
        rows = [
            {"tokens": [word[0] for word in words], "ner_tags": [word[3] for word in words]} for words in news(5, seed)
        ]
        write_parquet(folder / f"data/{split}-00000-of-00001.parquet", rows, features)
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\nMine.\n")


# --- the models -----------------------------------------------------------------------------------------------------


def write_tokenizer(folder: Path, config: dict[str, Any]) -> int:
    """Write a cased WordPiece tokenizer as BERT's repositories have it, and return the size of its vocabulary."""
    words = {word[0] for words in news(20, 0) for word in words} | {"oslo"}
    letters = set("".join([*words, *(text for parts in KLUE_SENTENCES for text, _ in parts)])) - set(UNSEEN)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words | letters)]
    vocabulary += [f"##{letter}" for letter in sorted(letters)]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


def write_model(folder: Path, architecture: Any, config: Any, license: str, rename: dict[str, str]) -> None:
    """Write random weights, under other names where `rename` has a part of theirs."""
    model = architecture(config)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for old, new in rename.items():
        weights = {name.replace(old, new): tensor for name, tensor in weights.items()}
    if "gamma" not in rename.values() and config.model_type == "bert":  # saved by transformers 3
        weights["bert.embeddings.position_ids"] = torch.arange(512)[None]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    settings = config.to_diff_dict() | {"architectures": [architecture.__name__], "model_type": config.model_type}
    (folder / "config.json").write_text(json.dumps(settings | {"transformers_version": "4.6.0.dev0"}))
    (folder / "README.md").write_text(f"---\nlicense: {license}\n---\n")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle, never fetched")


OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
ROLES = {
    f"{role}_token": f"[{name}]" for role, name in (("unk", "UNK"), ("sep", "SEP"), ("pad", "PAD"), ("cls", "CLS"))
}
KLUE_TOKENIZER = {"do_lower_case": False, "do_basic_tokenize": True, "never_split": None, "strip_accents": None} | ROLES
KLUE_TOKENIZER |= {"bos_token": "[CLS]", "eos_token": "[SEP]", "mask_token": "[MASK]", "model_max_length": 512}
CASED = {"do_lower_case": False, "model_max_length": 512}


def write_hub_models(root: Path) -> None:
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "hidden_size": 32}
    small = {"n_layers": 2, "n_heads": 2, "hidden_dim": 64, "dim": 32}
    bert, distilbert, klue = (
        root / name for name in ("google-bert/bert-base-cased", "distilbert/distilbert-base-cased", "klue/bert-base")
    )
    for folder in (bert, distilbert, klue):
        folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        size = write_tokenizer(bert, CASED)
        config: Any = BertConfig(vocab_size=size, max_position_embeddings=512, **sizes)
        write_model(bert, BertForPreTraining, config, "apache-2.0", OLD_NAMES)
        write_tokenizer(klue, KLUE_TOKENIZER)
        write_model(klue, BertForPreTraining, config, "cc-by-sa-4.0", {})
        write_tokenizer(distilbert, CASED)
        config = DistilBertConfig(vocab_size=size, max_position_embeddings=512, **small)
        write_model(distilbert, DistilBertForMaskedLM, config, "apache-2.0", {})


# --- servers and projects -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInHub]:
    root = tmp_path_factory.mktemp("hub")
    write_hub_conll2003(root / "datasets/eriktks/conll2003")
    write_hub_klue(root / "datasets/klue/klue")
    write_hub_own(root / "datasets/me/tweets")
    write_hub_models(root / "models")
    with StandInHub(root, refs=("refs/convert/parquet",)) as server:
        yield server


@pytest.fixture
def serve(web: tuple[Path, str]) -> Callable[[dict[str, str]], str]:
    """Return the function that puts files into a zip at a URL, beside a README as NLTK's archive has one."""
    folder, url = web

    def zipped(files: dict[str, str]) -> str:
        with zipfile.ZipFile(folder / "conll2000.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in {"conll2000/README": "CONLL 2000\n"}.items() | files.items():
                archive.writestr(name, text)
        return f"{url}/conll2000.zip"

    return zipped


Start = Callable[..., Path]


@pytest.fixture
def start(make_project: Callable[[Path], Path], tmp_path: Path) -> Start:
    """Return the function that makes a project that runs a shipped recipe, with some of its values replaced."""
    return partial(start_project, make_project, tmp_path)


def start_project(
    make: Callable[[Path], Path], parent: Path, recipe: str, changes: dict[str, Any] | None = None, **params: Any
) -> Path:
    folder = make(parent)
    edit(folder / "params.yaml", {"recipe": recipe} | params)
    edit(folder / RECIPES / f"{recipe}.yaml", changes or {})
    return folder


def repro(folder: Path, *arguments: str, hub: StandInHub) -> str:
    """Run DVC in a new Git repository."""
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message=before")
    return run(folder, "dvc", "repro", *arguments, hub=hub)


def sentences(folder: Path, split: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / f"data/corpus/{split}.parquet").to_pylist()


def sizes(folder: Path) -> list[int]:
    return [len(sentences(folder, split)) for split in SPLITS]


def labels(folder: Path) -> set[str]:
    return {label for split in SPLITS for row in sentences(folder, split) for label in row["labels"]}


def scheme(folder: Path) -> str:
    return read_json(folder / "data/corpus/checks.json")["scheme"]


def load_recipe(name: str) -> Any:
    return YAML(typ="safe").load(whole(ROOT / RECIPES / f"{name}.yaml"))


def test_every_shipped_recipe_is_run_here() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [path.stem for path in layout.recipe_files(ROOT, RECIPES.name) if f'"{path.stem}"' not in tests] == []


# --- corpora of the Hub ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("recipe", "column"), [("conll2003", "ner_tags"), ("conll2003-chunk", "chunk_tags")])
def test_conll2003_comes_from_the_parquet_branch_with_labels(
    start: Start, hub: StandInHub, recipe: str, column: str
) -> None:
    folder = start(recipe)

    provenance = download(folder, "corpus", hub=hub)

    assert sizes(folder) == [40, 10, 15]
    assert scheme(folder) == "IOB2" and labels(folder) == NEWS_LABELS[column]
    first = sentences(folder, "train")[0]
    assert first["tokens"] == [word[0] for word in news(1, 0)[0]]
    assert provenance["source"]["revision"] == "refs/convert/parquet"
    assert provenance["resolved"] == {"commit": hub.commit("dataset", "eriktks/conll2003")}
    assert (provenance["name"], provenance["license"], provenance["language"]) == ("eriktks/conll2003", "other", "en")
    assert read_json(folder / "data/corpus/checks.json")["splits"]["train"]["repaired_transitions"] == 0


def test_the_conll2003_recipes_differ_only_in_their_labels() -> None:
    ner, chunk, pos = (load_recipe(name) for name in ("conll2003", "conll2003-chunk", "conll2003-pos"))
    for other in (chunk, pos):
        other["corpus"]["reader"]["columns"]["labels"] = "ner_tags"
    assert (pos["corpus"]["tags"].pop("scheme"), pos["train"].pop("best_metric")) == ("none", "accuracy")

    assert chunk == ner
    del ner["corpus"]["tags"]["scheme"], ner["train"]["best_metric"]
    assert pos == ner


def test_own_hub_dataset_needs_a_name_and_takes_the_card_license(start: Start, hub: StandInHub) -> None:
    folder = start("bring-your-own-hub", {"corpus.source.repo": "me/tweets", "corpus.name": "me/tweets"})

    provenance = download(folder, "corpus", hub=hub)

    assert sizes(folder) == [5, 5, 5]
    assert scheme(folder) == "IOB2" and labels(folder) == NEWS_LABELS["ner_tags"]
    assert provenance["license"] == "cc0-1.0"
    assert provenance["resolved"] == {"commit": hub.commit("dataset", "me/tweets")}


# --- base models of the Hub -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["conll2003", "conll2000", "klue-ner"])
def test_a_base_model_of_the_hub_is_loaded_whole_and_keeps_case(start: Start, hub: StandInHub, recipe: str) -> None:
    settings = load_recipe(recipe)
    name = settings["model"]["name"]
    folder = start(recipe)

    provenance = download(folder, "model", hub=hub)

    assert provenance["source"]["repo"] == name
    assert provenance["resolved"] == {"commit": hub.commit("model", name)}
    card = ModelCard.load(hub.folder("model", name) / "README.md")
    assert provenance["license"] == card.data.license
    assert not [request for request in hub.requests if "pytorch_model.bin" in request]
    # UserError if max_length is above the model's positions.
    tokenizer = load_tokenizer(folder / "data/model/tokenizer", settings["tokenize"]["max_length"])
    assert tokenizer.tokenize("Oslo") == ["Oslo"] and tokenizer.tokenize("oslo") == ["oslo"]
    train_settings = Train(**toy_settings(**PLAIN_LOSS))
    model = modeling.build_model(folder / "data/model/weights", ["O", "B-X"], train_settings, NO_FEATURES)
    loaded = model.base_model.state_dict()
    given = load_file(hub.folder("model", name) / "model.safetensors")
    given = {re.sub(r"^(distil)?bert\.", "", key): tensor for key, tensor in given.items()}
    given = {key.replace(".gamma", ".weight").replace(".beta", ".bias"): tensor for key, tensor in given.items()}
    assert loaded and all(torch.equal(tensor, given[key]) for key, tensor in loaded.items() if "_ids" not in key)


# --- other corpora --------------------------------------------------------------------------------------------------


def test_wnut16_is_embedded(start: Start) -> None:
    folder = start("wnut16")

    provenance = download(folder, "corpus")

    assert sizes(folder) == [1436, 479, 479]
    assert scheme(folder) == "IOB2" and {label[2:] for label in labels(folder)} - {""} == set(
        ["company", "facility", "geo-loc", "movie", "musicartist", "other", "person", "product", "sportsteam", "tvshow"]
    )
    assert provenance["sha256"] == load_recipe("wnut16")["corpus"]["source"]["sha256"]


def test_students_of_wnut16_differ_in_layers_and_teacher_only(start: Start) -> None:
    plain, taught = load_recipe("wnut16-3-layers"), load_recipe("wnut16-student")
    assert {"temperature", "labels_weight", "teacher_weight"} == set(taught["train"].pop("distillation"))
    same = ("corpus", "tokenize", "train", "evaluate", "export", "numerics")
    assert {key: plain[key] for key in same} == {key: taught[key] for key in same}
    assert plain["corpus"] == load_recipe("wnut16")["corpus"]
    assert taught["model"]["source"] == taught["model"]["teacher"]["source"]
    assert plain["model"]["layers"] == taught["model"]["layers"] and plain["model"]["teacher"] is None

    folder = start("wnut16-3-layers")
    download(folder, "model")
    assert read_json(folder / "data/model/weights/config.json")["num_hidden_layers"] == 3


def test_conll2000_comes_out_of_its_archive(start: Start, serve: Callable[[dict[str, str]], str]) -> None:
    files = {"train.txt": news(40, 0), "test.txt": news(10, 1)}
    url = serve({f"conll2000/{name}": columns(words, 0, 1, 2) for name, words in files.items()})
    folder = start("conll2000", {"corpus.source.urls": [url]})

    provenance = download(folder, "corpus")

    assert sizes(folder) == [36, 4, 10]
    assert scheme(folder) == "IOB2" and labels(folder) == NEWS_LABELS["chunk_tags"]
    assert [file["path"] for file in provenance["files"]] == ["conll2000.zip"]
    assert (provenance["name"], provenance["license"]) == ("CoNLL-2000", "other")


def test_conll2000_is_complete(start: Start, serve: Callable[[dict[str, str]], str]) -> None:
    given = real("conll2000")
    url = serve({f"conll2000/{name}": (given / name).read_text() for name in ("train.txt", "test.txt")})
    folder = start("conll2000", {"corpus.source.urls": [url]})

    download(folder, "corpus")

    assert sizes(folder) == [8042, 894, 2012]
    checks = read_json(folder / "data/corpus/checks.json")
    assert sum(split["tokens"] for split in checks["splits"].values()) == 211_727 + 47_377
    assert sum(split["repaired_transitions"] for split in checks["splits"].values()) == 0


IOB1 = """-DOCSTART- -X- -X- O

Ada NNP I-NP I-PER
met VBD I-VP O
Lee NNP I-NP I-PER
Zo NNP B-NP B-PER
. . O O

Oslo NNP I-NP I-LOC
City NNP I-NP I-LOC
"""


def test_conll2003s_own_files_become_iob2(start: Start) -> None:
    folder = start("conll2003-files", {"corpus.source.sha256": None})
    given = folder / "corpora/conll2003"
    given.mkdir(parents=True)
    for name in ("eng.train", "eng.testa", "eng.testb"):
        (given / name).write_text(IOB1)

    download(folder, "corpus")

    assert sizes(folder) == [2, 2, 2] and scheme(folder) == "IOB2"
    assert [row["labels"] for row in sentences(folder, "train")] == [
        ["B-PER", "O", "B-PER", "B-PER", "O"],
        ["B-LOC", "I-LOC"],
    ]
    assert read_json(folder / "data/corpus/checks.json")["splits"]["train"]["repaired_transitions"] == 0


def test_the_shared_task_files_are_those_that_the_recipe_pins(start: Start) -> None:
    folder = start("conll2003-files", {"corpus.source.path": str(real("conll2003") / "eng.*")})

    provenance = download(folder, "corpus")

    assert provenance["sha256"] == load_recipe("conll2003-files")["corpus"]["source"]["sha256"]
    assert sizes(folder) == [14_041, 3_250, 3_453]
    assert labels(folder) == set(ENTITIES)


def test_own_columns_need_two_files_and_a_rare_label_passes(start: Start) -> None:
    folder = start("bring-your-own-conll")
    given = folder / "corpora/mine"
    given.mkdir(parents=True)
    for seed, name in enumerate(("train.conll", "test.conll")):
        (given / name).write_text(columns(news(10, seed), 0, 3), encoding="utf-8")

    download(folder, "corpus")

    assert sizes(folder) == [9, 1, 10]
    assert scheme(folder) == "IOB2" and labels(folder) == NEWS_LABELS["ner_tags"]
    assert read_json(folder / "data/corpus/checks.json")["unseen_labels"]["test"] == {"I-PER": 1}


def test_json_lines_of_ones_own_need_one_file(start: Start) -> None:
    folder = start("bring-your-own-jsonl")
    given = folder / "corpora/mine"
    given.mkdir(parents=True)
    lines = (json.dumps({"words": [w[0] for w in words], "ner": [w[3] for w in words]}) for words in news(40, 0))
    (given / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")

    download(folder, "corpus")

    assert sizes(folder) == [32, 4, 4]
    assert scheme(folder) == "IOB2" and labels(folder) == NEWS_LABELS["ner_tags"]


TREE = """# sent_id = {name}-{number}
# text = Wir gehen zum Haus.
1\tWir\twir\tPRON\t_\t_\t2\tnsubj\t_\t_
2\tgehen\tgehen\tVERB\t_\t_\t0\troot\t_\t_
3-4\tzum\t_\t_\t_\t_\t_\t_\t_\t_
3\tzu\tzu\tADP\t_\t_\t5\tcase\t_\t_
4\tdem\tder\tDET\t_\t_\t5\tdet\t_\t_
5\tHaus\tHaus\tNOUN\t_\t_\t2\tobl\t_\tSpaceAfter=No
6\t.\t.\tPUNCT\t_\t_\t2\tpunct\t_\t_

"""


def test_an_own_treebank_is_three_conllu_files(start: Start) -> None:
    folder = start("bring-your-own-conllu")
    given = folder / "corpora/mine"
    given.mkdir(parents=True)
    for name, size in (("train", 9), ("dev", 2), ("test", 3)):
        trees = "".join(TREE.format(name=name, number=number) for number in range(size))
        (given / f"de_toy-ud-{name}.conllu").write_text(trees, encoding="utf-8")
    (given / "README.md").write_text("not a treebank")

    download(folder, "corpus")

    assert sizes(folder) == [9, 2, 3]
    assert scheme(folder) == "none" and labels(folder) == {"PRON", "VERB", "ADP", "DET", "NOUN", "PUNCT"}
    assert sentences(folder, "test")[0]["id"] == "test-0"
    assert sentences(folder, "test")[0]["tokens"] == ["Wir", "gehen", "zu", "dem", "Haus", "."]


def as_text(words: list[Word], gap: str) -> dict[str, Any]:
    """Return a sentence as doccano has it, with an emoji before it, so that its units and characters differ."""
    text, spans = f"\U0001f44d{gap}", []
    for word in words:
        if word[3].startswith("I-"):
            spans[-1][1] += 1 + len(word[0])
        elif word[3] != "O":
            spans.append([len(text) + 1, len(text) + 1 + len(word[0]), word[3][2:]])
        text += word[0] + " "
    return {"text": text, "label": spans, "Comments": []}


def test_spans_of_ones_own_need_one_file(start: Start) -> None:
    folder = start("bring-your-own-spans")
    given = folder / "corpora/mine"
    given.mkdir(parents=True)
    examples = [{"id": number} | as_text(words, "  ") for number, words in enumerate(news(40, 0))]
    lines = (json.dumps(example, ensure_ascii=False) for example in examples)
    (given / "all.jsonl").write_text("\n".join(lines), encoding="utf-8")

    download(folder, "corpus")

    assert sizes(folder) == [32, 4, 4]
    assert scheme(folder) == "IOB2" and labels(folder) == NEWS_LABELS["ner_tags"]
    texts = {str(example["id"]): example["text"] for example in examples}
    for split in SPLITS:
        for row in sentences(folder, split):
            assert row["text"] == texts[row["id"]]
            spans = zip(row["starts"], row["ends"], strict=True)
            assert [row["text"][start:end] for start, end in spans] == row["tokens"]
    checks = read_json(folder / "data/corpus/checks.json")
    assert checks["splits"]["train"]["spans"]["read"] > 30 and "notes" not in checks


def test_recipes_of_small_corpora_share_the_embedded_base_model() -> None:
    names = (
        "bring-your-own-conll",
        "bring-your-own-conllu",
        "bring-your-own-hub",
        "bring-your-own-jsonl",
        "bring-your-own-spans",
        "conll2003-files",
    )
    embedded = load_recipe("wnut16")["model"]
    assert [load_recipe(name)["model"] for name in names] == [embedded] * len(names)


# --- from the corpus to the report ----------------------------------------------------------------------------------


@pytest.mark.slow  # tests/test_pipeline.py runs the whole graph of a toy
def test_parts_of_speech_go_through_the_whole_graph(start: Start, hub: StandInHub) -> None:
    folder = start("conll2003-pos", epochs=1)

    repro(folder, hub=hub)

    assert sizes(folder) == [40, 10, 15]
    assert scheme(folder) == "none" and labels(folder) == NEWS_LABELS["pos_tags"]
    metrics = read_json(folder / "metrics/record.json")
    assert (metrics["recipe"], metrics["headline"], metrics["train"]["epochs"]) == ("conll2003-pos", "accuracy", 1)
    test = metrics["test"]
    assert set(test) == {f"{name}{end}" for name in ("accuracy", "macro_f1") for end in ("", "_low", "_high")}
    assert 0 <= test["accuracy_low"] <= test["accuracy"] <= test["accuracy_high"] <= 1
    baselines = metrics["baselines"]["test"]
    assert set(baselines) == {"most_frequent_label_of_word", "everything_NNP"}
    assert metrics["export"]["onnx_fp32"]["disagreements"] == 0
    page = (folder / "metrics/report.html").read_text(encoding="utf-8")
    assert "eriktks/conll2003" in page and "NN|SYM" in page and "accuracy" in page
    card = ModelCard.load(folder / "data/exported/README.md").data
    assert (card.base_model, card.datasets) == ("google-bert/bert-base-cased", ["eriktks/conll2003"])
    assert (card.pipeline_tag, card.language, card.metrics[0]) == ("token-classification", "en", "accuracy")


@pytest.fixture(scope="module")
def klue(make_project: Callable[[Path], Path], hub: StandInHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of klue-ner, downloaded and tokenized."""
    folder = start_project(make_project, tmp_path_factory.mktemp("klue"), "klue-ner", epochs=1)
    download(folder, "corpus", "model", hub=hub)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tokenize.main()
    return folder


@pytest.fixture
def klue_project(klue: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same; the current folder."""
    monkeypatch.chdir(klue)
    return klue


@pytest.mark.usefixtures("restored_torch")
def test_characters_are_words_and_blanks_are_not_seen(klue_project: Path, hub: StandInHub) -> None:
    train.main()
    evaluate.main()

    assert sizes(klue_project) == [27, 3, 9]
    assert scheme(klue_project) == "IOB2" and labels(klue_project) == set(KLUE)
    provenance = read_json(klue_project / "data/corpus/provenance.json")
    assert (provenance["license"], provenance["language"]) == ("cc-by-sa-4.0", "ko")
    assert provenance["resolved"] == {"commit": hub.commit("dataset", "klue/klue")}
    counts = read_json(klue_project / "data/tokenized/counts.json")["splits"]["test"]
    tokens = [token for row in sentences(klue_project, "test") for token in row["tokens"]]
    assert counts["words"] == len(tokens)
    assert counts["words_without_subwords"] == sum(token in UNSEEN for token in tokens) > 0
    for row in pq.read_table(klue_project / "data/predictions.parquet").to_pylist():
        assert len(row["predictions"]) == len(row["tokens"]) == len(row["references"])
        pairs = zip(row["tokens"], row["confidences"], strict=True)
        assert all((confidence == 0) == (token in UNSEEN) for token, confidence in pairs)
    assert read_json(klue_project / "metrics/evaluation/metrics.json")["headline"] == "f1"


def test_entities_with_blanks_are_right_for_an_oracle_model(klue_project: Path) -> None:
    split, names = splits.load("test"), read_json(klue_project / "data/tokenized/target.json")
    rows = zip(*(split.features[name].to_pylist() for name in ("input_ids", "labels")), strict=True)
    known = {tuple(ids): np.eye(len(names))[np.maximum(labels, 0)] for ids, labels in rows}

    def oracle(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        logits = np.zeros((*inputs["input_ids"].shape, len(names)), dtype=np.float32)
        for row, ids, mask in zip(logits, inputs["input_ids"], inputs["attention_mask"], strict=True):
            row[: mask.sum()] = known[tuple(ids[: mask.sum()].tolist())]
        return {"logits": logits}

    settings = Evaluate(batch_size=4, bootstrap=Bootstrap(samples=100, confidence=0.95, seed=0), worst_errors=0)
    predicted = scoring.predict(split, {}, names, oracle, SimpleNamespace(pad_token_id=0), settings)

    assert any("I-" in row["references"][row["tokens"].index(" ")] for row in predicted.to_pylist())
    assert predicted["predictions"].to_pylist() == predicted["references"].to_pylist()
