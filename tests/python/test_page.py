"""The page at /, in headless Chromium before a real server. The picture of README: HADAL_PICTURE=docs/images/page.png and this file."""

import json
import os
import pathlib
import re
import urllib.request

import pytest
from conftest import GOLDEN, read_golden
from test_cli import TEMPLATE, copy_of
from test_serve import NEVER_END, Server

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PHONE = {"width": 320, "height": 640}
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
        context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 800}, base_url=base or server.base, **options) \
            if "locale" not in options and "viewport" not in options else browser.new_context(base_url=base or server.base, **options)
        contexts.append(context)
        sampling = {"temperature": "0", "max_tokens": "24"} if sampling is None else sampling
        context.add_init_script(f"localStorage.setItem('hadal.sampling', {json.dumps(json.dumps(sampling))})")
        page = context.new_page()
        page.set_default_timeout(15000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type in ("error", "warning") and not any(e in message.text for e in expected) and problems.append(message.text))
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


def test_files_have_their_types_and_guards(server):
    page = urllib.request.urlopen(server.base + "/")
    names = set(re.findall(r'(?:src|href)="([\w./]+)"', page.read().decode()))
    assert {"main.js", "style.css", "icon.svg"} <= names
    for name, kind in (("", "text/html"), ("main.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")):
        reply = urllib.request.urlopen(f"{server.base}/{name}")
        assert reply.headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert reply.headers["X-Content-Type-Options"] == "nosniff" and reply.headers["Cache-Control"] == "no-cache"
        policy = reply.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "trusted-types 'none'" in policy and "unsafe" not in policy
        again = urllib.request.Request(f"{server.base}/{name}", headers={"If-None-Match": reply.headers["ETag"]})
        with pytest.raises(urllib.error.HTTPError) as found:
            urllib.request.urlopen(again)
        assert found.value.code == 304 and found.value.read() == b""
    assert server.call("/nothing.js")[0] == 404


def test_a_chat_streams_and_survives_a_reload(visit):
    page = visit()
    say(page, "the thing")
    expect(replies(page)).to_have_count(1)
    first = replies(page).inner_text()
    assert first.strip() != ""
    expect(page.locator(".stats")).to_contain_text("24 tokens")
    say(page, "another thing")
    expect(page.locator(".message")).to_have_count(4)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator(".message")).to_have_count(4)
    assert replies(page).first.inner_text() == first
    expect(page.locator("#talks .talk.active")).to_contain_text("the thing")


def test_what_is_sent_is_the_path_with_system_prompt_and_sampling(visit):
    page = visit(sampling={"temperature": "0.5", "max_tokens": "8", "seed": "", "stop": "END"})
    page.locator("#open-settings").click()
    page.locator("#set-system").fill("Be brief.")
    page.locator("#set-top_p").fill("0.25")
    page.keyboard.press("Escape")
    answers_with(page, "first")
    say(page, "one")
    with page.expect_request("**/v1/chat/completions") as sent:
        say(page, "two")
    body = sent.value.post_data_json
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}, {"role": "assistant", "content": "first"},
                                {"role": "user", "content": "two"}]
    assert body["temperature"] == 0.5 and body["top_p"] == 0.25 and body["max_tokens"] == 8 and body["stop"] == ["END"] and "seed" not in body


def test_stop_keeps_what_was_said(visit):
    page = visit(sampling={"temperature": "1", "seed": "1"})
    page.route("**/v1/chat/completions", lambda route: route.continue_(post_data=json.dumps(route.request.post_data_json | {"logit_bias": NEVER_END})))
    page.locator("#input").fill("go on")
    page.locator("#input").press("Enter")
    expect(page.locator(".message.live .markdown")).not_to_be_empty()
    page.locator("#stop").click()
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator(".note")).to_have_text("Stopped.")
    assert replies(page).inner_text().removesuffix("Stopped.").strip() != ""
    expect(page.locator("#input")).to_be_focused()
    page.locator("#input").fill("again")
    page.locator("#input").press("Enter")
    expect(page.locator(".message.live .markdown")).not_to_be_empty()
    page.keyboard.press("Escape")
    expect(page.locator(".note")).to_have_count(2)


def test_retry_and_edit_branch_off(visit):
    page = visit()
    answers_with(page, "reply one")
    say(page, "question")
    page.unroute("**/v1/chat/completions")
    answers_with(page, "reply two")
    page.locator("[data-do=retry]").click()
    expect(replies(page)).to_have_text(["reply two"])
    expect(page.locator(".branches")).to_have_text("2 of 2")
    page.get_by_role("button", name="Version before").click()
    expect(replies(page)).to_have_text(["reply one"])
    page.locator("[data-do=edit]").last.click()
    page.get_by_role("textbox", name="Edit the message").fill("question changed")
    page.unroute("**/v1/chat/completions")
    answers_with(page, "reply three")
    page.get_by_role("textbox", name="Edit the message").press("Enter")
    expect(replies(page)).to_have_text(["reply three"])
    expect(page.locator(".message.user .body")).to_have_text(["question changed"])
    page.get_by_role("button", name="Version before").click()
    expect(page.locator(".message.user .body")).to_have_text(["question"])
    expect(replies(page)).to_have_text(["reply two"])  # of the branch the newest


def test_reasoning_is_folded(visit):
    page = visit()
    answers_with(page, "forty-two", reasoning="let me see")
    say(page, "answer?")
    thoughts = page.locator(".thinking .thoughts")
    expect(thoughts).to_be_hidden()
    page.locator(".thinking summary").click()
    expect(thoughts).to_have_text("let me see")
    expect(replies(page)).to_have_text(["forty-two"])


