"""Turns texts into blocks of tokens, and prompts with completions, or chats, into one feature each, without torch.

A document ends with the token eos; documents are joined and cut into blocks, or each is cut on its own. The loss is on
all tokens of a block except its first, which has no context, and on those of a completion, not on its prompt's. Of
a conversation it is on the turns of the assistant, each with the token that ends it, which is eos.
"""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetrail import layout
from finetrail.encoding import chats, new_model, ragged
from finetrail.encoding.blocks import too_short
from finetrail.encoding.engines import Batch, Features, OrderedMap
from finetrail.encoding.tokenizer import (
    check_tokens,
    loaded,
    model_positions,
    pad_on_the_right,
    plain_backend,
    require_fast,
    require_folder,
)
from finetrail.errors import UserError
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.text_generation.settings import PLACE, Chat, Target, Tokenize

# Optional in tasks/contract.py, and not used here.
TOGETHER = needed = None

# Share of a block that is left to the prompt if the completion is too long.
LEAST_PROMPT = 4  # a quarter

# Result of encode(): all tokens of a text. Labels are the tokens themselves; the model shifts them.
TOKENS = pa.schema([("example", pa.int32()), ("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
# example: row in data/corpus of the first token's text. bytes: number of UTF-8 bytes of the labels' text.
FEATURES = TOKENS.append(pa.field("bytes", pa.int32()))


def load_tokenizer(folder: Path, settings: Tokenize, train: Callable[[], Iterator[pa.Table]]) -> Any:
    """Load the base model's tokenizer, or train the new model's; UserError if it does not fit the model."""
    from transformers import AutoConfig  # seconds to import, and encode() does not need it

    require_folder(folder)
    tokenizer = new_model.train_tokenizer(folder, _texts(train)) if new_model.is_new(folder) else _pretrained(folder)
    if settings.eos_token is not None:
        if settings.eos_token not in tokenizer.get_vocab():
            raise UserError(f"tokenize.eos_token: {settings.eos_token!r} is not in the vocabulary; expected a token")
        tokenizer.eos_token = settings.eos_token
    if settings.chat is not None:
        _use_chat_template(tokenizer, settings)
    if tokenizer.eos_token is None:
        raise UserError(f"{folder}: the tokenizer has no eos_token; expected one in tokenize.eos_token")
    pad_on_the_right(folder, tokenizer)
    config = AutoConfig.from_pretrained(folder)
    check_tokens(folder, tokenizer, config.vocab_size)
    limit = model_positions(config)
    if limit is not None and settings.block_size > limit:
        raise UserError(f"tokenize.block_size: {settings.block_size} is above the {limit} positions of the base model")
    return tokenizer


def target(train: Iterator[pa.Table], settings: Tokenize) -> Target:
    """Return how a prompt is laid out for the model: by a template, or as a chat, by the tokenizer's chat template."""
    return {"block_size": settings.block_size, "template": settings.template, "chat": settings.chat is not None}


class Encoder:
    """Encodes tables of texts."""

    survey = None

    def __init__(self, tokenizer: Any, target: Target, settings: Tokenize) -> None:
        self.backend = plain_backend(tokenizer)
        self.eos = tokenizer.eos_token_id
        self.template = settings.template or PLACE
        self.chats = None if settings.chat is None else chats.Encoder(tokenizer)
        self.settings, self.size = settings, settings.block_size
        self.join, self.keep = settings.join_documents, settings.remainder == "pad"
        self.token_bytes = token_bytes(tokenizer)
        self.tables = dict.fromkeys(layout.SPLITS, FEATURES)

    def encode_table(self, name: str, batches: Iterable[Batch], ordered_map: OrderedMap = map) -> Iterator[Features]:
        """Yield the features of each batch of (rows, examples) with their counts.

        Tokens of joined documents that do not fill a block go to the next batch, so blocks do not depend on batches.
        """
        rest = TOKENS.empty_table()
        for texts, are_documents, examples in ordered_map(self.part, batches):
            left_out = {"conversations_left_out": examples - len(texts)} if self.chats else {}
            if self.join and are_documents:
                texts, rest = self._join(pa.concat_tables([rest, texts]))
            features, counts = self._cut(texts, self.keep or not are_documents)
            yield features, {"examples": examples} | counts | left_out
        features, counts = self._cut(rest, self.keep)
        yield features, {"examples": 0} | counts

    def nothing(self, counts: dict[str, int]) -> str:
        """Return the message for a table that gives no block."""
        return too_short(counts, self.settings)

    def part(self, batch: Batch) -> tuple[pa.Table, bool, int]:
        """Return the TOKENS of one batch, whether its texts are documents, and how many examples it has."""
        rows, examples = batch
        # A null prompt means a document. A prompt "" means a text on its own, which is scored as a whole.
        are_documents = "messages" not in examples.column_names and examples["prompt"].null_count > 0
        return self.encode(examples, rows), are_documents, len(examples)

    def encode(self, examples: pa.Table, rows: np.ndarray) -> pa.Table:
        """Turn examples into TOKENS, one row each: a conversation, or a prompt, the text after it, and eos.

        A null text, which the model will continue, contributes no tokens and no eos. A conversation that the chat
        template refuses has no row if the recipe leaves it out; otherwise it is a UserError.
        """
        spoken = np.array([bool(messages) for messages in conversations(examples, self.chats is not None)])
        if not spoken.any():
            return self._texts(examples, rows)
        if spoken.all():
            return self._talks(examples, rows)
        # Inputs may mix conversations, and texts that are only scored, in one table.
        talks = self._talks(examples.filter(spoken), rows[spoken])
        return pa.concat_tables([talks, self._texts(examples.filter(~spoken), rows[~spoken])]).sort_by("example")

    def _talks(self, examples: pa.Table, rows: np.ndarray) -> pa.Table:
        if self.chats is None:
            raise UserError("messages: the model was not trained with tokenize.chat; expected a prompt")
        talks, names = conversations(examples, True), examples["id"].to_pylist()
        places = examples["place"].to_pylist() if "place" in examples.column_names else [None] * len(rows)

        def refused(number: int, reason: str) -> None:
            learned = talks[number][-1]["role"] == chats.ASSISTANT  # an input ends with another role
            if not learned or self.settings.chat is None or self.settings.chat.bad_conversations == "refuse":
                place = f"{places[number]}: " if places[number] else ""
                hint = "; or tokenize.chat.bad_conversations: leave_out" if learned else ""
                raise UserError(f"{place}example {names[number]!r}: {reason}{hint}")

        found = self.chats.encode(talks, refused)
        kept = [(row, *encoded) for row, encoded in zip(rows, found, strict=True) if encoded is not None]
        numbers, ids, labels = zip(*kept, strict=True) if kept else ((), (), ())
        return pa.table([pa.array(numbers, pa.int32()), [*ids], [*labels]], schema=TOKENS)

    def _texts(self, examples: pa.Table, rows: np.ndarray) -> pa.Table:
        prompts = [
            None if prompt is None else self.template.replace(PLACE, prompt) for prompt in _column(examples, "prompt")
        ]
        texts = _column(examples, "text")
        # The name of a special token is that token in a template; in a text it is plain text and ends no document.
        self.backend.encode_special_tokens = False
        before = self.backend.encode_batch_fast([prompt or "" for prompt in prompts], add_special_tokens=False)
        self.backend.encode_special_tokens = True
        after = self.backend.encode_batch_fast([text or "" for text in texts], add_special_tokens=False)
        self.backend.encode_special_tokens = False
        ids, labels = [], []
        for prompt, text, encoding in zip(before, texts, after, strict=True):
            body = [] if text is None else [*encoding.ids, self.eos]
            start = prompt.ids or ([self.eos] if text is None else [])  # the model needs something to continue
            ids.append(start + body)
            labels.append([IGNORE_INDEX] * len(start) + body)
        return pa.table([pa.array(rows, pa.int32()), ids, labels], schema=TOKENS)

    def _join(self, texts: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Join texts; return the blocks, one row each, and one row with the tokens after the last block."""
        example, starts, ids, labels = _flat(texts)
        whole = len(ids) // self.size * self.size
        sizes = np.full(whole // self.size, self.size)
        example = np.repeat(example, np.diff(starts))
        blocks = _tokens(example[: whole : self.size], sizes, ids[:whole], labels[:whole])
        left = np.array([len(ids) - whole] if len(ids) > whole else [], dtype=np.int64)
        return blocks, _tokens(example[whole:][:1], left, ids[whole:], labels[whole:])

    def _cut(self, texts: pa.Table, keep: bool) -> Features:
        """Cut documents into blocks, and shorten other texts that are too long: first prompts, then completions.

        A prompt loses its beginning, down to a quarter of a block; then the completion loses its end. Of a conversation
        the assistant's last turn is the completion, and all before it the prompt.
        """
        example, starts, ids, labels = _flat(texts)
        sizes = np.diff(starts)
        prompt_sizes = _before_last_run(labels, starts)
        is_prompted = prompt_sizes > 0
        excess = np.maximum(sizes - self.size, 0) * is_prompted
        room = np.maximum(self.size - (sizes - prompt_sizes), max(1, self.size // LEAST_PROMPT))
        of_prompts = np.maximum(prompt_sizes - room, 0)
        of_completions = excess - of_prompts
        first = starts[:-1] + of_prompts
        pieces = np.where(is_prompted, 1, -(-sizes // self.size))
        text = np.repeat(np.arange(len(sizes)), pieces)
        start = first[text] + (np.arange(len(text)) - ragged.bounds(pieces)[text]) * self.size
        size = np.minimum(self.size, starts[text + 1] - start)
        kept = is_prompted[text] | (size == self.size) | keep
        dropped = int(size[~kept].sum())
        text, start, size = text[kept], start[kept], size[kept]
        all_labels, labels = labels, ragged.gather(labels, start, size)
        labels[ragged.bounds(size)[:-1]] = IGNORE_INDEX
        features = _tokens(example[text], size, ragged.gather(ids, start, size), labels)
        of_token = np.where(labels == IGNORE_INDEX, 0, self.token_bytes[np.maximum(labels, 0)])
        amounts = np.diff(ragged.bounds(of_token)[ragged.bounds(size)])
        counts = {
            "features": len(text),
            "tokens": int(size.sum()),
            "examples_truncated": int((excess > 0).sum()),
            "tokens_truncated": int(excess.sum()),
            "tokens_dropped": dropped,
        }
        if of_completions.any():
            counts |= {
                "completions_truncated": int((of_completions > 0).sum()),
                "completion_tokens_truncated": int(of_completions.sum()),
            }
        if learned := int((ragged.gather(all_labels, starts[:-1], of_prompts) != IGNORE_INDEX).sum()):
            counts["earlier_turns_tokens_truncated"] = learned  # of the assistant's, so they are not learned
        return features.append_column(FEATURES.field("bytes"), pa.array(amounts, pa.int32())), counts


def conversations(examples: pa.Table, prompts_are_turns: bool) -> list[list[chats.Message]]:
    """Return the messages of each example; a prompt and its completion become messages, and a text gives []."""
    count = len(examples)
    given = examples["messages"].to_pylist() if "messages" in examples.column_names else [None] * count
    if not prompts_are_turns or "prompt" not in examples.column_names:
        return [messages or [] for messages in given]
    found = []
    for messages, prompt, text in zip(given, _column(examples, "prompt"), _column(examples, "text"), strict=True):
        question = [{"role": "user", "content": prompt}] if prompt else []
        answer = [{"role": chats.ASSISTANT, "content": text}] if prompt and text is not None else []
        found.append(messages or question + answer)
    return found


def token_bytes(tokenizer: Any) -> np.ndarray:
    """Return the number of UTF-8 bytes of each token, by id; 0 for special tokens."""
    from tokenizers import decoders

    backend = tokenizer.backend_tokenizer
    vocabulary = tokenizer.get_vocab()
    added = tokenizer.get_added_vocab()
    sizes = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
    anchor = backend.encode("a", add_special_tokens=False).ids  # some decoders strip the blank before a first token
    before = len(backend.decode(anchor, skip_special_tokens=False).encode())
    for token, number in vocabulary.items():
        if number in tokenizer.all_special_ids:
            continue
        if isinstance(backend.decoder, decoders.ByteLevel) and token not in added:
            sizes[number] = len(token)  # a character for each byte
        else:
            sizes[number] = len(backend.decode([*anchor, number], skip_special_tokens=False).encode()) - before
    return sizes


def _use_chat_template(tokenizer: Any, settings: Tokenize) -> None:
    """Give the tokenizer the chat template of the recipe, or leave its own, and make its eos what ends a turn there."""
    assert settings.chat is not None
    own = tokenizer.get_chat_template() if tokenizer.chat_template else None
    tokenizer.chat_template = _template(settings.chat, own)
    before = settings.eos_token
    try:
        for _ in range(2):  # the second time with the first one's, which the template may name as eos_token
            tokenizer.eos_token = end = chats.Template.of(tokenizer).end_of_turn()
    except chats.Refused as error:
        raise UserError(f"tokenize.chat: the template cannot be used: {error}; expected another template") from None
    if before not in (None, end):
        raise UserError(
            f"tokenize.eos_token: {before!r}, but the chat template ends a turn with {end!r}; expected that"
        )


def _template(settings: Chat, own: str | None) -> str:
    """Return the chat template of the recipe; UserError if there is none."""
    if settings.template is None:
        if own is None:
            raise UserError("tokenize.chat.template: the base model has no chat template; expected a template")
        return own
    if isinstance(settings.template, str):
        return settings.template
    wanted, path = settings.template.sha256, Path(settings.template.path)
    if own is not None and sha256(own.encode()).hexdigest() == wanted:  # so in an exported folder, without the file
        return own
    if not path.is_file():
        raise UserError(f"tokenize.chat.template.path: {path} is missing; expected a file with a chat template")
    content = path.read_bytes()
    if (found := sha256(content).hexdigest()) != wanted:
        raise UserError(f"{path}: its sha256 is {found}; expected tokenize.chat.template.sha256, {wanted}")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; expected a chat template") from None
    if "\r" in text:  # a saved tokenizer would have it without
        raise UserError(f"{path}: lines that end with \\r; expected \\n alone")
    return text


def _pretrained(folder: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # AutoTokenizer (5.23) makes GPT-2's byte-level BPE of any tokenizer.json beside a GPT-2's config: KoGPT2's, which
    # is another, then finds no tokens in Korean.
    kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    tokenizer = loaded(folder, lambda: kind.from_pretrained(folder))
    require_fast(folder, tokenizer)
    return tokenizer


def _texts(train: Callable[[], Iterator[pa.Table]]) -> Iterator[str]:
    for batch in train():
        if "messages" in batch.column_names:
            yield from (message["content"] for messages in _column(batch, "messages") for message in messages)
        else:
            yield from (text for column in ("prompt", "text") for text in _column(batch, column) if text)


def _column(examples: pa.Table, name: str) -> list[Any]:
    return list(examples[name].to_pylist())


def _flat(texts: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return example [n], where texts begin and end [n + 1], and the tokens and labels of all, one after the other."""
    ids, labels = (texts[name].combine_chunks() for name in ("input_ids", "labels"))
    starts = ids.offsets.to_numpy().astype(np.int64) - ids.offsets[0].as_py()
    return texts["example"].to_numpy(), starts, ids.flatten().to_numpy(), labels.flatten().to_numpy()


def _before_last_run(labels: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the number of tokens before the last run of labels of each text: 0 if all tokens have labels."""
    ignored = np.flatnonzero(labels == IGNORE_INDEX)
    # The last ignored token before each text's end, or one before the text.
    end = np.searchsorted(ignored, starts[1:])
    last = np.concatenate([[-1], ignored])[end]
    return np.maximum(last + 1 - starts[:-1], 0)


def _tokens(example: np.ndarray, sizes: np.ndarray, ids: np.ndarray, labels: np.ndarray) -> pa.Table:
    columns = [pa.array(example, pa.int32()), ragged.lists(sizes, ids), ragged.lists(sizes, labels)]
    return pa.table(columns, schema=TOKENS)
