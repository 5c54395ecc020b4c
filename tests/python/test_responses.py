"""OpenAI's responses and embeddings before its official client, and what is told while a prompt is read."""

import base64
import json
import math
import struct

import pytest
from test_anthropic import thinking  # noqa: F401
from test_serve import ALWAYS_A, Server, model, openai, server  # noqa: F401

ASK = {"model": "tiny", "input": "the thing", "max_output_tokens": 8, "temperature": 0}


def test_a_response_is_the_reply_of_the_chat(server):  # noqa: F811
    chat = server.chat(max_tokens=8)
    response = server.client.responses.create(**ASK)
    assert response.output_text == chat.choices[0].message.content
    assert response.object == "response" and response.model == "tiny" and response.id.startswith("resp_")
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (response.usage.input_tokens, response.usage.output_tokens) == (chat.usage.prompt_tokens, chat.usage.completion_tokens)
    ended = server.client.responses.create(**ASK, extra_body={"stop": response.output_text[3:5]})
    assert (ended.status, ended.incomplete_details) == ("completed", None)


def check_stream(events):
    """What is built from the pieces is what the last event says; returns that response."""
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] in ("response.completed", "response.incomplete")
    final = events[-1].response
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == final.output and kinds.count("response.output_item.added") == len(done)
    for index, item in enumerate(final.output):
        mine = [event for event in events if getattr(event, "output_index", None) == index]
        pieces = "".join(event.delta for event in mine if event.type.endswith(".delta"))
        text = item.summary[0].text if item.type == "reasoning" else item.content[0].text
        assert pieces == text
        assert [event.text for event in mine if event.type.endswith("text.done")] == [text]
    return final


def test_a_stream_adds_up_to_the_response(server):  # noqa: F811
    whole = server.client.responses.create(**ASK)
    final = check_stream(list(server.client.responses.create(**ASK, stream=True)))
    assert final.output_text == whole.output_text and final.usage == whole.usage and final.status == whole.status
    with server.client.responses.stream(**ASK, extra_body={"stop": whole.output_text[3:5]}) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == whole.output_text[:3]


def test_reasoning_is_an_item(thinking):  # noqa: F811
    ask = ASK | {"extra_body": {"logit_bias": ALWAYS_A}, "max_output_tokens": 3}
    whole = thinking.client.responses.create(**ask)
    assert [item.type for item in whole.output] == ["reasoning"] and whole.output[0].summary[0].text == "AAA"
    assert whole.usage.output_tokens_details.reasoning_tokens == 3
    assert check_stream(list(thinking.client.responses.create(**ask, stream=True))).output[0].summary[0].text == "AAA"


def test_logprobs_are_those_of_the_chat(server):  # noqa: F811
    chat = server.chat(max_tokens=8, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    more = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    listed = server.client.responses.create(**ASK, **more).output[0].content[0].logprobs
    assert [(l.token, l.logprob, len(l.top_logprobs)) for l in listed] == [(l.token, l.logprob, 2) for l in chat]
    final = check_stream(list(server.client.responses.create(**ASK, **more, stream=True)))
    assert final.output[0].content[0].logprobs == listed


def test_all_kinds_of_items_are_understood(server):  # noqa: F811
    def tokens(**what):
        return server.client.responses.create(**ASK | what).usage.input_tokens

    def same(*messages):
        return server.client.chat.completions.create(model="tiny", messages=list(messages), max_tokens=1).usage.prompt_tokens

    user = {"role": "user", "content": "the thing"}
    parts = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "the thing"}]}]
    assert tokens(input=[user]) == tokens(input=parts) == tokens() == same(user)
    assert tokens(instructions="be brief") == same({"role": "system", "content": "be brief"}, user)
    first = server.client.responses.create(**ASK)
    history = [user, *[item.model_dump(exclude_none=True) for item in first.output], {"role": "user", "content": "well?"}]
    assert tokens(input=history) == same(user, {"role": "assistant", "content": first.output_text}, {"role": "user", "content": "well?"})
    called = [
        user,
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
    ]
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert tokens(input=called) == same(user, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "42"})


