"""What people use to talk to servers, talking to ours: langchain, litellm, lm-eval, curl, and schemathesis over the OpenAPI document."""

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from test_serve import ALWAYS_A, Server, model, server  # noqa: F401

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGCHAIN_TRACING_V2": "false"}


def test_langchain(server):  # noqa: F811
    chat_openai = pytest.importorskip("langchain_openai")
    about = {"base_url": f"{server.base}/v1", "api_key": "none", "model": "tiny", "max_retries": 0}
    said = server.chat(max_tokens=8).choices[0].message.content
    for responses in (False, True):
        chat = chat_openai.ChatOpenAI(**about, temperature=0, max_tokens=8, use_responses_api=responses)
        reply = chat.invoke([("user", "the thing")])
        assert reply.text == said and reply.usage_metadata["output_tokens"] == 8
        assert "".join(piece.text for piece in chat.stream([("user", "the thing")])) == said
    embeddings = chat_openai.OpenAIEmbeddings(**about, check_embedding_ctx_length=False)
    vectors = embeddings.embed_documents(["the thing", "HADAL"])
    assert vectors[0] == embeddings.embed_query("the thing") and vectors[0] != vectors[1]


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydantic about its types
def test_litellm(server):  # noqa: F811
    litellm = pytest.importorskip("litellm")
    ask = {"messages": [{"role": "user", "content": "the thing"}], "max_tokens": 8, "temperature": 0, "api_key": "none", "num_retries": 0}
    said = server.chat(max_tokens=8).choices[0].message.content
    for name, base in (("openai/tiny", f"{server.base}/v1"), ("hosted_vllm/tiny", f"{server.base}/v1"), ("anthropic/tiny", server.base)):
        reply = litellm.completion(model=name, api_base=base, **ask)
        assert reply.choices[0].message.content == said and reply.usage.completion_tokens == 8, name
        pieces = litellm.completion(model=name, api_base=base, stream=True, **ask)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == said, name
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(model="openai/tiny", api_base=f"{server.base}/v1", **ask | {"temperature": 9})
    embedded = litellm.embedding(model="openai/tiny", input=["the thing"], api_base=f"{server.base}/v1", api_key="none")
    assert embedded.data[0]["embedding"] == server.client.embeddings.create(model="tiny", input="the thing").data[0].embedding


def test_lm_eval(server):  # noqa: F811
    """Its own tokenizer is not needed: it asks the server for the tokens. Choices are judged by the log-probabilities of echoed prompts."""
    lm_eval = pytest.importorskip("lm_eval")
    import datasets
    from lm_eval.api.task import ConfigurableTask

    questions = [{"text": "the thing", "choices": [" HADAL", " is", " 42"]}, {"text": "one two", "choices": [" three", " thing"]}]
    task = {
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(questions)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "text",
        "doc_to_choice": "choices",
        "doc_to_target": 0,
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    writing = task | {
        "output_type": "generate_until",
        "doc_to_choice": None,
        "doc_to_target": lambda doc: "anything",
        "generation_kwargs": {"until": ["never said"], "max_gen_toks": 5, "temperature": 0},
        "metric_list": [{"metric": "exact_match"}],
    }
    tasks = [ConfigurableTask(config=task | {"task": "judging"}), ConfigurableTask(config=writing | {"task": "writing"})]
    about = {"model": "tiny", "base_url": f"{server.base}/v1/completions", "num_concurrent": 2, "max_retries": 1}
    results = lm_eval.simple_evaluate(model="local-completions", model_args=about, tasks=tasks, batch_size=2, log_samples=True, bootstrap_iters=0)

    def token_logprobs(text):
        reply = server.client.completions.create(model="tiny", prompt=text, max_tokens=1, echo=True, logprobs=1, temperature=0)
        return reply.choices[0].logprobs.token_logprobs[:-1]

    judged = {sample["doc"]["text"]: sample for sample in results["samples"]["judging"]}
    assert judged.keys() == {question["text"] for question in questions}
    for question in questions:
        sums = []
        for choice in question["choices"]:
            before, all_ = token_logprobs(question["text"]), token_logprobs(question["text"] + choice)
            sums.append(sum(all_[len(before) :]))
        found = [float(one[0]) for one in judged[question["text"]]["filtered_resps"]]
        assert found == pytest.approx(sums, abs=1e-3)
        assert judged[question["text"]]["acc"] == float(sums.index(max(sums)) == 0)
    for sample in results["samples"]["writing"]:
        reply = server.client.completions.create(model="tiny", prompt=sample["doc"]["text"], max_tokens=5, temperature=0)
        assert sample["resps"][0][0] == reply.choices[0].text


def test_curl(server):  # noqa: F811
    ask = json.dumps({"messages": [{"role": "user", "content": "the thing"}], "max_tokens": 4, "temperature": 0, "stream": True})
    done = subprocess.run(
        ["curl", "-sN", "--fail-with-body", f"{server.base}/v1/chat/completions", "-d", ask], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    events = done.stdout.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    said = "".join(json.loads(event.removeprefix("data: "))["choices"][0]["delta"].get("content", "") for event in events[:-1])
    assert said == server.chat(max_tokens=4).choices[0].message.content
    # A body that is announced first, as curl does for large ones.
    large = json.dumps({"content": "the thing " * 50_000})
    done = subprocess.run(["curl", "-s", f"{server.base}/tokenize", "-H", "Expect: 100-continue", "-d", "@-"], input=large, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["count"] > 50_000


def only_once(pairs):
    found = dict(pairs)
    assert len(found) == len(pairs), f"twice the same key among {list(found)}"
    return found


def test_the_openapi_document_has_every_route(server):  # noqa: F811
    source = (ROOT / "src" / "serve" / "service.cpp").read_text()
    routes = {(path, method.lower()) for method, path in re.findall(r'\{"(GET|POST)", "(/[^"]+)", &Service::', source)}
    document = json.loads((ROOT / "web" / "openapi.json").read_text(), object_pairs_hook=only_once)
    assert document == server.call("/openapi.json")[1]
    told = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert len(routes) > 10 and told - {("/v1/models/{model}", "get")} == routes


def test_the_openapi_document_is_kept(server, tmp_path):  # noqa: F811
    """What it allows is answered as it says, and nothing makes the server fail."""
    pytest.importorskip("schemathesis")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance"
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{server.base}/openapi.json", "--checks", checks, "--max-examples", "5"]
        + ["--phases", "examples,coverage,fuzzing", "--seed", "1", "--request-timeout", "30", "--no-color"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert server.call("/health")[0] == 200 and server.call("/ready")[1]["requests"] == 0
