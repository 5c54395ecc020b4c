"""The page at /, in headless Chromium before a real server. The picture of README: HADAL_PICTURE=docs/images/page.png and this file."""

import json
import os
import pathlib
import re
import subprocess
import urllib.error
import urllib.request

import pytest
from conftest import GOLDEN, read_golden
from test_cli import TEMPLATE, copy_of
from test_serve import NEVER_END, Server

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


BY_HAND = r"""
window.fetch = ((fetch) => (path, options) => {
  if (!String(path).endsWith("chat/completions")) return fetch(path, options);
  const bytes = (text) => new TextEncoder().encode(text);
  return Promise.resolve(new Response(new ReadableStream({ start(stream) {
    window.give = (chunk) => stream.enqueue(bytes(`data: ${JSON.stringify(chunk)}\n\n`));
    window.tell = (delta, finish_reason = null) => window.give({ choices: [{ index: 0, delta, finish_reason }] });
    window.finish = () => (stream.enqueue(bytes("data: [DONE]\n\n")), stream.close());
  } }), { headers: { "Content-Type": "text/event-stream" } }));
})(window.fetch);
null  // a function would be called
"""


def test_what_a_reply_shows_on_its_way(visit):
    page = visit()
    page.evaluate(BY_HAND)
    page.locator("#input").fill("question")
    page.locator("#input").press("Enter")
    live = page.locator(".message.live")
    expect(live).to_contain_text("Waiting for the first word")
    expect(live).to_have_attribute("aria-busy", "true")
    page.evaluate("give({ choices: [], prompt_progress: { total: 1000, cache: 0, processed: 250 } })")
    expect(live).to_contain_text("Reading the prompt, 25 %")
    page.evaluate("tell({ reasoning_content: 'well' })")
    expect(live.locator("summary")).to_have_text("Thinking")
    page.evaluate("tell({ content: 'First paragraph.\\n\\nSecond' })")
    expect(live.locator("p")).to_have_text(["First paragraph.", "Second"])
    expect(live.locator("summary")).to_contain_text("Thought")
    heard = page.locator("#announcer p")
    expect(heard).to_have_text(["First paragraph."])  # the second may go on
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#welcome")).to_be_visible()
    page.evaluate("tell({ content: ' paragraph.' }, 'length'), give({ choices: [], usage: { prompt_tokens: 9, completion_tokens: 5 } })")
    page.locator("#talks .talk a").click()
    expect(live.locator("p")).to_have_text(["First paragraph.", "Second paragraph."])
    page.evaluate("finish()")
    expect(replies(page)).to_contain_text("The reply ended at the limit of tokens.")
    expect(page.locator(".stats")).to_contain_text("5 tokens")
    expect(heard.last).to_have_text("Second paragraph.")
    assert page.evaluate("document.querySelector('[aria-busy]')") is None


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
                            (".c-comment", "// one"), (".math", "E = mc2"), (".math sup", "2")):
        expect(body.locator(selector)).to_have_text(words)
    assert body.locator("hr").count() == 1
    expect(body.locator("p", has_text="it costs $5.")).to_have_count(1)


RANDOM_MARKDOWN = r"""
async () => {
  const { renderMarkdown, GrowingMarkdown } = await import("./markdown.js");
  const { highlight } = await import("./highlight.js");
  let state = 12345;
  const random = (n) => (state = (Math.imul(state, 1103515245) + 12345) >>> 0, (state >>> 8) % n);
  const bits = ["*", "**", "_", "~~", "`", "```", "\n", "\n\n", "- ", "1. ", "> ", "# ", "| a | b |\n|---|---|\n", "|", "[", "](", ")", "![", "http://", "https://a.b/c", "$", "$$",
    "\\(", "\\)", "\\[", "\\", "\"", "'", "//", "/*", "#", "0x1f", "if(", "<", ">", "<b>", "word ", "字", "  ", "    ", "\t", "\r\n", "---\n", "~~~", "\u0000", "\ud800", "\u202e", "😀", "javascript:", "&lt;", "[x] ", "$\\frac{", "}", "{", "^", "_", "\\sqrt[", "\\text{", "\\\\", "&", "\\left("];
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
    for (const language of ["cpp", "python", "js", "json", "bash", "html", "css", "yaml", "sql", "diff", "rust", "", "constructor", "toString"]) {
      const code = document.createElement("code");
      highlight(text, language, code);
      if (code.textContent !== text) throw new Error(language + " lost something: " + JSON.stringify(text));
    }
  }
  return deepest;
}
"""

