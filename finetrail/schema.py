"""The schema of params.yaml and of the recipe sections that all tasks share: strict, frozen, every field required."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    model_validator,
)

SHA256 = r"^[0-9a-f]{64}$"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
HUB_ID = r"^[\w.-]+(/[\w.-]+)?$"
OWNED_HUB_ID = r"^[\w.-]+/[\w.-]+$"
INTERVAL = r"^[1-9]\d* (updates|minutes)$"
TAG_SHAPE = r"^(B[^A-Za-z0-9\s]+TYPE|TYPE[^A-Za-z0-9\s]+B)$"
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"
DELIMITER = r"^[^\"\r\n\x00]$"
LAUNCHER = r"^([^;&|<>`$\r\n]|\$[A-Za-z_{])+$"
# A pattern -> what messages say is expected.
PATTERNS = {
    SHA256: "a sha256, 64 of 0-9 and a-f",
    NAME: "a name of letters, digits and . _ - alone",
    HUB_ID: "OWNER/NAME, or NAME",
    OWNED_HUB_ID: "OWNER/NAME",
    INTERVAL: "such as '500 updates' or '10 minutes'",
    ONE_LINE: "text of one line, without control characters",
    LAUNCHER: "one command without ; & | < > ` and $(",
    DELIMITER: "one character, no quote and no line end",
    TAG_SHAPE: "such as B-TYPE, TYPE-B or B_TYPE",
}

Sha256 = Annotated[str, Field(pattern=SHA256)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=NAME)]

MOST_MIB = 1 << 43  # whose bytes are 2**63, which no file has
MAX_MIB_HELP = (
    "a download that is larger is refused, and so is a single file of it, or of what a dataset of the Hub becomes, "
    "that is; null: no limit"
)
SHA256_HELP = "sha256 of the file; of a folder or glob: of its sorted 'SHA256  PATH' lines; null is not verified"


class Settings(BaseModel):
    """Base of every section: no coercion, no unknown keys, no defaults, no change after loading."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Params(Settings):
    """params.yaml: what to run, and the overrides of sweeps (null means the recipe's value)."""

    task: Name = Field(description="folder of finetrail/tasks and of recipes")
    recipe: Name = Field(description="recipes/TASK/RECIPE.yaml, without the ending")
    seed: int = Field(ge=0, lt=2**32, description="initial weights, dropout, order of batches")
    launcher: str = Field(
        pattern=LAUNCHER,
        description="what starts the train stage: python, accelerate launch, torchrun. A shell runs it: whoever may "
        "write params.yaml may run any program",
    )
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] | None = Field(
        description="where train sends its curves, beside metrics/train; null: nowhere. Switching it reruns no stage"
    )
    threads: int | None = Field(
        ge=1,
        le=1024,
        description="CPU threads of train, evaluate and export; null: as many as the libraries choose. With portable "
        "numerics they only share the work: no byte depends on them",
    )
    lr: float | None = Field(gt=0, description="replaces train.lr")
    epochs: float | None = Field(gt=0, description="replaces train.epochs")
    batch_size: int | None = Field(ge=1, description="replaces train.batch_size")
    limit: int | None = Field(ge=1, description="replaces tokenize.limit: at most so many examples of each split")


# --- sources: where a corpus or a base model comes from -----------------------------------------------------------


class PackageSource(Settings):
    """Files of an installed Python package, read without importing it."""

    kind: Literal["package"]
    package: str = Field(min_length=1, description="distribution name, as pip installs it")
    version: str = Field(min_length=1, description="the installed version must be this one")
    path: str = Field(min_length=1, description="file or folder, relative to site-packages")
    sha256: Sha256 | None = Field(description=SHA256_HELP)


class FileSource(Settings):
    """Local files: one file, a folder, or a glob. DVC does not watch them: pin sha256 to notice a change."""

    kind: Literal["file"]
    path: str = Field(min_length=1, description="file, folder or glob; relative to the project's root, or absolute")
    sha256: Sha256 | None = Field(description=SHA256_HELP)


class ArchiveSource(Settings):
    """A local archive, unpacked as one that comes by URL; paths of splits are those inside it."""

    kind: Literal["archive"]
    path: str = Field(
        min_length=1, description="a .gz, .zip, .tar or .tar.gz, or a glob; relative to the project's root, or absolute"
    )
    sha256: Sha256 | None = Field(description=SHA256_HELP)
    max_unpacked_mib: int = Field(ge=1, description="an archive that unpacks to more is refused")


