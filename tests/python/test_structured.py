"""Replies that keep to a form: whatever a tiny random model draws at temperature 1.5 is valid."""

import json
import os
import pathlib
import re
import urllib.error
import urllib.request

import pytest
from conftest import GOLDEN, TEMPLATE, copy_of, read_golden
from test_serve import Server

openai = pytest.importorskip("openai")
jsonschema = pytest.importorskip("jsonschema")

WORD = {"type": "string", "maxLength": 12}
SCHEMAS = [
    {"type": "object", "properties": {"name": WORD, "age": {"type": "integer", "minimum": -5, "maximum": 120}}, "required": ["name", "age"]},
    {
        "type": "object",
        "properties": {
            "tags": {"type": "array", "items": {"enum": ["a", "b", 3, None, True]}, "minItems": 1, "maxItems": 4},
            "size": {"type": "number", "minimum": 0, "maximum": 2.5},
            "inner": {"type": "object", "properties": {"on": {"type": "boolean"}, "why": WORD}, "required": ["on"]},
        },
        "required": ["tags", "size", "inner"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"anyOf": [{"type": "null"}, WORD, {"type": "array", "items": {"type": "integer"}, "maxItems": 2}]}, "maxItems": 5},
    {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["value", "next"],
    },
    {"type": "string", "pattern": "^[a-f]{2,5}-[0-9]+$"},
    {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 3},
    {"type": "array", "items": {"type": "string", "pattern": "^.{2,4}[^a]$"}, "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"type": "string", "minLength": 3, "maxLength": 6}, "minItems": 2, "maxItems": 3},
    {"type": ["integer", "null"]},
    {"type": "string", "format": "date"},
    {"const": {"a": [1, "two"]}},
    {"type": "object", "properties": {"a": WORD, "b": {"type": "integer"}}, "required": ["b"]},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    llama = read_golden(GOLDEN / "llama")
    return copy_of(tmp_path_factory.mktemp("structured") / "chatty", llama.model, TEMPLATE, max_position_embeddings=4096)


@pytest.fixture(scope="module")
def server(hadal, model):
    server = Server(hadal, model)
    yield server
    assert server.end() == 0


def strict(schema):
    return {"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": schema}}


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
def test_twenty_random_replies_are_valid(server, number):
    ended = 0
    for choice in server.chat(temperature=1.5, seed=number, n=20, max_tokens=1500, response_format=strict(SCHEMAS[number])).choices:
        if choice.finish_reason == "length":
            continue
        ended += 1
        jsonschema.validate(json.loads(choice.message.content), SCHEMAS[number], cls=jsonschema.Draft202012Validator)
    assert ended >= 15


def test_json_object(server):
    for choice in server.chat(temperature=1.5, n=10, max_tokens=1500, response_format={"type": "json_object"}).choices:
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)


def test_a_stream_is_the_same_in_pieces(server):
    ask = {"temperature": 1.5, "seed": 5, "max_tokens": 300, "response_format": strict(SCHEMAS[1])}
    whole = server.chat(**ask).choices[0].message.content
    assert "".join(c.choices[0].delta.content or "" for c in server.chat(**ask, stream=True) if c.choices) == whole


def test_the_client_reads_it_into_its_own_type(server):
    pydantic = pytest.importorskip("pydantic")

    class Person(pydantic.BaseModel):
        age: int = pydantic.Field(ge=0, le=99)
        married: bool
        friends: list[int]

    reply = server.client.chat.completions.parse(
        model="tiny", messages=[{"role": "user", "content": "who?"}], response_format=Person, temperature=1, seed=3, max_tokens=400
    )
    assert isinstance(reply.choices[0].message.parsed, Person)


def test_guided_replies(server):
    say = lambda **form: server.chat(temperature=1.5, seed=1, max_tokens=400, extra_body=form).choices[0].message.content
    assert re.fullmatch(r"(the|that){2} \d{3}", say(guided_regex=r"(the|that){2} \d{3}"))
    assert say(guided_choice=["yes", "no", "你好"]) in ("yes", "no", "你好")
    assert re.fullmatch(r"\(*x\)*", say(guided_grammar='root ::= "x" | "(" root ")"'))
    assert json.loads(say(guided_json={"type": "array", "items": {"type": "boolean"}, "maxItems": 3})) is not None
    text = server.client.completions.create(model="tiny", prompt="the", max_tokens=50, extra_body={"guided_regex": "[a-c]{5}"})
    assert re.fullmatch("[a-c]{5}", text.choices[0].text) and text.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "form, says",
    [
        ({"response_format": strict({"type": "object", "properties": {"a": {"not": {}}}})}, '$.properties.a: the keyword "not"'),
        ({"response_format": strict({"type": "array", "uniqueItems": True})}, "uniqueItems"),
        ({"response_format": strict({"type": "thing"})}, "$.type"),
        ({"response_format": strict({"type": "object", "required": ["a"]})}, "$.required"),
        ({"response_format": strict({"$ref": "#/$defs/none"})}, "none"),
        ({"response_format": {"type": "json_schema"}}, "json_schema.schema"),
        ({"guided_regex": "(a"}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_grammar": "root ::= thing"}, "thing"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
    ],
)
def test_what_cannot_be_kept_to_is_named(server, form, says):
    status, body = server.call("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "x"}]} | form)
    assert status == 400 and says in body["error"]["message"]
    assert body["error"]["param"] in form


def test_begins_behind_the_reasoning(hadal, tmp_path):
    llama = read_golden(GOLDEN / "llama")
    folder = copy_of(tmp_path / "thinks", llama.model, TEMPLATE.replace("assistant:", "assistant: <think>"), max_position_embeddings=4096)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    assert "<think>" in (folder / "tokenizer_config.json").read_text(), "the template opens the reasoning"
    next(t for t in tokenizer["added_tokens"] if "pad" in t["content"])["content"] = "</think>"  # id 298
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    server = Server(hadal, folder)
    reply = server.chat(temperature=1.5, max_tokens=400, seed=2, logit_bias={"298": 6}, extra_body={"guided_regex": "[ab]{4}"}).choices[0]
    assert len(reply.message.reasoning_content) > 0
    assert re.fullmatch("[ab]{4}", reply.message.content)
    assert server.end() == 0


AMBIGUOUS = 'root ::= a\na ::= a a | "x" a "y" | b b | "z"\nb ::= a b a | [a-z]* b | ""'


def test_forms_that_take_for_ever_end(hadal):
    """With a real vocabulary a few bytes can ask for hours of work: they are told so, or their reply is cut off; others are served."""
    cached = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "hadal" / "smollm2"
    model = next(cached.glob("*.gguf"), None)
    if model is None:
        pytest.skip("the default model is not installed (script/model)")
    server = Server(hadal, model)

    def ask(**form):
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 20} | form
        request = urllib.request.Request(f"{server.base}/v1/chat/completions", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=600) as reply:  # seconds of work, which others slow down
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    status, reply = ask(guided_regex=".*a.*b.*c.*d.*e.*f" * 1000)
    assert (status, reply["error"]["param"]) == (400, "guided_regex") and "takes too long" in reply["error"]["message"]
    status, reply = ask(guided_grammar=AMBIGUOUS)
    assert status == 200 and reply["choices"][0]["finish_reason"] == "length"
    long = {"type": "array", "items": {"type": "string", "maxLength": 5000}, "minItems": 1, "maxItems": 5000}
    status, reply = ask(response_format=strict(long))
    assert status == 200 and (reply["choices"][0]["finish_reason"] == "stop" or reply["usage"]["completion_tokens"] == 20), "merely large"
    assert server.end() == 0
