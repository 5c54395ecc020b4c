"""The page at /: its files and its chats."""

import json
import re
import urllib.error
import urllib.request

import pytest
from page_fixtures import answers_with, browser, expect, replies, say, server, visit  # noqa: F401
from test_serve import NEVER_END

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