@pytest.mark.parametrize(
    ("param", "change"),
    [
        ("input", {"input": []}),
        ("input", {"input": None}),
        ("input[0].role", {"input": [{"role": "king", "content": "x"}]}),
        ("input[0].content[0].type", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}),
        ("input[0].type", {"input": [{"type": "item_reference", "id": "x"}]}),
        ("max_output_tokens", {"max_output_tokens": 0}),
        ("previous_response_id", {"previous_response_id": "resp_1"}),
        ("background", {"background": True}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("text.format.type", {"text": {"format": {"type": "xml"}}}),
    ],
)
def test_what_is_wrong_is_named(server, param, change):  # noqa: F811
    status, reply = server.call("/v1/responses", ASK | change)
    assert (status, reply["error"]["param"]) == (400, param), reply


def norm(values):
    return math.sqrt(sum(value * value for value in values))


def test_embeddings(server):  # noqa: F811
    create = server.client.embeddings.create
    texts = ["the thing", "HADAL", "the thing"]
    listed = create(model="tiny", input=texts)  # the client asks for base64
    assert [item.index for item in listed.data] == [0, 1, 2] and listed.object == "list"
    first, second, again = (item.embedding for item in listed.data)
    assert first == again != second and abs(norm(first) - 1) < 1e-5
    counts = [server.call("/tokenize", {"content": text})[1]["count"] for text in texts]
    assert listed.usage.prompt_tokens == listed.usage.total_tokens == sum(counts)
    plain = create(model="tiny", input="the thing", encoding_format="float").data[0].embedding
    assert plain == pytest.approx(first, abs=1e-7)
    raw = server.call("/v1/embeddings", {"input": "the thing", "encoding_format": "base64"})[1]["data"][0]["embedding"]
    assert list(struct.unpack(f"<{len(first)}f", base64.b64decode(raw))) == pytest.approx(first, abs=1e-7)
    tokens = server.call("/tokenize", {"content": "the thing"})[1]["tokens"]
    assert create(model="tiny", input=tokens).data[0].embedding == create(model="tiny", input=[tokens]).data[0].embedding == first
    short = create(model="tiny", input="the thing", dimensions=5).data[0].embedding
    assert short == pytest.approx([value / norm(first[:5]) for value in first[:5]], abs=1e-6)


def test_a_thousand_texts_are_embedded(server):  # noqa: F811
    listed = server.client.embeddings.create(model="tiny", input=[f"thing {i % 9}" for i in range(1000)])
    assert len(listed.data) == 1000 and listed.data[0].embedding == listed.data[999].embedding != listed.data[1].embedding
    assert server.call("/ready")[1]["requests"] == 0


@pytest.mark.parametrize(
    ("status", "param", "change"),
    [
        (400, "input", {"input": []}),
        (400, "input", {"input": None}),
        (400, None, {"input": ""}),
        (400, "encoding_format", {"encoding_format": "hex"}),
        (400, "dimensions", {"dimensions": 0}),
        (400, "dimensions", {"dimensions": 1 << 20}),
        (404, "model", {"model": "other"}),
    ],
)
def test_wrong_embeddings_are_named(server, status, param, change):  # noqa: F811
    found, reply = server.call("/v1/embeddings", {"input": "x"} | change)
    assert (found, reply["error"]["param"]) == (status, param), reply


def test_reading_a_prompt_is_told(server):  # noqa: F811
    long = "the thing " * 300
    chunks = list(server.chat(long, stream=True, max_tokens=2, extra_body={"return_progress": True}))
    progress = [chunk.prompt_progress for chunk in chunks if getattr(chunk, "prompt_progress", None)]
    total = server.chat(long, max_tokens=1).usage.prompt_tokens
    read = [told["processed"] for told in progress]
    assert len(read) > 2 and read == sorted(set(read)) and read[-1] == total and read[0] < total / 2
    assert {told["total"] for told in progress} == {total}
    assert not any(getattr(chunk, "prompt_progress", None) for chunk in server.chat(long, stream=True, max_tokens=2))


