"""Encodes conversations by a chat template, with labels on the assistant's turns and on the tokens that end them.

1. The template is rendered in the sandbox of transformers, where it can access only the messages.
2. The characters of each turn of the assistant are located: by {% generation %} in the template, or by rendering the
   turns before it with add_generation_prompt.
3. The whole text is tokenized at once, as the pipeline of transformers does, so that special tokens are recognized.
4. Tokens inside a turn, and the token that ends it, get labels.
"""

import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetrail.labels import IGNORE_INDEX

Message = dict[str, str]  # role, content
Encoded = tuple[list[int], list[int]]  # ids, labels

ASSISTANT = "assistant"
MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")  # the pattern of transformers
SECONDS, CHARACTERS = 20, 10_000_000  # limits of rendering one conversation
MEMORY = 1 << 30  # limit in bytes of rendering one conversation
IN_USE = Path("/proc/self/statm")  # on Linux; elsewhere memory is not limited
# A conversation to find the token that ends a turn.
PROBE = [{"role": "user", "content": "Question"}, {"role": ASSISTANT, "content": "Answer"}]


class Refused(Exception):
    """A template cannot encode a conversation, or any conversation; the message is the reason."""


@dataclass(frozen=True)
class Template:
    """A chat template, the variables that it may use (such as bos_token), and the special tokens of the vocabulary."""

    source: str
    variables: dict[str, Any]
    special_tokens: tuple[str, ...]

    @staticmethod
    def of(tokenizer: Any) -> "Template":
        """Return the tokenizer's own template."""
        known = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        names = known | {tokenizer.eos_token} - {None}
        return Template(tokenizer.chat_template, dict(tokenizer.special_tokens_map), tuple(sorted(names)))

    def end_of_turn(self) -> str:
        """Return the special token that ends the assistant's turn; Refused if there is none."""
        if "strftime_now" in self.source:
            raise Refused("it writes today's date (strftime_now), so that tomorrow's tokens would be others")
        text, _ = self.rendered(PROBE)
        _, found, rest = text.rpartition(PROBE[1]["content"])
        ends = re.match(rf"\s*({_any_of(self.special_tokens)})", rest) if found and self.special_tokens else None
        if ends is None:
            raise Refused("no special token of the vocabulary ends the assistant's turn, so no model learns to stop")
        return ends[1]

    def rendered(self, messages: Sequence[Message], answer: bool = False) -> tuple[str, list[tuple[int, int]]]:
        """Return the text and the spans in {% generation %}; answer: append the beginning of the assistant's turn.

        Refused if the template raises an error, as Gemma's does for system turns, or does not terminate.
        """
        from transformers.utils.chat_template_utils import render_jinja_template  # seconds, and texts need none of it

        marked = MARKED.search(self.source) is not None
        try:
            with _limited():
                result: Any = render_jinja_template(  # annotated as a string (5.23)
                    [list(messages)],
                    chat_template=self.source,
                    add_generation_prompt=answer,
                    return_assistant_tokens_mask=marked,
                    **self.variables,
                )
        except Exception as error:  # whatever foreign code runs into; also templates that are no Jinja
            reason = str(error).strip() or type(error).__name__
            raise Refused(f"the chat template refuses it: {reason.splitlines()[0]}") from None
        [text], marks = result
        if len(text) > CHARACTERS:
            raise Refused(f"the chat template makes {len(text):,} characters of it; expected at most {CHARACTERS:,}")
        return text, marks[0] if marked else []

    def spoken(self, messages: Sequence[Message], end: str) -> tuple[str, list[tuple[int, int]]]:
        """Return the text and the span of each turn of the assistant, from after its header to its token `end`.

        A turn begins where the template marks it ({% generation %}), or else after the text that the template writes
        for the previous turns if an answer is asked. Refused if these are not the beginning of the text, or if a turn
        does not contain the text of its message, or at least the end of it (templates leave out earlier thoughts).
        """
        self._plain(messages)
        text, marks = self.rendered(messages)
        turns = [number for number, message in enumerate(messages) if message["role"] == ASSISTANT]
        starts = [start for start, stop in marks if stop > start] if marks else self._starts(messages, turns, text)
        spans: list[tuple[int, int]] = []
        for start in starts:
            if spans and start < spans[-1][1]:
                continue  # another mark in the same turn
            found = text.find(end, start)
            if found < 0:
                raise Refused(f"the chat template does not end the assistant's turn {len(spans)} with {end!r}")
            spans.append((start, found + len(end)))
        if len(spans) != len(turns):
            raise Refused(f"the chat template marks {len(spans)} turns of the assistant's {len(turns)}")
        for number, (start, stop) in zip(turns, spans, strict=True):
            said, given = (
                "".join(part.split()) for part in (text[start : stop - len(end)], messages[number]["content"])
            )
            if not said or (said not in given and given not in said):
                raise Refused(f"the chat template makes {text[start:stop]!r:.60} of the content of messages[{number}]")
        return text, spans

    def _starts(self, messages: Sequence[Message], turns: list[int], text: str) -> list[int]:
        starts = []
        for number in turns:
            before, _ = self.rendered(messages[:number], answer=True)
            if not text.startswith(before):
                raise Refused(
                    f"the chat template formats the turns before messages[{number}] differently when it asks for that "
                    "answer; expected a template with {% generation %} around the assistant's turns"
                )
            starts.append(len(before))
        return starts

    def asked(self, messages: Sequence[Message]) -> str:
        """Return the text with the beginning of the assistant's answer."""
        self._plain(messages)
        return self.rendered(messages, answer=True)[0]

    def _plain(self, messages: Sequence[Message]) -> None:
        """Raise Refused for the name of a special token in a message: as a token, it would end or begin a turn."""
        for number, message in enumerate(messages):
            if found := re.search(_any_of(self.special_tokens), message["content"]):
                raise Refused(f"messages[{number}] holds {found[0]!r}, a special token; expected text without it")


