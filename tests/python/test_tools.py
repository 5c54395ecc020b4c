"""Calls of tools: what a tiny random model is made to write comes back as calls, whole or streamed, whatever its family's format."""

import json
import os
import pathlib

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
    body = {"messages": [{"role": "user", "content": "weather?"}], "temperature": 1.5, "max_tokens": 1500, "tools": TOOLS, "tool_choice": "required"}
    return server.client.chat.completions.create(model="tiny", **body | options)


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


def with_token(folder, text):
    """The model's spare token, 298, becomes this one."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    next(t for t in tokenizer["added_tokens"] if t["id"] == 298)["content"] = text
    path.write_text(json.dumps(tokenizer))
    return folder


def test_a_reply_is_free_until_the_token_that_begins_a_call(hadal, llama, tmp_path):
    folder = with_token(copy_of(tmp_path / "tiny", llama.model, FORMATS["tagged"], max_position_embeddings=8192), "<tool_call>")
    server = Server(hadal, folder)
    options = {"tool_choice": "auto", "n": 30, "seed": 1, "logit_bias": {"298": 3}}
    choices = ask(server, **options).choices
    calling = [c for c in choices if c.finish_reason == "tool_calls"]
    assert len(calling) >= 5 and any(c.message.content for c in calling), "words before the call"
    for choice in calling:
        check(choice.message.tool_calls)
    assert all(c.finish_reason == "length" for c in choices if c.message.tool_calls and c not in calling), "or it was cut off"
    never = ask(server, tool_choice="auto", max_tokens=30, logit_bias={"298": -100}).choices[0]
    assert never.message.tool_calls is None and never.message.content
    assert server.end() == 0


@pytest.mark.parametrize(
    ("form", "marker", "least"), [("dsml", "｜DSML｜", 4), ("plain", "<｜tool▁sep｜>", 1), ("fenced", "<｜tool▁call▁end｜>", 1), ("tagged", "</tool_call>", 1)]
)
def test_a_marker_within_the_calls_is_its_token(hadal, llama, tmp_path, form, marker, least):
    server = Server(hadal, with_token(copy_of(tmp_path / "tiny", llama.model, FORMATS[form], max_position_embeddings=8192), marker))
    whole = [c for c in ask(server, n=20, seed=1, logprobs=True).choices if c.finish_reason != "length"]
    assert len(whole) >= 5
    for choice in whole:
        check(choice.message.tool_calls)
        tokens = [t.token for t in choice.logprobs.content]
        assert "".join(tokens).count(marker) == tokens.count(marker) >= least
    assert server.end() == 0


def test_a_real_model_keeps_to_the_schema(hadal):
    cached = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "hadal" / "smollm2"
    model = next(cached.glob("*.gguf"), None)
    if model is None:
        pytest.skip("the default model is not installed (script/model)")
    server = Server(hadal, model)
    for question in ["What is the weather in Paris for the next three days?", "How late is it?"]:
        calls = ask(server, temperature=0, max_tokens=400, messages=[{"role": "user", "content": question}]).choices[0].message.tool_calls
        check(calls)
    city = ask(server, temperature=0, messages=[{"role": "user", "content": "What is the weather in Paris?"}],
               tool_choice={"type": "function", "function": {"name": "weather"}}).choices[0].message.tool_calls[0]  # fmt: skip
    assert "Paris" in json.loads(city.function.arguments)["city"]
    assert server.end() == 0


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
