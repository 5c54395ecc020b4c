"""The Messages interface before its official client."""

import json

import pytest
from conftest import GOLDEN, TEMPLATE, copy_of, read_golden
from test_serve import ALWAYS_A, Server, model, server  # noqa: F401

anthropic = pytest.importorskip("anthropic")


def client_of(server, key="none"):
    return anthropic.Anthropic(base_url=server.base, api_key=key, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def client(server):  # noqa: F811
    return client_of(server)


@pytest.fixture(scope="module")
def thinking(hadal, tmp_path_factory):
    llama = read_golden(GOLDEN / "llama")
    server = Server(hadal, copy_of(tmp_path_factory.mktemp("thinking") / "model", llama.model, TEMPLATE + "<think>\n", max_position_embeddings=4096))
    yield server
    assert server.end() == 0


ASK = {"model": "tiny", "max_tokens": 8, "messages": [{"role": "user", "content": "the thing"}]}
GREEDY = {"extra_body": {"temperature": 0}}  # the client has no field for it any more


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message_is_the_reply_of_the_chat(server, client):  # noqa: F811
    chat = server.chat(max_tokens=8)
    message = client.messages.create(**GREEDY, **ASK)
    assert text_of(message) == chat.choices[0].message.content
    assert (message.type, message.role, message.model) == ("message", "assistant", "tiny") and message.id.startswith("msg_")
    assert message.stop_reason == "max_tokens" and message.stop_sequence is None
    assert (message.usage.input_tokens, message.usage.output_tokens) == (chat.usage.prompt_tokens, chat.usage.completion_tokens)


def test_a_stream_adds_up_to_the_message(client):
    whole = client.messages.create(**GREEDY, **ASK | {"max_tokens": 40})
    with client.messages.stream(**GREEDY, **ASK | {"max_tokens": 40}) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert text_of(final) == text_of(whole) and final.usage == whole.usage
    assert (final.stop_reason, final.stop_sequence) == (whole.stop_reason, whole.stop_sequence)
    raw = [kind for kind in kinds if kind != "text"]
    assert raw[0] == "message_start" and raw[-2:] == ["message_delta", "message_stop"]
    blocks = [kind for kind in raw if kind.startswith("content_block")]
    assert blocks[0] == "content_block_start" and blocks[-1] == "content_block_stop" and blocks.count("content_block_start") == 1


def test_thinking_is_a_block_of_its_own(thinking):
    client = client_of(thinking)
    message = client.messages.create(**GREEDY, **ASK)
    assert [block.type for block in message.content] == ["thinking"] and message.content[0].thinking
    with client.messages.stream(**GREEDY, **ASK) as stream:
        final = stream.get_final_message()
    assert [(block.type, block.thinking) for block in final.content] == [("thinking", message.content[0].thinking)]
    again = client.messages.create(**GREEDY, **ASK | {"messages": ASK["messages"] + [{"role": "assistant", "content": message.content}, {"role": "user", "content": "x"}]})
    assert again.usage.input_tokens > message.usage.input_tokens, "what was said before can be given back as it came"


def test_a_stop_sequence_is_told(client):
    said = text_of(client.messages.create(**GREEDY, **ASK | {"max_tokens": 40}))
    stop = said[5:7]
    message = client.messages.create(**GREEDY, **ASK | {"max_tokens": 40, "stop_sequences": ["never said", stop]})
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert text_of(message) == said[: said.index(stop)]
    with client.messages.stream(**GREEDY, **ASK | {"max_tokens": 40, "stop_sequences": [stop]}) as stream:
        final = stream.get_final_message()
    assert (final.stop_reason, final.stop_sequence, text_of(final)) == ("stop_sequence", stop, text_of(message))


def test_a_reply_goes_on_where_it_was_begun(client):
    said = text_of(client.messages.create(**GREEDY, **ASK | {"max_tokens": 12}))
    begun = [{"role": "user", "content": "the thing"}, {"role": "assistant", "content": said[:4]}]
    tokens = client.messages.create(**GREEDY, **ASK | {"messages": begun, "max_tokens": 8})
    whole = client.messages.create(**GREEDY, **ASK | {"messages": begun[:1], "max_tokens": 8})
    assert tokens.usage.input_tokens > whole.usage.input_tokens and not text_of(tokens).startswith(said[:4])


def count(client, **what):
    return client.messages.count_tokens(model="tiny", **what).input_tokens


def prompt_of(server, *messages):  # noqa: F811
    text = server.call("/apply-template", {"messages": list(messages)})[1]["prompt"]
    return server.call("/tokenize", {"content": text, "add_special_tokens": False})[1]["count"]


def test_all_ways_to_say_it_are_understood(server, client):  # noqa: F811
    user = {"role": "user", "content": "the thing"}
    expected = prompt_of(server, {"role": "system", "content": "be brief"}, user)
    assert count(client, system="be brief", messages=[user]) == expected
    assert count(client, system=[{"type": "text", "text": "be brief"}], messages=[{"role": "user", "content": [{"type": "text", "text": "the thing"}]}]) == expected
    assert count(client, messages=[user, user]) == prompt_of(server, {"role": "user", "content": "the thing\nthe thing"})
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    turns = [
        user,
        {"role": "assistant", "content": [{"type": "text", "text": "let me see"}, {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "42"}]}, {"type": "text", "text": "well?"}]},
    ]
    same = [user, {"role": "assistant", "content": "let me see", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "t1", "content": "42"}, {"role": "user", "content": "well?"}]
    assert count(client, messages=turns) == prompt_of(server, *same)
    message = client.messages.create(**GREEDY, **ASK)
    assert count(client, messages=ASK["messages"]) == message.usage.input_tokens