LONG_MARKDOWN = r"""
async () => {
  const { renderMarkdown } = await import("./markdown.js");
  const many = (text) => text.repeat(Math.ceil(100000 / text.length));
  const texts = ["*", "_", "`", "[", "![", "](", "> ", "- ", "*a ", "**a* ", "`a``", "[a](", "$a ", "$$", "\\(", "<http://", "~~", "a|", "|-", "|\n", "# ", "#", "- a\n", "> a\n", "  - a\n",
    "```\n", "1. ", "*a_b", "[[a](https://a.b) ", "'", "word ", "\n", "a\n\n", "http://", "$$\n", "| a |\n|---|\n", "```js\n\"'`/*\n```\n", "$\\frac{", "$x^{", "\\(\\sqrt[", "\\frac{a}{b} ", "*a* **b** `c` [d](https://e.f)\n\n"].map(many);
  texts.push("$" + "\\frac{".repeat(12000) + "$", "\\[" + many("x^{") + "\\]", "$$" + many("\\sqrt{a}_") + "$$");
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


def test_formulas_read_well(visit):
    page = visit()
    formulas = {r"\frac{a+1}{2} \le \sqrt{x_1^2}": "a+1/2 ≤ √x12", r"\sum_{i=0}^{n} \alpha_i \in \mathbb{R}": "∑i=0n αi ∈ ℝ", r"\boxed{42\%}": "42%",
                r"\text{speed} \cdot t \unknown": "speed · t \\unknown", r"\begin{aligned} a &= b \\ c &= d \end{aligned}": "a = b c = d", r"\left( \hat{x} - y' \right)": "( x\u0302 − y′ )"}
    answers_with(page, "\n\n".join(f"\\[ {formula} \\]" for formula in formulas))
    say(page, "show")
    assert [" ".join(text.split()) for text in page.locator(".math").all_text_contents()] == list(formulas.values())
    assert page.locator(".math").evaluate_all("all => all.map((e) => e.ariaLabel)") == list(formulas)


def test_no_text_breaks_markdown(visit):
    page = visit()
    assert page.evaluate(RANDOM_MARKDOWN) < 60


def test_long_texts_stay_flat(visit):
    found = visit().evaluate(LONG_MARKDOWN)
    assert found["slow"] == [] and found["deepest"] < 60


def chosen(page, text):
    """A chat of two messages, without the server's words."""
    answers_with(page, text)
    say(page, "question")


def test_history_is_renamed_deleted_and_brought_back(visit):
    page = visit()
    chosen(page, "reply")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#welcome")).to_be_visible()
    say(page, "second chat")
    expect(page.locator("#talks .talk")).to_have_count(2)
    page.locator("#talks .talk", has_text="question").hover()
    page.get_by_role("button", name="Rename “question”").click()
    page.get_by_role("textbox", name="Name of the chat").fill("Renamed")
    page.keyboard.press("Enter")
    expect(page.locator("#talks .talk a")).to_have_text(["second chat", "Renamed"])
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#talks .talk a")).to_have_text(["second chat", "Renamed"])
    page.locator("#talks .talk a", has_text="Renamed").click()
    expect(page.locator(".message.user .body")).to_have_text(["question"])
    page.get_by_role("button", name="Delete “Renamed”").click()
    expect(page.locator("#talks .talk")).to_have_count(1)
    expect(page.locator("#welcome")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".message.user .body")).to_have_text(["question"])
    page.get_by_role("button", name="Delete “Renamed”").click()
    expect(page.locator("#talks .talk")).to_have_count(1)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#talks .talk")).to_have_count(1)


