"""Calls of tools: what a tiny random model is made to write comes back as calls, whole or streamed, whatever its family's format."""

import json

import pytest
from conftest import GOLDEN, TEMPLATE, copy_of, read_golden
from test_serve import Server

openai = pytest.importorskip("openai")
jsonschema = pytest.importorskip("jsonschema")

WORD = {"type": "string", "maxLength": 10}
PARAMETERS = {
    "weather": {"type": "object", "properties": {"city": WORD, "days": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["city", "days"]},
    "now": {"type": "object", "properties": {}},
}
TOOLS = [{"type": "function", "function": {"name": name, "description": "x", "parameters": schema}} for name, schema in PARAMETERS.items()]
FORMATS = {  # what a template holds decides
    "none": TEMPLATE,
    "tagged": TEMPLATE + "{# tools tool_calls <tool_call> #}",
    "fenced": TEMPLATE + "{# tool_calls <｜tool▁sep｜> ```json #}",
    "plain": TEMPLATE + "{# tools tool_calls <｜tool▁sep｜> #}",
    "dsml": TEMPLATE + "{# tools tool_calls ｜DSML｜ #}",
}


@pytest.fixture(scope="module", params=FORMATS)
def server(hadal, tmp_path_factory, request):
    llama = read_golden(GOLDEN / "llama")
    folder = tmp_path_factory.mktemp("tools") / request.param
    server = Server(hadal, copy_of(folder, llama.model, FORMATS[request.param], max_position_embeddings=8192))
    yield server
    assert server.end() == 0


def ask(server, **options):
    body = {"temperature": 1.5, "max_tokens": 1500, "tools": TOOLS, "tool_choice": "required"} | options
    return server.client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "weather?"}], **body)


def check(calls):
    assert len({call.id for call in calls}) == len(calls) > 0
    for call in calls:
        assert call.type == "function"
        jsonschema.validate(json.loads(call.function.arguments), PARAMETERS[call.function.name])


def test_a_required_call_comes(server):
    whole = [c for c in ask(server, n=30, seed=1).choices if c.finish_reason != "length"]
    assert len(whole) >= 10
    for choice in whole:
        assert choice.finish_reason == "tool_calls" and not choice.message.content
        check(choice.message.tool_calls)
    assert any(len(choice.message.tool_calls) > 1 for choice in whole), "several in one reply"


def test_the_named_one_is_called_once(server):
    for seed in range(3):
        choice = ask(server, seed=seed, tool_choice={"type": "function", "function": {"name": "weather"}}).choices[0]
        check(choice.message.tool_calls)
        assert [c.function.name for c in choice.message.tool_calls] == ["weather"]


def test_a_stream_is_the_same_in_pieces(server):
    options = {"seed": 3, "parallel_tool_calls": False}
    whole = ask(server, **options).choices[0]
    calls, finish = {}, None
    for chunk in ask(server, stream=True, **options):
        for piece in chunk.choices[0].delta.tool_calls or []:
            if piece.id:
                assert piece.index not in calls and piece.function.name
                calls[piece.index] = {"id": piece.id, "name": piece.function.name, "arguments": ""}
            calls[piece.index]["arguments"] += piece.function.arguments
        finish = chunk.choices[0].finish_reason or finish
    assert finish == whole.finish_reason == "tool_calls"
    assert [(c["name"], c["arguments"]) for c in calls.values()] == [(c.function.name, c.function.arguments) for c in whole.message.tool_calls]


def test_a_conversation_goes_on_behind_the_result(server):
    said = ask(server, seed=4).choices[0].message
    messages = [{"role": "user", "content": "weather?"}, said.model_dump(exclude_none=True)]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in said.tool_calls]
    reply = server.client.chat.completions.create(model="tiny", messages=messages, tools=TOOLS, max_tokens=20)
    assert reply.choices[0].finish_reason in ("stop", "length", "tool_calls")


def test_none_calls_none(server):
    reply = ask(server, tool_choice="none", max_tokens=30).choices[0]
    assert reply.message.tool_calls is None and reply.message.content


@pytest.mark.parametrize(
    "options, says",
    [
        ({"tool_choice": {"type": "function", "function": {"name": "missing"}}}, "missing"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"not": {}}}}}}]}, "not"),
    ],
)
def test_what_makes_no_sense_is_named(server, options, says):
    with pytest.raises(openai.BadRequestError, match=says):
        ask(server, **options)
