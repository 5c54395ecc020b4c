"""The page at /: phones, languages, keyboard, contrast, the dashboard and the card. The picture of README: HADAL_PICTURE=docs/images/page.png and this file."""

import os
import pathlib
import re
import subprocess
import urllib.request

import pytest
from conftest import GOLDEN, TEMPLATE, copy_of, read_golden
from page_fixtures import PHONE, answers_with, browser, chosen, expect, replies, say, server, visit  # noqa: F401
from test_serve import Server

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