def test_history_is_exported_and_imported(visit, tmp_path):
    page = visit()
    chosen(page, "a **reply**")
    page.locator("#open-settings").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    file = tmp_path / "talks.json"
    download.value.save_as(file)
    other = visit()
    other.locator("#open-settings").click()
    other.locator("#import-file").set_input_files(file)
    expect(other.locator("#toast")).to_have_text("Chats imported: 1.")
    other.locator("#talks .talk a").click()
    expect(replies(other)).to_have_text(["a reply"])
    exported = json.loads(file.read_text())
    message = next(iter(exported["talks"][0]["messages"].values()))
    for wrong in ("{", "[]", json.dumps(exported | {"format": "other"}), json.dumps(exported | {"talks": [{"id": "x", "messages": {"a": {"id": "a"}}}]}),
                  json.dumps(exported | {"talks": [{"id": "x", "messages": {"a": message | {"id": "a", "parent": "b"}, "b": message | {"id": "b", "parent": "a"}}}]})):
        file.write_text(wrong)
        other.locator("#open-settings").click()
        other.locator("#import-file").set_input_files(file)
        expect(other.locator("#toast")).to_have_text("This is not a file of exported chats.")
    expect(other.locator("#talks .talk")).to_have_count(1)
    other.locator("#open-settings").click()
    other.get_by_role("button", name="Delete all").click()
    expect(other.locator("#talks .talk")).to_have_count(0)


def test_two_tabs_show_the_same_history(visit):
    page = visit()
    chosen(page, "reply")
    other = page.context.new_page()
    other.goto("/")
    other.locator("#talks .talk a").click()
    answers_with(page, "second reply")
    say(page, "second question")
    expect(replies(other)).to_have_text(["reply", "second reply"])
    page.get_by_role("button", name="Delete “question”").click()
    expect(other.locator("#talks .talk")).to_have_count(0)
    expect(other.locator("#welcome")).to_be_visible()


def test_a_browser_that_keeps_nothing_still_chats(visit):
    page = visit()
    page.add_init_script("indexedDB.open = () => { throw new Error('forbidden') }; for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, { get() { throw new Error('forbidden') } })")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#toast")).to_contain_text("does not let this page store chats")
    chosen(page, "reply")
    expect(replies(page)).to_have_text(["reply"])
    expect(page.locator("#talks .talk")).to_have_count(1)


def test_one_of_several_models_is_chosen(visit):
    page = visit()
    names = ["first", "second"]
    page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": [{"id": name} for name in names]}))
    page.reload()
    page.wait_for_selector("html[data-ready]")
    answers_with(page, "reply")
    page.get_by_role("combobox", name="Model").select_option("second")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    with page.expect_request("**/v1/chat/completions") as sent:
        say(page, "question")
    assert sent.value.post_data_json["model"] == "second"


def test_a_failure_is_told_and_retried(visit):
    page = visit(expected=("Failed to load resource",))
    error = json.dumps({"error": {"message": "messages: too long <b>", "type": "invalid_request_error", "param": None, "code": None}})
    fulfill = {"status": 400, "content_type": "application/json", "body": error}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**fulfill))
    say(page, "my words")
    expect(page.locator(".problem span")).to_have_text("messages: too long <b>")
    for status, words in ((429, "The server is busy. Try again in 7 s."), (500, "The server failed (messages: too long <b>).")):
        fulfill |= {"status": status, "headers": {"Retry-After": "7"}}
        page.locator(".retry-problem").click()
        expect(page.locator(".problem span")).to_have_text(words)
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.locator(".retry-problem").click()
    expect(page.locator(".problem span")).to_have_text("The server cannot be reached.")
    page.unroute("**/v1/chat/completions")
    answers_with(page, "half a reply", end="")
    page.locator(".retry-problem").click()
    expect(page.locator(".problem span")).to_have_text("The connection broke before the reply had ended.")
    expect(page.locator(".message.assistant .markdown")).to_have_text("half a reply")
    page.unroute("**/v1/chat/completions")
    page.locator(".retry-problem").click()
    expect(page.locator(".stats")).to_contain_text("24 tokens")
    expect(page.locator(".message.user .body")).to_have_text(["my words"])


def test_typed_text_outlives_a_reload(visit):
    page = visit()
    page.locator("#input").fill("half a thought")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#input")).to_have_value("half a thought")


