"""Normalizes conversations into lists of messages with role and content, and rejects bad ones."""

from collections import Counter
from typing import Any

from finetrail.corpus.raw import listed

# The names of OpenAI's messages, and those of ShareGPT's.
KEYS = (("role", "content"), ("from", "value"))
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
}
# Keys of an assistant's message with text or calls besides its content.
SAYING = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")


class BadConversation(Exception):
    """A conversation is invalid; the message states the problem and what was expected."""


def conversation(value: Any, unread: Counter[str]) -> list[dict[str, str]]:
    """Return the messages, each with role (system, user, assistant or tool) and content, as they are given.

    Raises BadConversation otherwise. `unread` counts the other keys of the messages.
    """
    if not isinstance(value, list) or not value:
        raise BadConversation(f"{value!r:.60} is no conversation; expected a list of messages with role and content")
    messages = [_message(message, f"messages[{number}]") for number, message in enumerate(value)]
    for message in value:
        names = next(keys for keys in KEYS if keys[0] in message)
        unread.update(key for key, held in message.items() if key not in names and held is not None)
    return messages


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise BadConversation(f"{where} is {message!r:.60}; expected an object with role and content")
    role, content = next((keys for keys in KEYS if set(keys) <= set(message)), (None, None))
    if role is None or content is None:
        raise BadConversation(f"{where} has the keys {listed(message)}; expected role and content, or from and value")
    if not isinstance(message[role], str) or message[role] not in ROLES:
        raise BadConversation(f"{where} has the role {message[role]!r:.40}; expected one of {', '.join(ROLES)}")
    if said := [key for key in SAYING if message.get(key)]:
        raise BadConversation(f"{where} has {said[0]}, which is not read; expected all that is said in {content}")
    text = message[content]
    if not isinstance(text, str) or not text.strip():
        kind = "is empty" if text is None or isinstance(text, str) else f"is {text!r:.60}"
        raise BadConversation(f"the {content} of {where} {kind}; expected text")
    return {"role": ROLES[message[role]], "content": text}