def refuse_credentials(url: str) -> None:
    """Raise ValueError for a URL with a password in it, or a user name where none belongs, which Git would keep."""
    parts = urlsplit(url)
    if "@" in parts.netloc and (parts.password is not None or parts.scheme in ("http", "https")):
        # Not even in this message: it may end in a log.
        raise ValueError(f"a URL to {parts.hostname} has a user name in it; expected it in ~/.netrc")


class UrlSource(Settings):
    """Files fetched by URL: http(s), or any protocol that fsspec opens; archives are unpacked."""

    kind: Literal["url"]
    urls: list[str] = Field(min_length=1, description="one file each; .gz, .zip, .tar and .tar.gz are unpacked")
    sha256: list[Sha256] | None = Field(description="sha256 of each file as served, in the order of urls; null: any")
    max_unpacked_mib: int = Field(
        ge=1, description="a file that is larger, or an archive that unpacks to more, is refused"
    )

    @model_validator(mode="after")
    def _no_credentials(self) -> "UrlSource":
        for url in self.urls:
            refuse_credentials(url)
        return self

    @model_validator(mode="after")
    def _one_hash_each(self) -> "UrlSource":
        if self.sha256 is not None and len(self.sha256) != len(self.urls):
            raise ValueError(f"sha256 has {len(self.sha256)} entries for {len(self.urls)} urls; expected one each")
        return self


class HubSource(Settings):
    """A dataset or a model of the Hugging Face Hub (HF_ENDPOINT names another), at a revision."""

    kind: Literal["hub"]
    repo: str = Field(pattern=HUB_ID, description="OWNER/NAME")
    config: str | None = Field(description="a dataset's configuration; null for its only one, and for models")
    revision: str = Field(min_length=1, description="commit, tag, branch or ref; resolved to its commit and recorded")
    max_mib: int | None = Field(ge=1, lt=MOST_MIB, description=MAX_MIB_HELP)


class DvcSource(Settings):
    """An output of this or of another DVC repository, at a Git revision or experiment."""

    kind: Literal["dvc"]
    repo: str | None = Field(description="URL or path of the DVC repository; null is this one")
    rev: str | None = Field(description="Git revision or experiment name; null is the workspace")
    path: str = Field(min_length=1, description="the output, or a file in it, relative to the repository's root")
    sha256: Sha256 | None = Field(description=SHA256_HELP)
    max_mib: int | None = Field(ge=1, lt=MOST_MIB, description=MAX_MIB_HELP)

    @model_validator(mode="after")
    def _stays_in_the_repository(self) -> "DvcSource":
        if PurePosixPath(self.path).is_absolute() or ".." in PurePosixPath(self.path).parts:
            raise ValueError(f"path {self.path!r} leads out of the repository; expected one in it, or kind: file")
        return self

    @model_validator(mode="after")
    def _no_credentials(self) -> "DvcSource":
        refuse_credentials(self.repo or "")
        return self


# In data/model/tokenizer of a new model, in place of a tokenizer: how the tokenize stage trains one.
TOKENIZER_TO_TRAIN = "tokenizer_to_train.json"


class TokenizerToTrain(Settings):
    """Byte-level BPE, trained on the corpus's train split (Radford et al. 2019); it has no unknown characters."""

    kind: Literal["byte_level_bpe"]
    vocab_size: int = Field(ge=257, description="256 bytes, the token that ends a text, and the merges")
    min_frequency: int = Field(ge=1, description="a pair that stands less often in train is not merged")


class NewSource(Settings):
    """A model made from its configuration, with random weights, and with a tokenizer trained on the train split."""

    kind: Literal["new"]
    config: dict[str, str | int | float | bool | None] = Field(
        description="of transformers, with model_type; vocab_size and the special tokens' ids follow from the tokenizer"
    )
    tokenizer: TokenizerToTrain

    @model_validator(mode="after")
    def _only_what_does_not_follow(self) -> "NewSource":
        if not isinstance(self.config.get("model_type"), str):
            raise ValueError("config has no model_type; expected one that transformers knows, such as gpt2")
        given = [key for key in self.config if key == "vocab_size" or key.endswith("_token_id")]
        if given:
            raise ValueError(f"config has {given[0]}, which follows from the tokenizer; expected it without")
        return self


Source = Annotated[
    PackageSource | FileSource | ArchiveSource | UrlSource | HubSource | DvcSource, Field(discriminator="kind")
]
ModelSource = Annotated[
    PackageSource | FileSource | ArchiveSource | UrlSource | HubSource | DvcSource | NewSource,
    Field(discriminator="kind"),
]


# --- corpus -------------------------------------------------------------------------------------------------------