def test_a_key_is_asked_for_and_not_kept(hadal, visit, tmp_path):
    model = copy_of(tmp_path / "chatty", read_golden(GOLDEN / "llama").model, TEMPLATE)
    server = Server(hadal, model, environment={"HADAL_API_KEY": "open sesame"}.items())
    page = visit(base=server.base, expected=("401",), ready=False)
    dialog = page.get_by_role("dialog", name="This server asks for an API key")
    dialog.get_by_label("API key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-note")).to_have_text("The server does not take this key.")
    dialog.get_by_label("API key").fill("open sesame")
    page.keyboard.press("Enter")
    expect(page.locator("#model-name")).to_have_text("tiny")
    say(page, "hello")
    expect(page.locator(".stats")).to_contain_text("tokens")
    assert page.evaluate("JSON.stringify({...localStorage}).includes('sesame')") is False
    assert page.evaluate("sessionStorage.getItem('hadal.key')") == "open sesame"
    assert server.end() == 0


def no_sideways_scroll(page):
    wide = page.evaluate("""() => [...document.querySelectorAll("html, body, #scroll, #dashboard, #model, #side, dialog[open]")]
        .filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth).map((e) => e.id || e.tagName)""")
    assert wide == []
    beyond = page.evaluate("""() => [...document.querySelectorAll("button, a, input, textarea, select, h1, h2, p, dd")].filter((e) => e.checkVisibility({ visibilityProperty: true }) &&
        !e.closest("pre, .table, .math, .visually-hidden, .skip") && e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML.slice(0, 80))""")
    assert beyond == []


def test_a_phone_needs_no_sideways_scroll(visit):
    page = visit(viewport=PHONE, has_touch=True, is_mobile=True, locale="en-US")
    wide = "x" * 300
    chosen(page, f"{wide} `{wide}`\n\n```\n{wide}\n```\n\n| {wide} | b |\n|---|---|\n| 1 | 2 |\n\n# {wide}\n\n$$\n{wide}\n$$\n\n- {wide}\n\nhttps://example.org/{wide}")
    say(page, wide)
    no_sideways_scroll(page)
    page.locator("#open-side").click()
    expect(page.locator("#new-talk")).to_be_visible()
    no_sideways_scroll(page)
    page.locator("#open-settings").click()
    no_sideways_scroll(page)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator("#side")).not_to_be_in_viewport()
    for tab in ("dashboard", "model"):
        page.locator(f"#tab-{tab}").click()
        expect(page.locator(f"#{tab} .figure").first).to_be_visible()
        no_sideways_scroll(page)


def test_both_languages(visit):
    page = visit(locale="zh-CN", viewport=PHONE)
    table = page.evaluate("import('./strings.js').then(({ strings }) => strings)")
    used = set(page.evaluate("[...document.querySelectorAll('[data-t], [data-t-label], [data-t-placeholder]')].flatMap((e) => [e.dataset.t, e.dataset.tLabel, e.dataset.tPlaceholder]).filter(Boolean)"))
    sources = "".join(path.read_text() for path in (pathlib.Path(__file__).parents[2] / "web").glob("*.js"))
    assert used <= set(table)
    assert [key for key in table if key not in used and not re.search(rf'"{key}"|theme_', sources)] == []  # nothing is left over
    for key, words in table.items():
        assert len(words) == 2 and all(words), key
        assert sorted(re.findall(r"\{\d\}", words[0])) == sorted(re.findall(r"\{\d\}", words[1])), key
        assert not re.search(r"[\u4e00-\u9fff]", words[0].replace("中文", "")), key
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    expect(page.locator("#tab-chat")).to_have_text("对话")
    chosen(page, "好")
    page.locator("#open-side").click()
    page.locator("#language").click()
    page.locator("#close-side").click()
    expect(page.locator("#tab-chat")).to_have_text("Chat")
    expect(replies(page)).to_have_text(["好"])
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#tab-chat")).to_have_text("Chat")


def test_the_keyboard_is_enough(visit):
    page = visit()
    answers_with(page, "reply")
    expect(page.locator("#input")).to_be_focused()
    while page.evaluate("document.activeElement.id") != "skip":
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#input")).to_be_focused()
    page.keyboard.type("line one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line two")
    page.keyboard.press("Enter")
    expect(page.locator(".message.user .body")).to_have_text(["line one\nline two"], use_inner_text=True)
    expect(page.locator("#send")).to_be_visible()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate("""() => { const e = document.activeElement, style = getComputedStyle(e);
            return e === document.body ? null : [e.id || e.dataset.do || e.getAttribute("aria-label"), e.matches(":focus-visible") && (style.outlineStyle !== "none" || e.id === "input")]; }""")
        if focused:
            assert focused[1], f"{focused[0]} does not show its focus"
            reached.add(focused[0])
    assert {"new-talk", "tab-chat", "tab-dashboard", "tab-model", "language", "theme", "open-settings", "edit", "retry", "remove", "rename", "input", "Copy"} <= reached
    page.locator("#open-settings").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Settings")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#open-settings")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#input")).to_be_focused()
    page.keyboard.type("/")
    expect(page.locator("#input")).to_have_value("/")


