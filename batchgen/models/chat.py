"""A chat template given messages in the form it wants, so that it renders all of their texts.

    messages ──shape──► the same roles with marks for texts ──render──► all marks there?
                        texts as strings or as lists of parts,          then messages are given
                        arguments of calls as objects or as text        in this form; else refused

A template that was written for another form, or that does not know a role, leaves texts out and
says nothing. One look for each shape of a chat, remembered, finds that out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, NamedTuple

from batchgen.models.templates import ChatTemplate, TemplateFailed

REMEMBERED = 4096  # shapes; of a job there are a few
MARK = "text{}x"
NAME, VALUE, ARGUMENT = "function{}x{}x", "value{}x{}x", "argumentx"
# How Python and JSON show what a template does not look into: a list of parts, an object, a text.
UNREAD_PART = ("'text': '{}'", '"text": "{}"')
UNREAD_ARGUMENT = (f"'{ARGUMENT}'", f'\\"{ARGUMENT}\\"')
STRANGER = "bystander"  # a role that no template knows

Message = Mapping[str, Any]


class NotRendered(TemplateFailed):
    """The chat template leaves a message out."""

    def __init__(self, message: str, *, index: int) -> None:
        self.index = index
        super().__init__(message)


class Form(NamedTuple):
    """How a template wants messages."""

    parts: bool  # a text is a list of one part
    objects: bool  # arguments of a call are an object, not JSON text


class Turn(NamedTuple):
    """What of a message decides whether it is rendered."""

    role: str
    text: bool
    calls: int
    has_id: bool
    has_name: bool


Shape = tuple[Turn, ...]


class Chat:
    """Turns messages into prompts. Not for several threads at a time."""

    def __init__(self, template: ChatTemplate, variables: Mapping[str, Any]) -> None:
        """Render with `template`; `variables` are the special tokens that it may read."""
        self._template = template
        self._variables = variables
        self._form = lru_cache(REMEMBERED)(self._find_form)

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt of a chat; raise TemplateFailed, or NotRendered where text is lost."""
        messages = [self._known(message) for message in messages]
        found = self._form(tuple(map(_turn, messages)))
        if isinstance(found, TemplateFailed):
            # Anew, as the error is raised once for each row.
            if isinstance(found, NotRendered):
                raise NotRendered(found.message, index=found.index)
            raise TemplateFailed(found.message, unsafe=found.unsafe)
        return self._render([_formed(message, found) for message in messages])

    def renders(self, *roles: str) -> bool:
        """Return whether the texts of a chat of these roles are all in its prompt."""
        try:
            return isinstance(self._form(_plain_shape(*roles)), Form)
        except TemplateFailed:
            return False

    @cached_property
    def knows_developer(self) -> bool:
        """Whether `developer` is more to the template than a word that it repeats."""
        shape = _plain_shape("developer", "user")
        form = self._form(shape)
        if not isinstance(form, Form):
            return False
        messages, _ = _marked(shape, form)
        text = self._render(messages)
        try:
            other = self._render([{**messages[0], "role": STRANGER}, messages[1]])
        except TemplateFailed:
            return True
        return text.lower().replace("developer", STRANGER) != other.lower()

    def _known(self, message: Message) -> Message:
        """Return `message`, one of a developer as the system's where only that is known."""
        if message["role"] == "developer" and not self.knows_developer:
            return {**message, "role": "system"}
        return message

    def _find_form(self, shape: Shape) -> Form | TemplateFailed:
        """Return the form in which the template renders such a chat, or why there is none."""
        failed: TemplateFailed | None = None
        lost: int | None = None
        objects = (True, False) if any(turn.calls for turn in shape) else (True,)
        for parts, as_object in product((False, True), objects):
            form = Form(parts=parts, objects=as_object)
            messages, marks = _marked(shape, form)
            try:
                text = self._render(messages)
            except TemplateFailed as error:
                if error.unsafe:  # perhaps not the template's fault: not to be remembered
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
    """Return `message` as a template of this form wants it."""
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
    # Some templates want ids of nine letters or digits.
    return {"id": f"{i % 10**5:05d}{j % 10**4:04d}", "type": "function", "function": function}


def _missing(text: str, marks: list[list[str]]) -> int | None:
    """Return the first message that is not in `text` as it should be, None if all are."""
    for i, wanted in enumerate(marks):
        unread = [sign.format(wanted[0]) for sign in UNREAD_PART if wanted[0]]
        if len(wanted) > 1:
            unread += UNREAD_ARGUMENT
        if not all(mark in text for mark in wanted) or any(sign in text for sign in unread):
            return i
    return None
