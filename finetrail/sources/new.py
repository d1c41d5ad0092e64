"""A model that does not exist yet -> its configuration, and how its tokenizer is to be trained, as files."""

from pathlib import Path

from finetrail import schema
from finetrail.sources.model_files import CONFIG
from finetrail.sources.provenance import Fetched, record
from finetrail.stage import remove, write_json

END_OF_TEXT_ID = 0  # the trainer puts special tokens first, and there is one


def fetch(source: schema.NewSource, scratch: Path) -> Fetched:
    """Write config.json and the tokenizer's settings under scratch."""
    root = scratch / "new"
    remove(root)
    root.mkdir(parents=True)
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), END_OF_TEXT_ID)
    write_json(root / CONFIG, source.config | {"vocab_size": source.tokenizer.vocab_size} | ids)
    write_json(root / schema.TOKENIZER_TO_TRAIN, source.tokenizer.model_dump())
    return record(source, root, [CONFIG, schema.TOKENIZER_TO_TRAIN])