FIGURES = """hadal_http_answers_total{{status="200"}} {n}
hadal_requests_running 3
hadal_requests_waiting 2
hadal_prompt_tokens_total {p}
hadal_first_token_seconds_count {n}
hadal_first_token_seconds_bucket{{le="0.1"}} {n}
hadal_first_token_seconds_bucket{{le="+Inf"}} {n}
hadal_between_tokens_seconds_count {t}
hadal_between_tokens_seconds_bucket{{le="0.01"}} 0
hadal_between_tokens_seconds_bucket{{le="0.02"}} {t}
hadal_between_tokens_seconds_bucket{{le="+Inf"}} {t}
hadal_cache_pages 200
hadal_cache_pages_free 150
hadal_cached_tokens_total {h}
"""


def test_the_dashboard_shows_what_metrics_say(visit):
    page = visit()
    say(page, "the thing")
    page.locator("#tab-dashboard").click()
    metrics = urllib.request.urlopen(page.url.split("#")[0] + "metrics").read().decode()
    prompt = int(float(re.search(r"^hadal_prompt_tokens_total (\S+)", metrics, re.M)[1]))
    expect(page.get_by_role("region", name="Tokens so far")).to_contain_text(f"{prompt:,} in prompts")
    expect(page.get_by_role("region", name="Requests")).to_contain_text("0")
    assert page.locator("canvas").count() == 0  # a dense model has no experts
    looks = []

    def look(route):
        i = len(looks)
        looks.append(i)
        experts = "".join(f'hadal_expert_tokens_total{{layer="{layer}",expert="{e}"}} {i * (8 if e == 5 and layer == 2 else 1)}\n' for layer in range(1, 4) for e in range(16))
        route.fulfill(body=FIGURES.format(n=100 + i, p=1000 + 50 * i, t=4000 + 400 * i, h=250 + i) + experts)

    page.route("**/metrics", look)
    page.reload()
    figure = lambda name: page.get_by_role("region", name=name, exact=True)
    expect(figure("Between tokens")).to_contain_text("15 ms")  # the middle of its bucket
    expect(figure("Between tokens")).to_contain_text("95 % within 20 ms")
    expect(figure("Time to first token")).to_contain_text("50 ms")
    expect(figure("Requests")).to_contain_text("3 running")
    expect(figure("Requests")).to_contain_text("2 waiting")
    expect(figure("Cache")).to_contain_text("25 %")
    expect(figure("Cache")).to_contain_text("50 of 200 pages in use")
    expect(figure("Cache hits")).to_have_text(re.compile(r"2\d(\.\d)? %"))
    expect(figure("Reply speed").locator(".line")).to_have_attribute("d", re.compile("L"))
    expect(figure("Experts")).to_contain_text("3 layers of 16 experts. The busiest has 5.6 times its share: layer 2, expert 5.")
    page.locator("canvas").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".heat-caption")).to_contain_text("Layer 1, expert 0")
    page.locator("#tab-chat").click()
    seen = len(looks)
    page.wait_for_timeout(1500)
    assert len(looks) <= seen + 1  # nobody looks: nothing is asked


def test_the_card_tells_the_model(visit, server):
    (card,) = server.call("/v1/model_cards")[1]["data"]
    assert card["name"] == "tiny" and card["family"] == "llama" and card["chat"] is True and card["weights"]["bytes"] > 0
    page = visit("#model")
    card_text = page.locator("#card")
    expect(card_text).to_contain_text(f"{card['attention']['heads']} query heads, {card['attention']['kv_heads']} key/value heads")
    expect(card_text).to_contain_text(f"{card['context']:,} tokens")
    expect(card_text).to_contain_text(f"{server.base}/v1")


