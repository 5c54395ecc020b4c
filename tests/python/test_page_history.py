"""The page at /: talks are kept in the browser, models are chosen, failures are told."""

import json

from conftest import GOLDEN, TEMPLATE, copy_of, read_golden
from page_fixtures import answers_with, browser, chosen, expect, replies, say, server, visit  # noqa: F401
from test_serve import Server


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
