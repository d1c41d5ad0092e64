"""The file names of a model's folder or repository -> those that a base model needs."""

from fnmatch import fnmatch
from pathlib import PurePosixPath

from finetrail.errors import UserError

CONFIG = "config.json"
CONFIGS = (CONFIG, "generation_config.json")
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.ckpt.index")
VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
# Files that transformers 5 saves besides the vocabulary; chat templates are separate files since 4.43.
TOKENIZER = (
    *VOCABULARY,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)


def choose(files: list[str], where: str) -> list[str]:
    """Return the model's files among the names of a folder; UserError if it cannot be a base model.

    Subfolders (1_Pooling, onnx) and weights in other formats are left out. `where` is for messages.
    """
    folder = _folder(files, where)
    names = [name.removeprefix(folder) for name in files if name.startswith(folder)]
    weights = [name for name in names if is_any(name, ("*.safetensors",))]
    if SINGLE in weights:
        weights = [SINGLE]
    elif INDEX in names:
        weights.append(INDEX)
    else:
        raise UserError(f"{where}: {_no_weights(names)}")
    tokenizer = [name for name in names if is_any(name, TOKENIZER)]
    if not any(is_any(name, VOCABULARY) for name in tokenizer):
        raise UserError(f"{where}: no tokenizer; expected {', '.join(VOCABULARY)} beside {CONFIG}")
    configs = [name for name in CONFIGS if name in names]
    return sorted(folder + name for name in [*configs, *weights, *tokenizer])


def is_any(name: str, patterns: tuple[str, ...]) -> bool:
    """Return True if a name matches a pattern in the same folder (* of fnmatch also matches a slash)."""
    return any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)


def _folder(files: list[str], where: str) -> str:
    """Return the prefix of the folder that holds the model: the root, or an archive's only top folder."""
    tops = {PurePosixPath(name).parts[0] for name in files}
    for folder in ("", *(f"{top}/" for top in tops if len(tops) == 1)):
        if folder + CONFIG in files:
            return folder
    raise UserError(f"{where}: no {CONFIG}; expected a folder as transformers saves it")


def _no_weights(names: list[str]) -> str:
    pickled = [name for name in names if is_any(name, PICKLED)]
    if not pickled:
        return f"no weights; expected {SINGLE}, or {INDEX} and its shards"
    return (
        f"its weights ({pickled[0]}) are in a format that can run code when loaded; expected {SINGLE}: "
        "if you trust them, convert them once with AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
    )
