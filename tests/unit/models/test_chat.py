"""Chats in the form that a template wants; what a template would leave out is refused."""

from __future__ import annotations

from typing import Any

import pytest

from batchgen.models.chat import Chat, NotRendered
from batchgen.models.templates import ChatTemplate, TemplateFailed

EACH = "{% for m in messages %}"
END = "{% endfor %}"
STRINGS = EACH + "<{{ m.role }}>{{ m.content }}" + END
PARTS = EACH + "<{{ m.role }}>{% for p in m.content %}{{ p.text }}{% endfor %}" + END
# Reads lists, and adds whatever is no list to a text.
STRICT_PARTS = (
    EACH + "<{{ m.role }}>{{ m.content | selectattr('type', 'equalto', 'text') "
    "| map(attribute='text') | join }}" + END
)
EITHER = (
    EACH + "<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}"
    "{{ m.content[0]['text'] }}!{% endif %}" + END
)
USER_ALONE = EACH + "{% if m.role == 'user' %}<user>{{ m.content }}{% endif %}" + END
SYSTEM_FIRST = (
    "{% if messages[0].role == 'system' %}<<{{ messages[0].content }}>>{% endif %}"
    + EACH
    + "{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endif %}"
    + END
)
KNOWN = EACH + "{{ '#' if m.role == 'developer' else '@' }}{{ m.content }}" + END
NAMED = EACH + "{{ {'user': 'U', 'developer': 'D', 'system': 'S'}[m.role] ~ m.content }}" + END
TITLED = EACH + "<{{ m.role | title }}>{{ m.content | trim }}" + END
PICKY = (
    EACH
    + "{% if m.role not in ('user', 'system') %}{{ raise_exception('No ' + m.role) }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}" + END
)
CALLS = (
    EACH + "<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls %}"
    "[{{ c.function.name }} ARGUMENTS]{% endfor %}" + END
)
AS_JSON = CALLS.replace("ARGUMENTS", "{{ c.function.arguments | tojson }}")
AS_TEXT = CALLS.replace("ARGUMENTS", "{{ c.function.arguments }}")
ADDED = CALLS.replace("ARGUMENTS", "{{ '!' + c.function.arguments }}")
ONE_BY_ONE = CALLS.replace(
    "ARGUMENTS", "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }};{% endfor %}"
)


def say(role: str, content: str = "Hi") -> dict[str, Any]:
    return {"role": role, "content": content}


def chat(source: str) -> Chat:
    return Chat(ChatTemplate(source), {"bos_token": "<s>"})


@pytest.mark.parametrize("source", [STRINGS, PARTS, STRICT_PARTS, EITHER])
def test_texts_come_as_the_template_reads_them(source: str) -> None:
    assert chat(source).render([say("system", "S"), say("user", "U")]) == "<system>S<user>U"


@pytest.mark.parametrize("role", ["system", "developer", "assistant", "tool"])
def test_a_message_that_would_be_left_out_is_refused_by_place(role: str) -> None:
    template = chat(USER_ALONE)
    for _ in range(2):
        with pytest.raises(NotRendered, match="role") as caught:
            template.render([say("user"), say(role), say("user")])
        assert caught.value.index == 1
    assert template.render([say("user", "A"), say("user", "B")]) == "<user>A<user>B"
    assert template.render([say(role, ""), say("user", "B")]) == "<user>B"  # nothing is lost
    assert template.renders("user") and not template.renders("system", "user")


def test_where_a_message_stands_matters() -> None:
    template = chat(SYSTEM_FIRST)
    assert template.render([say("system", "S"), say("user", "U")]) == "<<S>><user>U"
    with pytest.raises(NotRendered) as caught:
        template.render([say("user", "U"), say("system", "S")])
    assert caught.value.index == 1


def test_a_template_that_renders_nothing_asks_nothing() -> None:
    with pytest.raises(NotRendered):
        chat("nothing of it").render([say("user")])
    assert not chat("nothing of it").renders("user")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (STRINGS, "<system>Hi<user>Hi"),
        (PARTS, "<system>Hi<user>Hi"),
        (TITLED, "<System>Hi<User>Hi"),
        (SYSTEM_FIRST, "<<Hi>><user>Hi"),
        (PICKY, "<system>Hi<user>Hi"),
        (KNOWN, "#Hi@Hi"),
        (NAMED, "DHiUHi"),
    ],
)
def test_a_developer_is_the_system_where_only_that_is_known(source: str, expected: str) -> None:
    assert chat(source).render([say("developer"), say("user")]) == expected


def test_what_a_template_refuses_it_refuses_in_its_own_words() -> None:
    template = chat(PICKY)
    for _ in range(2):
        with pytest.raises(TemplateFailed, match="No tool") as caught:
            template.render([say("user"), say("tool")])
        assert not isinstance(caught.value, NotRendered)


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        (AS_JSON, '{"a": "é", "b": [1]}'),
        (AS_TEXT, '{"a": "é", "b": [1]}'),
        (ADDED, '!{"a": "é", "b": [1]}'),
        (ONE_BY_ONE, "a=é;b=[1];"),
    ],
)
def test_arguments_of_a_call_come_as_the_template_reads_them(source: str, arguments: str) -> None:
    function = {"name": "f", "arguments": {"a": "é", "b": [1]}}
    called = {**say("assistant", ""), "tool_calls": [{"id": "1", "function": function}]}
    answered = {**say("tool", "T"), "tool_call_id": "1"}
    prompt = chat(source).render([say("user", "U"), called, answered])
    assert prompt == f"<user>U<assistant>[f {arguments}]<tool>T"


def test_a_call_that_would_be_left_out_is_refused() -> None:
    function = {"name": "f", "arguments": {}}
    with pytest.raises(NotRendered) as caught:
        chat(STRINGS).render(
            [say("user"), {**say("assistant"), "tool_calls": [{"function": function}]}]
        )
    assert caught.value.index == 1


def test_each_shape_of_a_chat_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate(STRINGS)
    render = template.render
    rendered: list[Any] = []

    def count(messages: Any, variables: Any) -> str:
        rendered.append(messages)
        return render(messages, variables)

    monkeypatch.setattr(template, "render", count)
    chats = Chat(template, {})
    for i in range(5):
        chats.render([say("user", f"{i}")])
    assert len(rendered) == 6


def test_a_process_that_was_killed_is_no_property_of_a_template(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = ChatTemplate(STRINGS)
    chats = Chat(template, {})
    with monkeypatch.context() as patch:
        patch.setattr(template, "_ask", lambda _: None)
        with pytest.raises(TemplateFailed, match="died"):
            chats.render([say("user")])
        assert not chats.renders("user")
    assert chats.render([say("user")]) == "<user>Hi"
