"""hadal on a Ray cluster: engines inside Ray Serve's replicas, the OpenAI interface (chat completions, streamed or whole) in front of them.

    serve run hadal.ray:build model=/srv/models/model.gguf cores=8 max_replicas=4

or, from Python:

    from ray import serve
    import hadal.ray
    serve.run(hadal.ray.app("/srv/models/model.gguf", cores=8, max_replicas=4))

Replicas are added while more than `busy` requests run in each and taken away when they are idle; one that is to go first finishes what
runs in it. A replica that dies is replaced, and requests go to the others meanwhile. Each replica computes with cores of its own. Every
node finds the model under the same name or path. Tools, several choices and structured output are answered by `hadal serve` behind a
balancer (deploy/).
"""

import contextlib
import fcntl
import json
import os
import pathlib
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from ray import serve

import hadal

api = FastAPI(title="hadal", version=hadal.__version__)

_TAKEN = {  # fields of a request that the engine takes, and what they are
    "temperature": (int, float), "top_p": (int, float), "top_k": int, "min_p": (int, float), "presence_penalty": (int, float),
    "frequency_penalty": (int, float), "seed": int, "stop": (str, list),
}  # fmt: skip
_REFUSED = ("tools", "functions", "response_format", "logprobs", "audio", "modalities")


class _BadRequest(Exception):
    def __init__(self, message: str, parameter: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.parameter, self.code = status, parameter, code

    def response(self) -> Response:
        error = {"message": str(self), "type": "invalid_request_error", "param": self.parameter, "code": self.code}
        return JSONResponse({"error": error}, self.status)


def _options(body: Any, name: str) -> dict[str, Any]:
    """The engine's options for the body of a request. _BadRequest: what is wrong with it."""
    if not isinstance(body, dict):
        raise _BadRequest("expected a JSON object")
    if body.get("model") not in (None, name):
        raise _BadRequest(f"model: there is no '{body['model']}' here, only '{name}'", "model", 404, "model_not_found")
    if body.get("n") not in (None, 1):
        raise _BadRequest(f"n: expected 1, found {body['n']!r}", "n")
    for field in _REFUSED:
        if body.get(field) and body[field] != {"type": "text"}:
            raise _BadRequest(f"{field}: not answered here; `hadal serve` does", field)
    options: dict[str, Any] = {}
    for field, kind in _TAKEN.items():
        if (value := body.get(field)) is not None:
            if isinstance(value, bool) or not isinstance(value, kind):
                raise _BadRequest(f"{field}: expected {'a number' if kind != (str, list) else 'a text or several'}, found {value!r}", field)
            options[field] = value
    longest = body.get("max_completion_tokens") or body.get("max_tokens")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int)):
        raise _BadRequest(f"max_tokens: expected a whole number, found {longest!r}", "max_tokens")
    options["max_tokens"] = longest
    if bias := body.get("logit_bias"):
        try:
            options["logit_bias"] = {int(id): float(value) for id, value in bias.items()}
        except (AttributeError, TypeError, ValueError):
            raise _BadRequest("logit_bias: expected an object of token ids and numbers", "logit_bias") from None
    return options


