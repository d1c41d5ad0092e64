"""Every path of the pipeline, once; relative to the project's root, where DVC runs each stage."""

from pathlib import Path

PARAMS = Path("params.yaml")
GRAPH = Path("dvc.yaml")
RECIPES = Path("recipes")

SPLITS = ("train", "validation", "test")

# data/: outputs of the stages, in the DVC cache and not in Git.
CORPUS = Path("data/corpus")
CORPUS_PROVENANCE = CORPUS / "provenance.json"
CORPUS_CHECKS = CORPUS / "checks.json"
MODEL = Path("data/model")
MODEL_PROVENANCE = MODEL / "provenance.json"
WEIGHTS = MODEL / "weights"
BASE_TOKENIZER = MODEL / "tokenizer"
TOKENIZED = Path("data/tokenized")
LABEL_NAMES = TOKENIZED / "label_names.json"
USED_TOKENIZER = TOKENIZED / "tokenizer"
TOKENIZED_COUNTS = TOKENIZED / "counts.json"
TRAINED = Path("data/trained")
TRAINING_RECORD = TRAINED / "training.json"
PREDICTIONS = Path("data/predictions.parquet")
EXPORTED = Path("data/exported")

# metrics/: what people look at. Only METRICS is in Git.
TRAIN_HISTORY = Path("metrics/train")
EVALUATION = Path("metrics/evaluation")
EVALUATION_METRICS = EVALUATION / "metrics.json"
EVALUATION_ERRORS = EVALUATION / "errors.json"
EXPORT_METRICS = Path("metrics/export.json")
# Of the last run on this machine; in neither cache, so that equal runs stay equal.
TRAIN_TIMINGS = Path("metrics/train_timings.json")
METRICS = Path("metrics/metrics.json")
REPORT = Path("metrics/report.html")

# Partial downloads and checkpoints: survives a failed stage, never in Git or in the DVC cache.
SCRATCH = Path(".scratch")


def split_file(folder: Path, split: str) -> Path:
    """Return the Parquet file of one split in data/corpus."""
    return folder / f"{split}.parquet"


def features_file(split: str) -> Path:
    """Return the Arrow stream of one split's features: plain Arrow, so that training maps it into memory."""
    return TOKENIZED / f"{split}.arrow"


def recipe_file(task: str, recipe: str) -> Path:
    """Return the recipe's file, as dvc.yaml names it: recipes/${task}/${recipe}.yaml."""
    return RECIPES / task / f"{recipe}.yaml"
