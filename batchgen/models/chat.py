"""Renders chats with a model's template, in the message form in which no text is lost.

    messages ──shape──► the same roles with marks for texts ──render──► all marks found?
                        texts as strings or as lists of parts,          then use this form,
                        arguments of calls as objects or as text        else refuse the chat

If a template was written for another form, or does not know a role, it drops texts silently. So
each shape of a chat is tested once with marks, and the result is cached.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, NamedTuple

from batchgen.models.templates import ChatTemplate, TemplateFailed

REMEMBERED = 4096  # shapes; a job has a few
MARK = "text{}x"
NAME, VALUE, ARGUMENT = "function{}x{}x", "value{}x{}x", "argumentx"
# Python's and JSON's text of parts and arguments. In a prompt it means that the template printed a
# list or an object instead of reading its text.
UNREAD_PART = ("'text': '{}'", '"text": "{}"')
UNREAD_ARGUMENT = (f"'{ARGUMENT}'", f'\\"{ARGUMENT}\\"')
UNKNOWN_ROLE = "bystander"  # a role that no template knows

Message = Mapping[str, Any]


class NotRendered(TemplateFailed):
    """The chat template drops a message, the one at `index`."""

    def __init__(self, message: str, *, index: int) -> None:
        self.index = index
        super().__init__(message)


class Form(NamedTuple):
    """The form of messages that a template expects."""

    parts: bool  # True: a text is a list of one part, not a string
    objects: bool  # True: arguments of a call are an object, not JSON text


class Turn(NamedTuple):
    """The features of a message that decide whether a template renders it."""

    role: str
    text: bool
    calls: int
    has_id: bool
    has_name: bool


Shape = tuple[Turn, ...]


class Chat:
    """Turns messages into prompts. Not thread-safe."""

    def __init__(self, template: ChatTemplate, variables: Mapping[str, Any]) -> None:
        """Render with `template`; `variables` are the special tokens that it may read."""
        self._template = template
        self._variables = variables
        self._form = lru_cache(REMEMBERED)(self._find_form)

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt of a chat; raise NotRendered if text is lost, or TemplateFailed."""
        messages = [self._known(message) for message in messages]
        found = self._form(tuple(map(_turn, messages)))
        if isinstance(found, TemplateFailed):
            # A new error for each row, because the cached one must not be raised again.
            if isinstance(found, NotRendered):
                raise NotRendered(found.message, index=found.index)
            raise TemplateFailed(found.message, unsafe=found.unsafe)
        return self._render([_formed(message, found) for message in messages])

    def renders(self, *roles: str) -> bool:
        """Return whether the template renders all texts of a chat with these roles."""
        try:
            return isinstance(self._form(_plain_shape(*roles)), Form)
        except TemplateFailed:
            return False

    @cached_property
    def knows_developer(self) -> bool:
        """True if the template treats `developer` differently from an unknown role."""
        shape = _plain_shape("developer", "user")
        form = self._form(shape)
        if not isinstance(form, Form):
            return False
        messages, _ = _marked(shape, form)
        text = self._render(messages)
        try:
            other = self._render([{**messages[0], "role": UNKNOWN_ROLE}, messages[1]])
        except TemplateFailed:
            return True
        return text.lower().replace("developer", UNKNOWN_ROLE) != other.lower()

    def _known(self, message: Message) -> Message:
        """Return `message`; if the template does not know `developer`, with the role `system`."""
        if message["role"] == "developer" and not self.knows_developer:
            return {**message, "role": "system"}
        return message

    def _find_form(self, shape: Shape) -> Form | TemplateFailed:
        """Return the form in which the template renders such a chat, or the error if none works."""
        failed: TemplateFailed | None = None
        lost: int | None = None
        objects = (True, False) if any(turn.calls for turn in shape) else (True,)
        for parts, as_object in product((False, True), objects):
            form = Form(parts=parts, objects=as_object)
            messages, marks = _marked(shape, form)
            try:
                text = self._render(messages)
            except TemplateFailed as error:
                if error.unsafe:  # perhaps not the template's fault, so it must not be cached
                    raise
                failed = failed or error
                continue
            missing = _missing(text, marks)
            if missing is None:
                return form
            lost = missing if lost is None else lost
        if failed is not None and lost is None:
            return failed
        turn = shape[lost or 0]
        loses = "its calls of tools" if turn.calls else "its text"
        return NotRendered(
            f"the message of role {turn.role!r} would lose {loses}, which the template does not "
            "render. Leave it out, or put what it says into a message of the user",
            index=lost or 0,
        )

    def _render(self, messages: Sequence[Message]) -> str:
        return self._template.render(messages, self._variables)


def _plain_shape(*roles: str) -> Shape:
    return tuple(_turn({"role": role, "content": MARK}) for role in roles)


def _turn(message: Message) -> Turn:
    return Turn(
        role=message["role"],
        text=bool(message.get("content")),
        calls=len(message.get("tool_calls") or ()),
        has_id="tool_call_id" in message,
        has_name="name" in message,
    )


def _formed(message: Message, form: Form) -> Message:
    """Return `message` in this form."""
    formed = dict(message)
    if form.parts:
        formed["content"] = [{"type": "text", "text": message["content"]}]
    if calls := message.get("tool_calls"):
        formed["tool_calls"] = [_call(call, form) for call in calls]
    return formed


def _call(call: Message, form: Form) -> Message:
    """Return a tool call, {"function": {"name": …, "arguments": {…}}, …}, in this form."""
    if form.objects:
        return call
    function = call["function"]
    text = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def _marked(shape: Shape, form: Form) -> tuple[list[Message], list[list[str]]]:
    """Return messages of this shape in this form, and the marks that each of them holds."""
    messages, marks, called = [], [], "0" * 9
    for i, turn in enumerate(shape):
        text = MARK.format(i) if turn.text else ""
        message: dict[str, Any] = {"role": turn.role, "content": text}
        if turn.has_id:
            message["tool_call_id"] = called
        if turn.has_name:
            message["name"] = NAME.format(i, 0)
        if turn.calls:
            message["tool_calls"] = calls = [_marked_call(i, j) for j in range(turn.calls)]
            called = calls[-1]["id"]
        messages.append(_formed(message, form))
        marks.append(
            [text]
            + [NAME.format(i, j) for j in range(turn.calls)]
            + [VALUE.format(i, j) for j in range(turn.calls)]
        )
    return messages, marks


def _marked_call(i: int, j: int) -> dict[str, Any]:
    function = {"name": NAME.format(i, j), "arguments": {ARGUMENT: VALUE.format(i, j)}}
    # Some templates require ids of nine letters or digits.
    return {"id": f"{i % 10**5:05d}{j % 10**4:04d}", "type": "function", "function": function}


def _missing(text: str, marks: list[list[str]]) -> int | None:
    """Return the index of the first message with lost text, None if `text` has all."""
    for i, wanted in enumerate(marks):
        unread = [sign.format(wanted[0]) for sign in UNREAD_PART if wanted[0]]
        if len(wanted) > 1:
            unread += UNREAD_ARGUMENT
        if not all(mark in text for mark in wanted) or any(sign in text for sign in unread):
            return i
    return None