class Encoder:
    """Encodes conversations: those that end with the assistant's turn for training, others for generation."""

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import Tokenizer, processors

        self.template = Template.of(tokenizer)
        self.end, self.end_id = tokenizer.eos_token, tokenizer.eos_token_id
        # Without a post-processor, which may trim blanks from the offsets of tokens.
        self.backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self.backend.post_processor = processors.Sequence([])
        self.backend.no_truncation()
        self.backend.no_padding()

    def encode(
        self, conversations: Sequence[Sequence[Message]], refused: Callable[[int, str], None]
    ) -> list[Encoded | None]:
        """Return the tokens of each conversation; None for those for which refused(number, reason) was called.

        Text after the assistant's last turn, such as a line end, is left out, because it is not trained.
        """
        rendered: dict[int, tuple[str, list[tuple[int, int]]]] = {}
        for number, messages in enumerate(conversations):
            try:
                learned = messages[-1]["role"] == ASSISTANT
                given = self.template.spoken(messages, self.end) if learned else (self.template.asked(messages), [])
            except Refused as error:
                refused(number, str(error))
            else:
                rendered[number] = given
        encodings = self.backend.encode_batch([text for text, _ in rendered.values()], add_special_tokens=False)
        found: list[Encoded | None] = [None] * len(conversations)
        for (number, (text, spans)), encoding in zip(rendered.items(), encodings, strict=True):
            try:
                found[number] = self._labelled(text, np.array(encoding.ids), np.array(encoding.offsets), spans)
            except Refused as error:
                refused(number, str(error))
        return found

    def _labelled(self, text: str, ids: np.ndarray, offsets: np.ndarray, spans: list[tuple[int, int]]) -> Encoded:
        """Label the tokens [n] whose characters (offsets [n, 2]) lie inside of a span.

        A token that begins before a turn is not learned: a model that answers has the header alone before it. Refused
        where it holds more of the turn than blanks.
        """
        labels = np.full(len(ids), IGNORE_INDEX)
        last = len(ids)
        for start, stop in spans:
            inside = np.flatnonzero((offsets[:, 0] >= start) & (offsets[:, 0] < stop) & (offsets[:, 1] <= stop))
            crossing = offsets[(offsets[:, 0] < start) & (offsets[:, 1] > start)]
            if len(crossing) and text[start : crossing[-1, 1]].strip():
                raise Refused(
                    f"one token, {text[slice(*crossing[-1])]!r}, is the end of the header and the beginning of the "
                    "assistant's turn; expected a chat template whose header ends with a line end or a special token"
                )
            if not len(inside) or ids[inside[-1]] != self.end_id:
                raise Refused(f"the tokenizer does not encode {self.end!r} after the assistant's turn as one token")
            labels[inside] = ids[inside]
            last = inside[-1] + 1
        return ids[:last].tolist(), labels[:last].tolist()


def _any_of(tokens: Sequence[str]) -> str:
    return "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))


@contextmanager
def _limited() -> Iterator[None]:
    """Raise TimeoutError after SECONDS, and MemoryError after MEMORY.

    The sandbox bounds one loop, but not one inside the other, and a range, but not how often a text is repeated.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    with _in_little_memory(), _in_time():
        yield


@contextmanager
def _in_little_memory() -> Iterator[None]:
    before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if IN_USE.exists() and soft == resource.RLIM_INFINITY:
        data = int(IN_USE.read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (data + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextmanager
def _in_time() -> Iterator[None]:

    def stop(*_: Any) -> None:
        raise TimeoutError(f"it takes more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