def _claim_cores(count: int) -> list[int]:
    """So many cores that no other replica on this machine has, as long as this process lives; none where there are not so many.

    The engine's threads are bound to cores: two replicas on the same ones would stand in each other's way.
    """
    folder = pathlib.Path(tempfile.gettempdir(), f"hadal-cores-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    claimed = {}
    for core in sorted(os.sched_getaffinity(0)):
        lock = os.open(folder / str(core), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            claimed[core] = lock
        except OSError:
            os.close(lock)
        if len(claimed) == count:
            os.sched_setaffinity(0, claimed)
            return list(claimed)
    for lock in claimed.values():
        os.close(lock)
    return []


def _usage(reply: hadal.Reply) -> dict[str, int]:
    return {"prompt_tokens": reply.prompt_tokens, "completion_tokens": len(reply.ids), "total_tokens": reply.prompt_tokens + len(reply.ids)}


@serve.deployment(health_check_period_s=2, health_check_timeout_s=30, graceful_shutdown_wait_loop_s=0.5, graceful_shutdown_timeout_s=120)
@serve.ingress(api)
class Server:
    def __init__(self, model: str, name: str, cores: int, options: dict[str, Any]) -> None:
        claimed = _claim_cores(cores)
        self.name, self.created = name, int(time.time())
        self.model = hadal.load(model, threads=len(claimed) or None, **options)
        self.replica = secrets.token_hex(4)  # told in a header, so that it can be seen who answered

    @api.post("/v1/chat/completions")
    async def chat(self, request: Request) -> Response:
        try:
            try:
                body = json.loads(await request.body())
            except ValueError:
                raise _BadRequest("expected JSON") from None
            options = _options(body, self.name)
            messages = body.get("messages")
            if not isinstance(messages, list) or not messages:
                raise _BadRequest("messages: expected a list with at least one message", "messages")
            try:
                stream = self.model.stream_async(messages, **options)
            except hadal.Error as error:
                raise _BadRequest(str(error)) from None
            headers = {"X-Hadal-Replica": self.replica}
            head = {"id": f"chatcmpl-{secrets.token_hex(8)}", "created": int(time.time()), "model": self.name}
            if body.get("stream"):
                usage = bool((body.get("stream_options") or {}).get("include_usage"))
                return StreamingResponse(self._events(stream, head, usage), media_type="text/event-stream", headers=headers)
            reply = await stream.read()
            choice = {"index": 0, "message": reply.message, "finish_reason": reply.finish, "logprobs": None}
            return JSONResponse(head | {"object": "chat.completion", "choices": [choice], "usage": _usage(reply)}, headers=headers)
        except _BadRequest as error:
            return error.response()

    async def _events(self, stream: hadal.AsyncStream, head: dict[str, Any], usage: bool) -> AsyncIterator[str]:
        def event(choices: list[Any], **more: Any) -> str:
            return f"data: {json.dumps(head | {'object': 'chat.completion.chunk', 'choices': choices} | more)}\n\n"

        def choice(delta: dict[str, str], finish: str | None = None) -> list[Any]:
            return [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]

        async with contextlib.aclosing(stream):  # a client that leaves ends its reply
            yield event(choice({"role": "assistant", "content": ""}))
            async for piece in stream:
                yield event(choice({"reasoning_content" if piece.reasoning else "content": str(piece)}))
            yield event(choice({}, stream.reply.finish))
            if usage:
                yield event([], usage=_usage(stream.reply))
            yield "data: [DONE]\n\n"

    @api.get("/v1/models")
    def models(self) -> Any:
        return {"object": "list", "data": [{"id": self.name, "object": "model", "created": self.created, "owned_by": "hadal"}]}

    @api.get("/ready")
    def ready(self) -> Any:
        return {"status": "ready", "replica": self.replica}


def app(
    model: str,
    name: str | None = None,
    *,
    cores: int = 1,
    min_replicas: int = 1,
    max_replicas: int = 1,
    busy: float = 8,
    most_requests: int = 64,
    drain: float = 120,
    **options: Any,
) -> serve.Application:
    """The application, for serve.run.

    model: as hadal.load has it, found so on every node. name: what clients call it; default: the last part of model. cores: of each
    replica.
    busy: requests running in each replica, on average, above which one more is started. most_requests: in one replica; more wait for room.
    drain: seconds that a replica which is to go has to finish what runs in it. options: of hadal.load.
    """
    if not 1 <= min_replicas <= max_replicas:
        raise hadal.Error(f"min_replicas, max_replicas: expected 1 <= min <= max, found {min_replicas} and {max_replicas}")
    scaling = {
        "min_replicas": min_replicas,
        "initial_replicas": min_replicas,
        "max_replicas": max_replicas,
        "target_ongoing_requests": busy,
        "upscale_delay_s": 5,
        "downscale_delay_s": 300,
    }
    return Server.options(
        autoscaling_config=scaling,
        max_ongoing_requests=most_requests,
        ray_actor_options={"num_cpus": cores},
        graceful_shutdown_timeout_s=drain,
    ).bind(model, name or pathlib.Path(model).name, cores, options)


def build(args: dict[str, str]) -> serve.Application:
    """For `serve run hadal.ray:build model=... cores=8`: app() with arguments as texts."""
    numbers = {
        "cores": int,
        "min_replicas": int,
        "max_replicas": int,
        "busy": float,
        "most_requests": int,
        "drain": float,
        "context": int,
        "replies": int,
        "attention_window": int,
    }
    if "model" not in args:
        raise hadal.Error("expected model=..., as in: serve run hadal.ray:build model=/srv/models/model.gguf")
    return app(**{key: numbers.get(key, str)(value) for key, value in args.items()})