def test_each_model_has_its_card(hadal, visit, tmp_path):
    dense, mixture = (copy_of(tmp_path / name, read_golden(GOLDEN / name).model, TEMPLATE) for name in ("llama", "deepseek_v3"))
    server = Server(hadal, dense, "--also", f"mixture={mixture}")
    page = visit("#model", base=server.base)
    expect(page.locator("#card")).to_contain_text("dense")
    page.get_by_role("combobox", name="Model").select_option("mixture")
    expect(page.locator("#card-title")).to_have_text("mixture")
    expect(page.locator("#card")).to_contain_text(re.compile(r"\d experts of \d+, \d active"))
    page.locator("#tab-chat").click()
    say(page, "the thing")
    expect(page.locator(".stats")).to_contain_text("tokens")
    assert server.end() == 0


CONTRAST = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = color; pen.fillRect(0, 0, 1, 1); return [...pen.getImageData(0, 0, 1, 1).data]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] / 255 + under[i] * (1 - top[3] / 255)).concat(255);
  const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest(".visually-hidden, :disabled, .skip, svg") || !e.checkVisibility({ visibilityProperty: true })) continue;
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const layers = [];
    for (let n = e; n; n = n.parentElement) layers.push(rgba(getComputedStyle(n).backgroundColor));
    const back = layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 255]);
    const front = over(rgba(getComputedStyle(e).color), back), [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push([e.outerHTML.slice(0, 90), ((a + 0.05) / (b + 0.05)).toFixed(2)]);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_and_controls_have_names(visit, scheme):
    page = visit(color_scheme=scheme, expected=("Failed to load resource",))
    code = '```cpp\n#include <x>\nint f() { return 1; }  // "s"\nauto s = "text";\n```\n```diff\n+a\n-b\n```\n'
    answers_with(page, f"# H\n\ntext `code` [link](https://example.org)\n\n> quote\n\n| a |\n|---|\n| b |\n\n{code}", reasoning="thinking")
    say(page, "question")
    page.locator(".thinking summary").click()
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.abort())
    say(page, "again")
    views = [lambda: None, lambda: page.locator("#open-settings").click(), lambda: (page.keyboard.press("Escape"), page.locator("#tab-dashboard").click()),
             lambda: page.locator("#tab-model").click()]
    session = page.context.new_cdp_session(page)
    seen = set()
    for view in views:
        view()
        page.wait_for_timeout(300)
        assert page.evaluate(CONTRAST) == []
        for node in session.send("Accessibility.getFullAXTree")["nodes"]:
            role, name = node["role"]["value"] if "role" in node else "", node.get("name", {}).get("value", "")
            if node["ignored"] or role not in ("button", "link", "textbox", "spinbutton", "combobox", "image", "region", "dialog", "main", "navigation", "list", "complementary", "log"):
                continue
            seen.add(role)
            inside = [p["value"]["value"] for p in node.get("properties", []) if p["name"] == "focusable"]
            assert name.strip() or (role in ("list",) and not any(inside)), f"{role} without a name: {node}"
    assert {"button", "link", "textbox", "spinbutton", "region", "dialog", "main", "navigation", "complementary", "log"} <= seen
    levels = page.evaluate("[...document.querySelectorAll('h1')].filter((e) => e.checkVisibility()).length")
    assert levels == 1


def test_the_theme_is_chosen(visit):
    page = visit(color_scheme="light")
    background = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = background()
    page.get_by_role("button", name="Theme: as the system").click()
    assert background() == light
    page.get_by_role("button", name="Theme: light").click()
    dark = background()
    assert dark != light
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert background() == dark
    page.get_by_role("button", name="Theme: dark").click()
    assert background() == light


if "HADAL_PICTURE" in os.environ:  # README's, of the default model

    def test_the_picture(hadal, visit):
        model = subprocess.run([pathlib.Path(__file__).parents[2] / "script" / "model"], capture_output=True, text=True, check=True).stdout.strip()
        server = Server(hadal, model, name="smollm2")
        page = visit(base=server.base, sampling={"temperature": "0"}, viewport={"width": 1000, "height": 640})
        say(page, "What is the capital of France?")
        say(page, "Write a Python function that reverses a string.")
        page.mouse.move(0, 0)
        page.wait_for_timeout(300)
        page.screenshot(path=os.environ["HADAL_PICTURE"])
        assert server.end() == 0