@pytest.mark.parametrize(
    ("named", "change"),
    [
        ("max_tokens", {"max_tokens": None}),
        ("max_tokens", {"max_tokens": 0}),
        ("messages", {"messages": []}),
        ("messages[0].role", {"messages": [{"role": "system", "content": "x"}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": 1}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": []}]}),
        ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}),
        ("temperature", {"temperature": 1.5}),
        ("stop_sequences[0]", {"stop_sequences": [1]}),
        ("tools[0].input_schema", {"tools": [{"name": "f"}]}),
        ("tool_choice.type", {"tool_choice": {"type": "some"}}),
        ("thinking.type", {"thinking": {"type": "maybe"}}),
    ],
)
def test_what_is_wrong_is_named(server, named, change):  # noqa: F811
    status, reply = server.call("/v1/messages", ASK | change)
    assert status == 400 and reply["type"] == "error" and reply["error"]["type"] == "invalid_request_error"
    assert reply["error"]["message"].startswith(named + ":"), reply


def test_errors_are_those_of_the_client(hadal, model, server, client):  # noqa: F811
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**GREEDY, **ASK | {"model": "other"})
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(**GREEDY, **ASK | {"messages": []})
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    locked = Server(hadal, model, environment={"HADAL_API_KEY": "secret"})
    with pytest.raises(anthropic.AuthenticationError):
        client_of(locked, "wrong").messages.create(**ASK)
    assert text_of(client_of(locked, "secret").messages.create(**GREEDY, **ASK)) == text_of(client.messages.create(**GREEDY, **ASK))
    assert locked.end() == 0


def test_models_are_listed(client):
    listed = client.models.list()
    assert [(model.id, model.type, model.display_name) for model in listed] == [("tiny", "model", "tiny")] and not listed.has_more
    assert client.models.retrieve("tiny").created_at.year >= 2020


def test_pings_come_while_a_prompt_is_read(server):  # noqa: F811
    import urllib.request

    body = json.dumps(ASK | {"stream": True, "messages": [{"role": "user", "content": "the thing " * 200}]}).encode()
    with urllib.request.urlopen(server.base + "/v1/messages", body) as reply:
        events = [line.split(": ", 1)[1] for line in reply.read().decode().splitlines() if line.startswith("event: ")]
    assert events[: events.index("content_block_start")].count("ping") > 2 and events[0] == "message_start"
