"""Tiny tokenizers, a random model, a toy corpus and a copy of the project: made here, without a network."""

import os
import random
import re
import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

# The libraries read these when they are imported: a home of our own, and no network from inside the tests.
HOME = tempfile.mkdtemp(prefix="finetrail-tests-")
os.environ.update(HF_HOME=HOME, HF_DATASETS_CACHE=f"{HOME}/datasets", HF_METRICS_CACHE=f"{HOME}/metrics")
os.environ.update(HF_MODULES_CACHE=f"{HOME}/modules", HF_HUB_OFFLINE="0" if "HOSTS_TRIED" in os.environ else "1")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from ruamel.yaml import YAML  # noqa: E402
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402
from transformers import (  # noqa: E402
    BertConfig,
    BertForMaskedLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from finetrail import stage  # noqa: E402
from finetrail.model.base import limits  # noqa: E402
from finetrail.schema import Train  # noqa: E402

ROOT = Path(__file__).parents[1]
# Real corpora, which are not part of the project.
CORPORA = Path(os.environ.get("FINETRAIL_CORPORA", ROOT.parent / "shared" / "corpora")).resolve()
COPIED = (
    "dvc.yaml",
    "params.yaml",
    "recipes",
    "stages",
    "finetrail",
    ".dvc/config",
    ".dvc/plots",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitattributes",
    ".gitignore",
)

Sentence = tuple[list[str], list[str]]  # tokens, labels

PEOPLE = ("Anna", "Jürgen", "Mary Ann", "Kofi", "민수", "José García", "Lee", "Zoë van Dyk")
PLACES = ("Paris", "New York", "서울", "München", "São Paulo", "Oslo", "Lake Geneva", "Quito")
TEMPLATES = (
    "{PER} lives in {LOC} .",
    "yesterday {PER} met {PER} near {LOC} , the café was closed",
    "{LOC} is far from {LOC} !",
    "we saw {PER} walking slowly through {LOC} with a friend",
    "{PER} 씨는 {LOC} 에 갔다 .",
    "nobody was at home .",
    "the train to {LOC} left without {PER}",
    "ask {PER} , {PER} or {PER} about it",
)

LONGEST = (
    "test_combinations.py",
    "test_contract.py",
    "test_engines.py",
    "test_launchers.py",
    "test_mixtures.py",
    "test_pipeline.py",
    "test_fsdp.py",
    "test_fsdp_resumed.py",
    "test_taught.py",
    "test_text_classification_recipes.py",
    "test_training.py",
)

# What takes seconds: a stage, another process, an ONNX file, a browser.
TAKES_LONG = re.compile(
    r"(?m)^\s*(?:from|import) (?:stages|subprocess|spread|toy_training|recipe_projects|onnx|playwright)\b"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="only files that run no stage, process, exporter or browser")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --fast, leave out a test file by what it imports, before it is imported."""
    if not config.getoption("--fast") or not collection_path.name.startswith("test_"):
        return None
    return bool(TAKES_LONG.search(collection_path.read_text(encoding="utf-8"))) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: one of them would else run alone at the end. Skip what is slow."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if "CI" not in os.environ and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: only where CI is set"))


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


# No property is about time, and a machine that does other work is slow now and then.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

CALL_IN_A_PROCESS = limits.call


@pytest.fixture(scope="session", autouse=True)
def without_a_process() -> Iterator[None]:
    """Build base models here, where torch is imported: in each process that download@model starts, it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "call", lambda function, *args, what: function(*args))
        yield


def real(name: str) -> Path:
    """Return a file or folder of the real corpora; skip the test where it is not there."""
    if not (CORPORA / name).exists():
        pytest.skip(f"no {name} in FINETRAIL_CORPORA")
    return CORPORA / name


def git(folder: Path, *arguments: str) -> str:
    """Run Git as somebody, and return what it printed."""
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


class QuietFiles(SimpleHTTPRequestHandler):
    """The files below a folder."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL under which its files are served."""
    folder = tmp_path / "web"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


# --- corpus -------------------------------------------------------------------------------------------------------


def write_sentence(template: str, draw: random.Random) -> Sentence:
    tokens, labels = [], []
    for word in template.split():
        if word in ("{PER}", "{LOC}"):
            name = draw.choice(PEOPLE if word == "{PER}" else PLACES).split()
            tokens += name
            labels += [f"{'I' if position else 'B'}-{word[1:-1]}" for position in range(len(name))]
        else:
            tokens.append(word)
            labels.append("O")
    return tokens, labels


@pytest.fixture(scope="session")
def toy_sentences() -> list[Sentence]:
    """64 short sentences with people and places, whose words tell the labels."""
    draw = random.Random(0)
    return [write_sentence(template, draw) for _ in range(8) for template in TEMPLATES]


