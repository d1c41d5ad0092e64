"""Every path of the pipeline, once; relative to the project's root, where DVC runs each stage."""

from pathlib import Path

PARAMS = Path("params.yaml")
GRAPH = Path("dvc.yaml")
LOCK = Path("dvc.lock")
RECIPES = Path("recipes")
# Name of the file, in the folder of each task, with the settings that its recipes share. No recipe has this name.
DEFAULTS = "defaults"

SPLITS = ("train", "validation", "test")
# The corpus's table of what another run found for train's queries: tokenize alone reads it.
RANKINGS = "rankings"
# The column that a mixture has more, in the corpus, the features and the predictions: which part a row is of.
PART = "part"
# Prefix of the columns of corpus.slices in the corpus and the predictions; it keeps them apart from the task's columns.
SLICE = "slice_"

# data/: outputs of the stages, in the DVC cache and not in Git.
CORPUS = Path("data/corpus")
CORPUS_PROVENANCE = CORPUS / "provenance.json"
CORPUS_CHECKS = CORPUS / "checks.json"
MODEL = Path("data/model")
MODEL_PROVENANCE = MODEL / "provenance.json"
WEIGHTS = MODEL / "weights"
BASE_TOKENIZER = MODEL / "tokenizer"
# Only if the recipe names a teacher.
TEACHER = MODEL / "teacher"
TOKENIZED = Path("data/tokenized")
TARGET = TOKENIZED / "target.json"
USED_TOKENIZER = TOKENIZED / "tokenizer"
TOKENIZED_COUNTS = TOKENIZED / "counts.json"
TAUGHT = Path("data/taught")
TAUGHT_LOGITS = TAUGHT / "train.arrow"
TAUGHT_BY = TAUGHT / "teacher"
TRAINED = Path("data/trained")
TRAINING_RECORD = TRAINED / "training.json"
TRAINED_ADAPTER = TRAINED / "adapter"
PREDICTIONS = Path("data/predictions.parquet")
# The candidates that a first stage found, one table per split, for later runs; empty if the recipe asks for none.
CANDIDATES = Path("data/candidates")
EXPORTED = Path("data/exported")
EXPORT_SETTINGS = EXPORTED / "finetrail.json"
EXPORTED_ADAPTER = EXPORTED / TRAINED_ADAPTER.name

# metrics/: results for people. Only RECORD and METRICS are in Git.
TRAIN_HISTORY = Path("metrics/train")
CURVES = TRAIN_HISTORY / "plots/metrics"
EVALUATION = Path("metrics/evaluation")
EVALUATION_METRICS = EVALUATION / "metrics.json"
EVALUATION_ERRORS = EVALUATION / "errors.json"
EXPORT_METRICS = Path("metrics/export.json")
# Timings of the last run on this machine; neither Git nor DVC tracks them, so that equal runs stay equal.
TRAIN_TIMINGS = Path("metrics/train_timings.json")
EXPORT_TIMINGS = Path("metrics/export_timings.json")
TIMED_REPORT = Path("metrics/report_with_timings.html")
# RECORD: settings, data, machine and all scores of a run. METRICS: the few of these scores that DVC shows.
RECORD = Path("metrics/record.json")
METRICS = Path("metrics/metrics.json")
REPORT = Path("metrics/report.html")
PLOTS = Path("metrics/plots")

# Outputs of stages that later stages read.
OUTPUTS = (
    *(CORPUS, MODEL, TOKENIZED, TAUGHT, TRAINED, PREDICTIONS, CANDIDATES, EXPORTED),
    *(TRAIN_HISTORY, EVALUATION, EXPORT_METRICS),
)

# Partial downloads and checkpoints: survives a failed stage, never in Git or in the DVC cache.
SCRATCH = Path(".scratch")


def table_file(folder: Path, table: str) -> Path:
    """Return the Parquet file of one table of data/corpus: a split, or a table that the splits share (documents)."""
    return folder / f"{table}.parquet"


def features_file(table: str) -> Path:
    """Return the Arrow stream of one table's features: plain Arrow, so that training maps it into memory."""
    return TOKENIZED / f"{table}.arrow"


def recipe_file(task: str, recipe: str) -> Path:
    """Return the recipe's file, as dvc.yaml names it: recipes/${task}/${recipe}.yaml."""
    return RECIPES / task / f"{recipe}.yaml"


def recipe_files(root: Path = Path(), task: str = "*") -> list[Path]:
    """Return the files of all recipes of a project, or of one task, sorted."""
    return sorted(path for path in (root / RECIPES).glob(f"{task}/*.yaml") if path.stem != DEFAULTS)


def defaults_file(task: str) -> Path:
    """Return the file of a task's defaults, as dvc.yaml names it: recipes/${task}/defaults.yaml."""
    return RECIPES / task / f"{DEFAULTS}.yaml"


def has_weights(model: Path) -> bool:
    """Return True if a model's folder has weights; a base model that is made new has a configuration alone."""
    return any(model.glob("*.safetensors"))