def test_words_of_others_stay_text(visit):
    page = visit()
    answers_with(page, f"{HOSTILE}\n\n```html\n{HOSTILE}\n```\n\n| a |\n|---|\n| {HOSTILE} |\n\n[good](https://example.org/x) ![p](https://example.org/p.png)")
    say(page, HOSTILE)
    expect(page.locator("#messages .user .body")).to_have_text(HOSTILE)
    assert page.locator("#messages img, #messages script, #messages svg:not(.icon-shape)").count() == 0
    links = page.locator("#messages a").evaluate_all("all => all.map(a => [a.href, a.rel, a.target])")
    assert links == [["https://example.org/x", "noopener noreferrer nofollow", "_blank"], ["https://example.org/p.png", "noopener noreferrer nofollow", "_blank"]]
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#talks .talk a")).to_contain_text("<img src=x")
    assert page.evaluate("window.broken") is None


def test_markdown(visit):
    page = visit()
    text = "# Title\n\nSome **bold**, *italic*, ~~gone~~ and `code`; 价格**“很低”**。\n\n1. one\n2. two\n   - inner\n\n> quote\n\n| a | b |\n|:--|--:|\n| 1 | 2 |\n\n```cpp\nint x = 1;  // one\n```\n\n$E = mc^2$ and it costs $5.\n\n---\n"
    answers_with(page, text)
    say(page, "show")
    body = replies(page)
    for selector, words in (("h3", "Title"), ("p strong >> nth=0", "bold"), ("p strong >> nth=1", "“很低”"), ("em", "italic"), ("del", "gone"), ("p code", "code"),
                            ("ol > li > ul > li", "inner"), ("blockquote", "quote"), ("th >> nth=0", "a"), ("td.to-right", "2"), (".c-keyword", "int"),
                            (".c-comment", "// one"), (".math", "E = mc^2")):
        expect(body.locator(selector)).to_have_text(words)
    assert body.locator("hr").count() == 1
    expect(body.locator("p", has_text="it costs $5.")).to_have_count(1)


RANDOM_MARKDOWN = r"""
async () => {
  const { renderMarkdown, GrowingMarkdown } = await import("./markdown.js");
  let state = 12345;
  const random = (n) => (state = (Math.imul(state, 1103515245) + 12345) >>> 0, (state >>> 8) % n);
  const bits = ["*", "**", "_", "~~", "`", "```", "\n", "\n\n", "- ", "1. ", "> ", "# ", "| a | b |\n|---|---|\n", "|", "[", "](", ")", "![", "http://", "https://a.b/c", "$", "$$",
    "\\(", "\\)", "\\[", "\\", "<", ">", "<b>", "word ", "字", "  ", "    ", "\t", "\r\n", "---\n", "~~~", "\u0000", "\ud800", "\u202e", "😀", "javascript:", "&lt;", "[x] "];
  const depth = (node) => node.childElementCount ? 1 + Math.max(...[...node.children].map(depth)) : 1;
  let deepest = 0;
  for (let round = 0; round < 400; ++round) {
    let text = "";
    for (let i = random(120); i >= 0; --i) text += bits[random(bits.length)];
    const whole = renderMarkdown(text), grown = new GrowingMarkdown();
    for (let at = 0; at < text.length; at += 1 + random(40)) grown.show(text.slice(0, at), false);
    grown.show(text, true);
    if (grown.node.innerHTML !== whole.innerHTML) throw new Error("grown is not whole: " + JSON.stringify(text));
    if (whole.querySelector("script, img, iframe, style, b")) throw new Error("markup came through: " + JSON.stringify(text));
    deepest = Math.max(deepest, depth(whole));
  }
  return deepest;
}
"""

LONG_MARKDOWN = r"""
async () => {
  const { renderMarkdown } = await import("./markdown.js");
  const many = (text) => text.repeat(Math.ceil(100000 / text.length));
  const texts = ["*", "_", "`", "[", "![", "](", "> ", "- ", "*a ", "**a* ", "`a``", "[a](", "$a ", "$$", "\\(", "<http://", "~~", "a|", "|-", "|\n", "# ", "#", "- a\n", "> a\n", "  - a\n",
    "```\n", "1. ", "*a_b", "[[a](https://a.b) ", "'", "word ", "\n", "a\n\n", "http://", "$$\n", "| a |\n|---|\n", "```js\n\"'`/*\n```\n", "*a* **b** `c` [d](https://e.f)\n\n"].map(many);
  texts.push("> ".repeat(30) + many("a"), "- ".repeat(1000), Array.from({ length: 300 }, (_, i) => " ".repeat(2 * i) + "- a").join("\n"));
  const depth = (node) => { let most = 0; for (const one of node.querySelectorAll("*")) { let d = 0; for (let n = one; n !== node; n = n.parentNode) ++d; most = Math.max(most, d); if (d > 200) break; } return most; };
  let deepest = 0, slow = [];
  for (const text of texts) {
    const start = performance.now(), node = renderMarkdown(text);
    const took = performance.now() - start;
    if (took > 5000) slow.push([text.slice(0, 12), took]);  // what is quadratic takes minutes
    deepest = Math.max(deepest, depth(node));
  }
  return { deepest, slow };
}
"""


def test_no_text_breaks_markdown(visit):
    page = visit()
    assert page.evaluate(RANDOM_MARKDOWN) < 60


def test_long_texts_stay_flat(visit):
    found = visit().evaluate(LONG_MARKDOWN)
    assert found["slow"] == [] and found["deepest"] < 60