def test_echo_tells_the_prompts_logprobs(server):  # noqa: F811
    text = "the thing HADAL"
    tokens = server.call("/tokenize", {"content": text})[1]["tokens"]
    listed = server.client.completions.create(model="tiny", prompt=text, max_tokens=1, echo=True, logprobs=2, temperature=0).choices[0].logprobs
    assert len(listed.tokens) == len(tokens) + 1 and listed.token_logprobs[0] is None and listed.top_logprobs[0] is None
    assert listed.text_offset[0] == 0 and listed.text_offset[-1] == sum(map(len, listed.tokens[:-1]))
    alone = server.client.completions.create(model="tiny", prompt=text, max_tokens=0, echo=True, logprobs=2).choices[0]
    assert alone.text == text and alone.finish_reason == "length" and alone.logprobs.token_logprobs == listed.token_logprobs[:-1]
    assert server.call("/v1/completions", {"prompt": text, "max_tokens": 0})[0] == 400
    for at in range(1, len(tokens)):  # each as if the reply had begun there
        forced = {str(tokens[at]): 100}
        reply = server.client.completions.create(model="tiny", prompt=tokens[:at], max_tokens=1, logprobs=2, temperature=0, logit_bias=forced)
        assert reply.choices[0].logprobs.token_logprobs[0] == pytest.approx(listed.token_logprobs[at], abs=1e-4), at


def test_a_chat_goes_on(server):  # noqa: F811
    said = server.chat(max_tokens=12).choices[0].message.content
    messages = [{"role": "user", "content": "the thing"}, {"role": "assistant", "content": "HADAL"}]
    ask = lambda **more: server.client.chat.completions.create(model="tiny", max_tokens=8, temperature=0, messages=messages, **more)
    goes_on = ask(extra_body={"continue_final_message": True})
    text = server.call("/apply-template", {"messages": messages[:1]})[1]["prompt"] + "HADAL"
    alone = server.client.completions.create(model="tiny", prompt=text, max_tokens=8, temperature=0)
    assert goes_on.choices[0].message.content == alone.choices[0].text != said[:8]
    assert goes_on.usage.prompt_tokens == alone.usage.prompt_tokens < ask().usage.prompt_tokens


def test_more_than_ever_fits_is_not_told_to_come_back(hadal, model):  # noqa: F811
    small = Server(hadal, model, "--most-requests", 2)
    status, reply = small.call("/v1/completions", {"prompt": ["x", "y", "z"], "max_tokens": 1})
    assert status == 400 and "at most 2" in reply["error"]["message"]
    assert small.call("/v1/embeddings", {"input": ["x", "y", "z"]})[0] == 200
    assert small.end() == 0


SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"], "additionalProperties": False}


def test_a_response_keeps_to_a_schema(server):  # noqa: F811
    format = {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}
    for stream in (False, True):
        response = server.client.responses.create(**ASK | {"max_output_tokens": 60}, text={"format": format}, stream=stream)
        response = check_stream(list(response)) if stream else response
        assert json.loads(response.output_text)["a"] in ("x", "y") and response.status == "completed"
        assert response.text.format.name == "n"


def test_a_message_keeps_to_a_schema(server):  # noqa: F811
    anthropic = pytest.importorskip("anthropic")
    client = anthropic.Anthropic(base_url=server.base, api_key="none", max_retries=0, timeout=60)
    ask = {"model": "tiny", "max_tokens": 60, "messages": [{"role": "user", "content": "the thing"}]}
    message = client.messages.create(**ask, output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    assert json.loads(message.content[0].text)["a"] in ("x", "y") and message.stop_reason == "end_turn"
