"""The page at / in headless Chromium before a real server: what its tests share."""

import json
import os
import pathlib
import re

import pytest
from conftest import GOLDEN, TEMPLATE, copy_of, read_golden
from test_serve import Server

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=20000)
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 320, "height": 640}
HOSTILE = '<img src=x onerror="window.broken=1"> <script>window.broken=2</script> [a](javascript:window.broken=3) <svg onload=window.broken=4>'


@pytest.fixture(scope="module")
def server(hadal, tmp_path_factory):
    llama = read_golden(GOLDEN / "llama")  # replies are gibberish
    model = copy_of(tmp_path_factory.mktemp("page") / "chatty", llama.model, TEMPLATE, max_position_embeddings=100000)
    server = Server(hadal, model)
    yield server
    assert server.end() == 0


@pytest.fixture(scope="module")
def browser():
    if not pathlib.Path(CHROMIUM).exists():
        pytest.skip(f"no {CHROMIUM}: the Debian package chromium has it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, server):
    """Opens the page as somebody new; at the end of the test nothing came from elsewhere and the console is quiet."""
    contexts, requests, problems = [], [], []

    def open_page(path="", expected=(), sampling=None, base=None, ready=True, **options):
        context = browser.new_context(**({"locale": "en-US", "viewport": DESK, "base_url": base or server.base} | options))
        contexts.append(context)
        sampling = {"temperature": "0", "max_tokens": "24"} if sampling is None else sampling
        context.add_init_script(f"localStorage.setItem('hadal.sampling', {json.dumps(json.dumps(sampling))})")
        page = context.new_page()
        page.set_default_timeout(15000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type in ("error", "warning") and not any(e in message.text for e in expected) and problems.append(f"{message.text} {message.location}"))
        page.goto(f"/{path}")
        if ready:
            page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
    assert requests and [url for url in requests if not re.match(r"(http://127\.0\.0\.1:|blob:http://127\.0\.0\.1:)", url)] == []


def say(page, text):
    page.locator("#input").fill(text)
    page.locator("#input").press("Enter")
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator(".message.live")).to_have_count(0)


def replies(page):
    return page.locator(".message.assistant .body")


def answers_with(page, content, reasoning=None, end="data: [DONE]\n\n"):
    """What the next chats are told, in place of the server's words."""
    chunks = [{"choices": [{"index": 0, "delta": {"reasoning_content": reasoning}}]}] if reasoning else []
    chunks += [{"choices": [{"index": 0, "delta": {"content": content[i : i + 7]}}]} for i in range(0, len(content), 7)]
    chunks.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(chunks)}})
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + end
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body))


def chosen(page, text):
    """A chat of two messages, without the server's words."""
    answers_with(page, text)
    say(page, "question")