class Splits(Settings):
    """Where each split is: a path or glob in the source, a Hub split, or a fraction carved out of train."""

    train: str = Field(min_length=1, description="path or glob inside the source; a Hub dataset's split")
    validation: str | Fraction = Field(description="the same, or the fraction of train's file to carve out")
    test: str | Fraction = Field(description="the same, or the fraction of train's file to carve out")
    seed: int = Field(ge=0, description="of the carving; not params.yaml's seed, so that seeds share their splits")
    stratify: str | None = Field(
        min_length=1,
        description="column of the task whose values each carved split has in proportion; of "
        "lists, neither order nor repetitions count; null: by chance",
    )
    group: str | None = Field(
        min_length=1,
        description="column, the task's or one more: examples that share its value go into one carved split, which "
        "then has at most its fraction; null: each alone",
    )

    @model_validator(mode="after")
    def _something_left(self) -> "Splits":
        if sum(split for split in (self.validation, self.test) if isinstance(split, float)) >= 1:
            raise ValueError("validation and test leave nothing for train; expected fractions that sum to below 1")
        return self

    @model_validator(mode="after")
    def _one_rule(self) -> "Splits":
        if self.stratify is not None and self.group is not None:
            raise ValueError(
                f"stratify {self.stratify!r} and group {self.group!r}: whole groups are in no proportion; "
                "expected one of the two, the other null"
            )
        return self


ENCODING_HELP = "of files without a byte order mark, which overrides it; bytes that do not fit are an error"