@pytest.fixture(scope="session")
def toy_corpus(toy_sentences: list[Sentence], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy sentences as a CoNLL file: token TAB label."""
    path = tmp_path_factory.mktemp("corpus") / "toy.txt"
    blocks = ("".join(f"{token}\t{label}\n" for token, label in zip(*pair, strict=True)) for pair in toy_sentences)
    path.write_text("\n".join(blocks), encoding="utf-8")
    return path


# --- tokenizers: folders that AutoTokenizer and AutoConfig load ---------------------------------------------------

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
BERT_TOKENS = {
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


# Parts of words, for those that are in no vocabulary as a whole.
PIECES = ("un", "able", "ing", "ization", "token", "common", "s")


@pytest.fixture(scope="session")
def toy_text(toy_sentences: list[Sentence]) -> list[str]:
    """Lines to make vocabularies of."""
    others = [
        "unbelievable tokenization of uncommon words",
        "naïve façade, señor",
        "한국어 문장도 하나 있다",
        "1,024 e-mails",
    ]
    return [" ".join(tokens) for tokens, _ in toy_sentences] + others


def vocabulary(text: list[str]) -> tuple[list[str], list[str]]:
    """Return the words that occur more than once, and all characters; no trainer gives WordPiece twice the same."""
    counts = Counter(word for line in text for word in line.split())
    return sorted(word for word, count in counts.items() if count > 1), sorted(set("".join(text)) - {" "})


def save_tokenizer(tokenizer: Tokenizer, tokens: dict[str, str], config: PreTrainedConfig, folder: Path) -> Path:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **tokens).save_pretrained(folder)
    config.save_pretrained(folder)
    return folder


def add_special_tokens(tokenizer: Tokenizer, first: str, last: str) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )


@pytest.fixture(scope="session")
def tiny_wordpiece(toy_text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WordPiece as BERT's, uncased."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    words, characters = vocabulary([normalizer.normalize_str(line) for line in toy_text])
    pieces = [*BERT_TOKENS.values(), *characters, *words, *PIECES, *("##" + piece for piece in (*characters, *PIECES))]
    ids = {piece: index for index, piece in enumerate(dict.fromkeys(["[PAD]", *pieces]))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    add_special_tokens(tokenizer, "[CLS]", "[SEP]")
    config = BertConfig(vocab_size=tokenizer.get_vocab_size(), pad_token_id=0, **SIZES)
    return save_tokenizer(tokenizer, BERT_TOKENS, config, tmp_path_factory.mktemp("wordpiece"))


@pytest.fixture(scope="session")
def tiny_bpe(toy_text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level BPE as RoBERTa's, with add_prefix_space."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(dict.fromkeys(ROBERTA_TOKENS.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(toy_text, trainer)
    ids = [("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>"))]
    tokenizer.post_processor = processors.RobertaProcessing(*ids, trim_offsets=True, add_prefix_space=True)
    config = RobertaConfig(vocab_size=tokenizer.get_vocab_size(), pad_token_id=1, **SIZES)
    return save_tokenizer(tokenizer, ROBERTA_TOKENS, config, tmp_path_factory.mktemp("bpe"))


def save_sentencepiece(text: list[str], prepend_scheme: str, folder: Path) -> Path:
    words, characters = vocabulary(text)
    scores = dict.fromkeys(ROBERTA_TOKENS.values(), 0.0) | {"▁": -9.0} | dict.fromkeys(characters, -9.0)
    scores |= dict.fromkeys(PIECES, -8.0) | {word: -7.0 for word in words} | {"▁" + word: -6.0 for word in words}
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), unk_id=list(scores).index("<unk>")))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prepend_scheme)
    add_special_tokens(tokenizer, "<s>", "</s>")
    config = XLMRobertaConfig(vocab_size=tokenizer.get_vocab_size(), pad_token_id=1, **SIZES)
    return save_tokenizer(tokenizer, ROBERTA_TOKENS, config, folder)


@pytest.fixture(scope="session")
def tiny_sentencepiece(toy_text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SentencePiece Unigram as XLM-RoBERTa's: every word begins with ▁."""
    return save_sentencepiece(toy_text, "always", tmp_path_factory.mktemp("sentencepiece"))


@pytest.fixture(scope="session")
def tiny_sentencepiece_first(toy_text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with prepend_scheme "first": only the first word of a sentence begins with ▁."""
    return save_sentencepiece(toy_text, "first", tmp_path_factory.mktemp("sentencepiece_first"))


# --- a base model -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_wordpiece: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 2-layer BERT as the Hub has models: weights, config and tokenizer in one folder."""
    folder = tmp_path_factory.mktemp("checkpoint")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForMaskedLM(BertConfig.from_pretrained(tiny_wordpiece)).save_pretrained(folder)
    for file in tiny_wordpiece.iterdir():
        if file.name != "config.json":
            shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base_model(tiny_checkpoint: Path, tiny_wordpiece: Path) -> Callable[[Path], Path]:
    """Return the function that lays the random BERT out in a folder as data/model is."""

    def lay_out(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(tiny_checkpoint / name, folder / "weights")
        shutil.copytree(tiny_wordpiece, folder / "tokenizer")
        stage.write_json(folder / "provenance.json", {"name": "tiny-bert"})
        return folder

    return lay_out


# --- the project --------------------------------------------------------------------------------------------------


def toy_recipe(corpus: Path, model: Path) -> dict[str, Any]:
    """Every setting of a run over the toy corpus that takes seconds."""
    return {
        "corpus": {
            "name": "Toy people and places",
            "source": {"kind": "file", "path": str(corpus), "sha256": None},
            "splits": {
                "train": corpus.name,
                "validation": 0.2,
                "test": 0.2,
                "seed": 0,
                "stratify": None,
                "group": None,
            },
            "license": "CC0-1.0",
            "language": None,
            "reader": {
                "format": "conll",
                "separator": "\t",
                "token_column": 0,
                "label_column": 1,
                "comment": None,
                "encoding": "utf-8",
            },
            "tags": {"scheme": "iob2", "impossible_transitions": "refuse", "unseen_labels": "keep"},
        },
        "model": {
            "name": "tiny-bert",
            "source": {"kind": "file", "path": str(model), "sha256": None},
            "license": "CC0-1.0",
        },
        "tokenize": {
            "engine": "local",
            "num_proc": 1,
            "max_length": 16,
            "stride": 4,
            "label_subwords": "first",
            "limit": None,
        },
        "numerics": "fast",
        "train": toy_settings(**PLAIN_LOSS),
        "evaluate": {
            "batch_size": 8,
            "bootstrap": {"samples": 100, "confidence": 0.95, "seed": 0},
            "worst_errors": 10,
        },
        "export": {"int8": True, "max_metric_drop": 0.5, "hub_repo": None, "hub_private": True},
    }


def whole(path: Path) -> str:
    """Return the text of a recipe that gives every key itself: those of the defaults beside it first."""
    yaml = YAML()
    yaml.width = 1 << 20
    content, defaults = yaml.load(path), yaml.load(path.with_name("defaults.yaml"))
    for section, default in defaults.items():
        if content[section] is None:
            content[section] = default
        elif isinstance(default, dict):
            for key in reversed([key for key in default if key not in content[section]]):
                content[section].insert(0, key, default[key])
    text = StringIO()
    yaml.dump(content, text)
    return text.getvalue()


# What the two classifiers' settings have besides, and the train split of models that do not look at it.
PLAIN_LOSS = {"label_smoothing": 0.0, "class_weights": None}
NO_FEATURES = Dataset.from_dict({})


def toy_settings(**changes: Any) -> dict[str, Any]:
    """The section `train` of a small run, with the defaults of token classification but for the keys of its own."""
    defaults = YAML(typ="safe").load(ROOT / "recipes/token_classification/defaults.yaml")["train"]
    shared = {key: value for key, value in defaults.items() if key in Train.model_fields}
    own = {"lr": 0.01, "epochs": 2.0, "batch_size": 8, "eval_batch_size": 8, "best_metric": "f1", "log_steps": 1,
           "precision": "fp32", "optimizer": "adamw_torch", "checkpoint_every": None}  # fmt: skip
    return shared | own | changes


@pytest.fixture(scope="session")
def make_project(toy_corpus: Path, tiny_checkpoint: Path) -> Callable[[Path], Path]:
    """Return the function that copies the project, without data, to a folder, where params.yaml runs the toy recipe."""

    def make(parent: Path) -> Path:
        folder = parent / "project"
        for name in COPIED:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder / name)
        yaml = YAML()
        yaml.dump(toy_recipe(toy_corpus, tiny_checkpoint), folder / "recipes/token_classification/toy.yaml")
        params = yaml.load(folder / "params.yaml")
        params.update(task="token_classification", recipe="toy", launcher="python")
        yaml.dump(params, folder / "params.yaml")
        return folder

    return make


@pytest.fixture
def project(make_project: Callable[[Path], Path], tmp_path: Path) -> Path:
    """A copy of the project, without its data, whose params.yaml runs recipes/token_classification/toy.yaml."""
    return make_project(tmp_path)


@pytest.fixture
def restored_torch() -> Iterator[None]:
    """Put back what make_deterministic() sets for the whole process."""
    algorithms = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(algorithms)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = benchmark