def told(message: str) -> WrapValidator:
    """Return what says one message in place of pydantic's, which has one for each member of a union."""

    def validated(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise ValueError(f"{message}; got {value!r}") from None

    return WrapValidator(validated)


JOINED = "Of a list, the texts are joined by blanks, without empty ones"
CsvColumn = Annotated[
    str | int | Annotated[list[str | int], Field(min_length=1)],
    told("expected the name of a column, or its number from 0 in files without a header line, or a list of either"),
]


PathColumn = Annotated[
    str | Annotated[list[str], Field(min_length=1)],
    told("expected the name of a column, the path of one such as labels.score, or a list of either"),
]
PATH_HELP = f"or its path, such as labels.score, or a list of them. {JOINED}"


class ConllReader(Settings):
    """Columns of a text file, one token a line, a blank line between sentences."""

    format: Literal["conll"]
    separator: str | None = Field(min_length=1, description="between columns; null is any run of whitespace")
    token_column: int = Field(description="index of the token's column; negative counts from the end")
    label_column: int = Field(description="index of the label's column; negative counts from the end")
    comment: str | None = Field(
        min_length=1, description="lines that begin so before the first token of a sentence are skipped; null: none are"
    )
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class ConlluReader(Settings):
    """Universal Dependencies' ten columns; multiword ranges and empty nodes are left out."""

    format: Literal["conllu"]
    label: Literal["upos", "xpos", "deprel"] = Field(description="the column to predict")
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class JsonLinesReader(Settings):
    """One JSON object a line."""

    format: Literal["jsonl"]
    columns: dict[str, PathColumn] = Field(description=f"the task's column -> the object's key, {PATH_HELP}")
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class JsonReader(Settings):
    """One JSON array of objects, as KLUE has it; it is read whole."""

    format: Literal["json"]
    array: str | None = Field(
        min_length=1, description="path of the array in the file, such as data; null: the file is the array"
    )
    columns: dict[str, PathColumn] = Field(description=f"the task's column -> the object's key, {PATH_HELP}")
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class ParquetReader(Settings):
    """Parquet files, and Hub datasets: ClassLabel features are read as their names."""

    format: Literal["parquet"]
    columns: dict[str, PathColumn] = Field(description=f"the task's column -> the file's column, {PATH_HELP}")


class CsvReader(Settings):
    """Delimited text, with or without a header line: CSV, TSV."""

    format: Literal["csv"]
    columns: dict[str, CsvColumn] = Field(
        description="the task's column -> the file's column, or a list of them. Names: the first line is a header; "
        f"whole numbers: there is none, they count columns from 0, negative ones from the end. {JOINED}"
    )
    delimiter: str = Field(pattern=DELIMITER, description="between columns")
    quoting: Literal["minimal", "none"] = Field(
        description="minimal: a field may stand in double quotes, where they are doubled; none: quotes are text"
    )
    encoding: str = Field(min_length=1, description=ENCODING_HELP)

    @model_validator(mode="after")
    def _names_or_numbers(self) -> "CsvReader":
        given = [
            part for column in self.columns.values() for part in (column if isinstance(column, list) else [column])
        ]
        if len({type(part) for part in given}) > 1:
            raise ValueError(
                f"columns has names and numbers: {', '.join(map(repr, given))}; expected names where the file has a "
                "header line, numbers where it has none"
            )
        return self


class TextReader(Settings):
    """Plain text: one example a file, a line or a paragraph."""

    format: Literal["text"]
    unit: Literal["file", "line", "paragraph"] = Field(description="an example; blank lines part paragraphs")
    columns: dict[str, Literal["text", "first_line", "rest", "folder", "stem"]] = Field(
        description="the task's column -> the whole text, its first line, the text after that, the name of the file's "
        "folder, or of the file without its ending"
    )
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class SquadReader(Settings):
    """SQuAD's JSON (1.1, 2.0, KorQuAD 1.0): articles of paragraphs of questions."""

    format: Literal["squad"]


class BeirReader(Settings):
    """BEIR's layout: documents and queries as JSON lines, judgements (qrels) as one TSV a split."""

    format: Literal["beir"]
    documents: str = Field(min_length=1, description="JSON lines of _id, title, text; path inside the source")
    queries: str = Field(min_length=1, description="JSON lines of _id, text; path inside the source")


# --- readers of character spans -----------------------------------------------------------------------------------


class SpanRules(Settings):
    """How character spans become tags of words; what is mended or left out is counted, with an example of each."""

    words: Literal["unicode", "punctuation", "characters"] = Field(
        description="what cuts texts into words, in inference too. unicode: word boundaries of Unicode (UAX #29), so "
        "that 3.5 and Ada's are one word; punctuation: each punctuation mark is also a word; characters: each one is "
        "a word, for languages that write particles onto names, or no blanks"
    )
    units: Literal["characters", "utf16", "graphemes"] = Field(
        description="what start and end count. characters: of Unicode, as Python and most tools do; utf16: code units, "
        "as doccano does and Label Studio did, where an emoji is two; graphemes: what people see as one character, an "
        "option of doccano"
    )
    blanks: Literal["trim", "drop", "refuse"] = Field(description="of spans with white space at their ends")
    inside_words: Literal["snap", "drop", "refuse"] = Field(
        description="of spans that begin or end inside a word; snap: take the whole word"
    )
    overlapping: Literal["longest", "refuse"] = Field(
        description="of spans that share a word, nested ones too; longest: keep the one of most words, of equals the "
        "first"
    )
    empty: Literal["drop", "refuse"] = Field(description="of spans without text, or of white space alone")


class DoccanoReader(Settings):
    """doccano's JSONL of sequence labelling, with or without relations."""

    format: Literal["doccano"]
    spans: SpanRules
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class LabelStudioReader(Settings):
    """Label Studio's JSON and JSON-MIN, of a Text tag with Labels; the file is read whole."""

    format: Literal["label_studio"]
    text: str = Field(min_length=1, description="the key of a task's data that holds the text: $text in its Text tag")
    take: Literal["annotations", "predictions"] = Field(description="of people, or pre-annotations of a model")
    several: Literal["first", "last", "refuse"] = Field(
        description="annotations of one task: which one to take, after those marked as ground truth; cancelled ones "
        "are left out before"
    )
    spans: SpanRules
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class ProdigyReader(Settings):
    """Prodigy's JSONL, as db-out writes it: examples that were accepted."""

    format: Literal["prodigy"]
    spans: SpanRules
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class BratReader(Settings):
    """brat's standoff format: a .txt for each document, and a .ann beside it; splits name a folder, or the .txt."""

    format: Literal["brat"]
    discontinuous: Literal["cover", "drop", "refuse"] = Field(
        description="of spans in parts with more than white space between them; cover: from the first to the last"
    )
    spans: SpanRules
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class SpacyReader(Settings):
    """spaCy's .spacy files (DocBin), read by spaCy, which has to be installed."""

    format: Literal["spacy"]
    group: str | None = Field(min_length=1, description="a group of doc.spans, such as sc; null: doc.ents")
    spans: SpanRules


class SpansReader(Settings):
    """One JSON object a line: text, spans (a list of start, end, label), and perhaps id."""

    format: Literal["spans"]
    spans: SpanRules
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


SpanReader = DoccanoReader | LabelStudioReader | ProdigyReader | BratReader | SpacyReader | SpansReader


class Corpus(Settings):
    """What every corpus section has; a task adds its reader and its checks."""

    name: str = Field(
        min_length=1, max_length=200, pattern=ONE_LINE, description="what people call it: report and model card"
    )
    source: Source
    splits: Splits
    license: str | None = Field(
        max_length=200, pattern=ONE_LINE, description="SPDX id or name, where known; null takes what the source states"
    )
    language: str | None = Field(description="BCP 47 code for the model card; null where unknown or mixed")

    # Why such a corpus can be no part of a mixture.
    ALONE: ClassVar[str | None] = None

    def common(self) -> dict[str, Any]:
        """Return what all parts of a mixture must have in common, so that one model learns them: key -> value."""
        return {}

    @property
    def sliced_by(self) -> list[str]:
        """The columns whose values are slices; none where the section has no slices."""
        return list(getattr(self, "slices", []))

    @property
    def more_columns(self) -> set[str | None]:
        """The columns that reader.columns may have besides the task's own."""
        return {self.splits.group, *self.sliced_by}

    def beside(self) -> dict[str, Any]:
        """Return the tables that come from sources of their own: name -> a section with source and reader."""
        return {}


class Slices(Settings):
    """More columns of a corpus: each value is a slice, which is scored by itself too."""

    slices: list[Name] = Field(
        min_length=1,
        description="columns of reader.columns, such as source, or of the format, such as SQuAD's title or a comment "
        "`# genre = news` of CoNLL-U, that are kept with each example: the test split is scored by their values",
    )


class Mixture(Settings):
    """In place of a corpus: several of one task, mixed in training, and each scored by itself too."""

    name: str = Field(
        min_length=1, max_length=200, pattern=ONE_LINE, description="what people call all of it: report and model card"
    )
    license: str | None = Field(
        max_length=200,
        pattern=ONE_LINE,
        description="SPDX id or name, where known; null takes that of the parts, if it is one",
    )
    language: str | None = Field(description="BCP 47 code for the model card; null where unknown or mixed")
    parts: dict[Name, Corpus] = Field(
        min_length=2,
        description="name -> a whole corpus section, as the part has in a recipe of its own. Ids become NAME/ID; "
        "train.batching says how the parts are mixed",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> "Mixture":
        (first, one), *others = self.parts.items()
        if one.ALONE is not None:
            raise ValueError(f"parts: {one.ALONE}; expected one corpus")
        for name, other in others:
            for key, value in one.common().items():
                if (found := other.common()[key]) != value:
                    raise ValueError(
                        f"parts: {key} is {value!r} in {first} and {found!r} in {name}; expected the same in all parts"
                    )
        return self


def parts_of(corpus: "Corpus | Mixture") -> dict[str | None, Corpus]:
    """Return the parts of a corpus section by name; a corpus that is no mixture is its only part, without a name."""
    named: dict[str | None, Corpus] = {}
    if isinstance(corpus, Mixture):
        return named | corpus.parts
    return {None: corpus}


# --- numerics, model, train, evaluate, export ------------------------------------------------------------------------


class Model(Settings):
    """The base model."""

    name: str = Field(
        min_length=1, max_length=200, pattern=ONE_LINE, description="what people call it: the Hub id where it has one"
    )
    source: ModelSource
    license: str | None = Field(
        max_length=200, pattern=ONE_LINE, description="SPDX id or name, where known; null takes what the source states"
    )


class Teacher(Settings):
    """A finished model of the same task, with the base model's vocabulary and the corpus's labels."""

    name: str = Field(
        min_length=1, max_length=200, pattern=ONE_LINE, description="what people call it: the Hub id where it has one"
    )
    source: Source
    license: str | None = Field(
        max_length=200, pattern=ONE_LINE, description="SPDX id or name, where known; null takes what the source states"
    )
    batch_size: int = Field(ge=1, description="features a step, as its logits are computed")


class Student(Model):
    """A base model of which only some layers are kept, or that learns from a teacher, or both."""

    layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        min_length=1, description="layers of the base model to keep, from 0, in rising order; null: all"
    )
    teacher: Teacher | None = Field(
        description="whose logits it learns, as train.distillation says; null: it learns from the labels alone"
    )

    @model_validator(mode="after")
    def _layers_are_there(self) -> "Student":
        if self.layers is not None and self.layers != sorted(set(self.layers)):
            raise ValueError(f"layers is {self.layers}; expected each once, in rising order")
        if self.layers is not None and self.source.kind == "new":
            raise ValueError("layers: a new model has the layers of its config; expected null")
        return self


def either(plain: Any, larger: Any) -> Any:
    """Return the type of a section that may have the keys that `larger` adds to `plain`: all of them, or none."""
    added = larger.model_fields.keys() - plain.model_fields.keys()

    def form(value: Any) -> str:
        has_more = not added.isdisjoint(value) if isinstance(value, dict) else isinstance(value, larger)
        return "larger" if has_more else "plain"

    return Annotated[Annotated[plain, Tag("plain")] | Annotated[larger, Tag("larger")], Discriminator(form)]


def sliced(corpus: Any) -> Any:
    """Return the type of a task's corpus section that may have slices."""
    return either(corpus, create_model("SlicedCorpus", __base__=(corpus, Slices)))


class Tokenize(Settings):
    """How a corpus becomes features; a task adds what its features are. These two never change a byte of them."""

    engine: Literal["local", "ray"] = Field(description="local: this machine; ray: the Ray cluster at RAY_ADDRESS")
    num_proc: int = Field(ge=1, description="processes that encode; with ray: tasks at a time")

    # The settings that say how features are computed, and change no byte of them; here: by one process.
    IN_PROCESS: ClassVar[dict[str, Any]] = {"engine": "local", "num_proc": 1}

    def of_features(self) -> dict[str, Any]:
        """Return the settings that features depend on, which are all but those of IN_PROCESS.

        Records of a run (counts.json, record.json, finetrail.json) have these alone: if they named the engine, features
        from another engine would rerun every later stage.
        """
        return self.model_dump(exclude=set(self.IN_PROCESS))


class Lora(Settings):
    """Low-rank adapters on the base model's linear layers (Hu et al. 2021), merged into its weights after training."""

    rank: int = Field(ge=1, description="of the two matrices that are added to each weight")
    alpha: float = Field(gt=0, description="their product is scaled by alpha / rank")
    dropout: float = Field(ge=0, lt=1, description="on what goes into the adapters")
    target_modules: list[str] | None = Field(
        min_length=1, description="names of the linear layers, such as query and value; null: all of the base model"
    )
    keep: bool = Field(
        description="export the adapters too, as PEFT loads them on the base model, in the folder adapter"
    )
    quantize: Literal["nf4"] | None = Field(
        description="nf4: keep the weights below the adapters in 4 bits while these train (QLoRA, Dettmers et al. "
        "2023), on a CUDA device with bitsandbytes; null: as they are"
    )


class SizeMix(Settings):
    """Parts in proportion to a power of their size. 1 and 0.2 is annealed sampling (Stickland and Murray 2019)."""

    kind: Literal["size"]
    power: float = Field(
        ge=0, le=1, description="of the features of each part, in the first epoch; 1: as many as it has; 0: all alike"
    )
    last_power: float = Field(ge=0, le=1, description="the same in the last epoch, in even steps between")


class WeightMix(Settings):
    """Parts in proportion to weights."""

    kind: Literal["weight"]
    weights: dict[Name, Annotated[float, Field(gt=0)]] = Field(description="name of the part -> its weight, all parts")


class MixedBatching(Settings):
    """Batches of a mixture. An epoch has as many features as train; of a part that gives more of them than it has, all
    come once before one comes again, and of one that gives fewer, the next epoch goes on with the others."""

    by: Literal["length", "random"] = Field(description="as without a section")
    mix: Annotated[SizeMix | WeightMix, Field(discriminator="kind")] = Field(
        description="what share of an epoch each part has"
    )


def _form(value: Any) -> str:
    return "section" if isinstance(value, dict | Settings) else "name"


class Train(Settings):
    """Optimization; a task may add settings of its model."""

    engine: Literal["trainer", "accelerate"] = Field(
        description="the Hugging Face Trainer, or the loop of finetrail/training/loop.py; the same results"
    )
    lr: float = Field(gt=0, description="peak learning rate of AdamW")
    epochs: float = Field(gt=0, description="passes over the train split; a fraction stops inside one")
    batch_size: int = Field(ge=1, description="features a device and step; more than fit go through in parts")
    gradient_accumulation: int = Field(ge=1, description="batches of one update, whose loss is that of one big batch")
    weight_decay: float = Field(ge=0, description="AdamW's, on all but biases and norms")
    warmup: float = Field(ge=0, lt=1, description="fraction of all updates with a rising learning rate")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(description="of the learning rate")
    max_grad_norm: float = Field(gt=0, description="gradients are scaled down to this norm")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(description="auto: bf16 where the hardware has it")
    optimizer: Literal["adamw_torch_fused", "adamw_torch"] = Field(description="fused is faster, same algorithm")
    batching: Annotated[
        Annotated[Literal["length", "random"], Tag("name")] | Annotated[MixedBatching, Tag("section")],
        Discriminator(_form),
    ] = Field(
        description="length: batches of similar length, so little padding; either: each feature once an epoch; a "
        "section where the parts of a mixture have other shares of it"
    )
    eval_batch_size: int = Field(ge=1, description="features a device and step, without gradients")
    best_metric: str = Field(min_length=1, description="validation metric that chooses the checkpoint; or loss")
    patience: int | None = Field(
        ge=1,
        description="epochs without a better best_metric before it stops; while a score is 0 "
        "those in which a loss falls do not count; null: never",
    )
    log_steps: int = Field(ge=1, description="updates between two points of the loss curve")
    layer_decay: float = Field(
        gt=0, le=1, description="a layer's learning rate as a share of the one above it (Sun et al. 2019); 1: the same"
    )
    unfreeze_layers: int | None = Field(
        ge=1, description="layers that join training at the start of each epoch, from the top (Howard and Ruder 2018); "
        "null: all train from the first"
    )  # fmt: skip
    checkpoint_every: str | None = Field(
        pattern=INTERVAL,
        description="'500 updates' or '10 minutes': at the next point of the loss curve, besides each epoch, so "
        "that a killed run goes on from there; null: at each epoch only",
    )
    gradient_checkpointing: bool = Field(
        description="compute activations anew in the backward pass: less memory, slower"
    )
    execution: Literal["auto", "eager", "graphs", "compile"] = Field(
        description="eager: kernel by kernel; graphs: as recorded CUDA graphs; compile: by torch.compile, slow to "
        "start; auto: graphs in long runs on one GPU, else eager"
    )
    lora: Lora | None = Field(description="train adapters instead of the base model's weights; null: all weights")

    @property
    def piece_size(self) -> int:
        """Features that go through the model at once, unless memory ends before."""
        return self.batch_size

    @model_validator(mode="after")
    def _layers_train(self) -> "Train":
        if self.lora is not None and (self.unfreeze_layers is not None or self.layer_decay < 1):
            raise ValueError(
                "lora freezes the layers, and layer_decay and unfreeze_layers say how they train; "
                "expected layer_decay 1.0 and no unfreeze_layers, or no lora"
            )
        return self


class Distillation(Settings):
    """The loss of a student: the weighted sum of that of the labels and that of its teacher's logits."""

    temperature: float = Field(
        gt=0,
        description="logits are divided by it before the softmax, the loss multiplied by its square (Hinton et al. "
        "2015); above 1 the unlikely labels count more",
    )
    labels_weight: float = Field(ge=0, description="of the loss that the labels give")
    teacher_weight: float = Field(
        gt=0, description="of the Kullback-Leibler divergence of the student's probabilities from the teacher's"
    )


ClassWeights = Annotated[
    Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None,
    told(
        "expected balanced, null, or for each label a weight above 0; a label that YAML takes for a number or a truth "
        "value, such as '0', stands in quotes"
    ),
]


class ClassifierTrain(Train):
    """Optimization of what chooses one label of several. Validation has the plain loss: comparable between settings."""

    label_smoothing: float = Field(
        ge=0, lt=1, description="share of the target that all labels get alike (Szegedy et al. 2016); train only"
    )
    class_weights: ClassWeights = Field(
        description="label -> weight of its losses, all labels; balanced: more for rare ones, 1 on average; null: all "
        "alike; train only"
    )


class Bootstrap(Settings):
    """Percentile intervals over resampled examples (Efron 1979; Koehn 2004 for NLP)."""

    samples: int = Field(ge=100, description="resamplings with replacement")
    confidence: Fraction = Field(description="0.95 gives the 2.5th and the 97.5th percentile")
    seed: int = Field(ge=0, description="of the resampling; not params.yaml's seed, so that seeds share it")


class Evaluate(Settings):
    """Prediction on validation and test; a task adds how it scores."""

    batch_size: int = Field(ge=1, description="features a step")
    bootstrap: Bootstrap
    worst_errors: int = Field(ge=0, description="errors kept for the report, the most confident first")


class Recipe(Settings):
    """A whole recipe; params.py adds the sections, which differ between tasks."""

    numerics: Literal["fast", "portable"] = Field(
        description="fast: the best kernels of this machine; portable: the same bytes on every x86-64 CPU with AVX2, "
        "with any number of cores, in fp32"
    )


def check(recipe: Any) -> Iterator[str]:
    """Yield what settings of a recipe of any task contradict each other in."""
    if recipe.numerics == "portable":
        if recipe.train.precision not in ("auto", "fp32"):
            yield (
                f"numerics is portable, which computes in fp32, and train.precision is {recipe.train.precision}; "
                "expected precision auto or fp32, or numerics fast"
            )
        if recipe.train.execution == "compile":
            yield (
                "numerics is portable, and train.execution: compile compiles for this CPU; "
                "expected execution auto or eager, or numerics fast"
            )
    yield from _distillation(recipe)
    yield from _students(recipe)
    for part, corpus in parts_of(recipe.corpus).items():
        yield from _corpus("corpus" if part is None else f"corpus.parts.{part}", corpus)
    yield from _mix(recipe)
    yield from _push(recipe)


def _push(recipe: Any) -> Iterator[str]:
    if recipe.export.hub_repo is not None and recipe.tokenize.limit is not None:
        yield (
            "export.hub_repo pushes the model, and tokenize.limit lets it see only a part of its corpus; expected one "
            "of the two, the other null"
        )


def _corpus(key: str, corpus: Any) -> Iterator[str]:
    source, splits, reader = corpus.source, corpus.splits, corpus.reader
    if source.kind == "hub" and reader.format != "parquet":
        yield f"{key}.reader.format: {reader.format}, and datasets of the Hub come as Parquet; expected parquet"
    if isinstance(splits.validation, str) and isinstance(splits.test, str):
        for setting in ("stratify", "group"):
            if (column := getattr(splits, setting)) is not None:
                yield f"{key}.splits.{setting}: {column!r}, and no split is a fraction of train's file; expected null"
    if corpus.sliced_by and (instead := _without_columns(reader)):
        yield f"{key}.slices: {instead}"
    columns = getattr(reader, "columns", corpus.sliced_by)  # where a format has its own, download tells
    if missing := [name for name in corpus.sliced_by if name not in columns]:
        yield f"{key}.slices: {missing[0]!r} is not in reader.columns; expected one of {', '.join(columns)}"


def _without_columns(reader: Any) -> str | None:
    """Return why a reader gives no more columns than the task's own; None where it may."""
    if isinstance(reader, BratReader | SpacyReader):
        return f"files of {reader.format} have no columns beside text and spans; expected no slices"
    if isinstance(reader, ConllReader) and reader.comment is None:
        return "of conll they stand in comments, such as # domain=news; expected reader.comment: '#', or no slices"
    return None


def _mix(recipe: Any) -> Iterator[str]:
    corpus, batching = recipe.corpus, recipe.train.batching
    if not isinstance(batching, MixedBatching):
        return
    if not isinstance(corpus, Mixture):
        yield "train.batching mixes parts, and corpus has none; expected length or random"
    elif isinstance(batching.mix, WeightMix) and set(batching.mix.weights) != set(corpus.parts):
        yield (
            f"train.batching.mix.weights has {', '.join(batching.mix.weights)}; expected the parts of corpus, "
            f"{', '.join(corpus.parts)}"
        )


def check_trained_before(recipe: Any) -> Iterator[str]:
    """Yield what is wrong with a new model, for a task that fine-tunes and cannot train from nothing."""
    if recipe.model.source.kind == "new":
        yield "model.source: kind new is for text_generation; expected a model that was trained before"


def _students(recipe: Any) -> Iterator[str]:
    layers, lora = getattr(recipe.model, "layers", None), recipe.train.lora
    if layers is not None and lora is not None and lora.keep:
        yield (
            "train.lora.keep: adapters of a model without some of its layers fit no model that others have; expected "
            "false, or model.layers null"
        )


def _distillation(recipe: Any) -> Iterator[str]:
    has_teacher = getattr(recipe.model, "teacher", None) is not None
    if has_teacher != hasattr(recipe.train, "distillation"):
        yield (
            "model.teacher and train.distillation go together, in tasks whose train has that section; expected "
            f"{'train.distillation too, or no teacher' if has_teacher else 'model.teacher too, or neither'}"
        )
    if has_teacher and recipe.train.execution not in ("auto", "eager"):
        yield (
            f"train.execution: {recipe.train.execution} is not for a loss with a teacher, whose tokens with labels are "
            "looked for in each pass; expected auto or eager"
        )


class Export(Settings):
    """What the exported folder holds beside safetensors, tokenizer, model card and onnx/model.onnx."""

    int8: bool = Field(description="also write onnx/model_quantized.onnx (int8), if it stays within max_metric_drop")
    max_metric_drop: float = Field(ge=0, description="of the headline test metric, absolute, int8 against torch")
    hub_repo: str | None = Field(pattern=OWNED_HUB_ID, description="OWNER/NAME to push to; null: no push")
    hub_private: bool = Field(description="whether a repository that the push creates is private")
