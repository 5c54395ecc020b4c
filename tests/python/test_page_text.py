"""The page at /: how words of others are shown. Whatever they are, they stay text."""

from page_fixtures import HOSTILE, answers_with, browser, expect, replies, say, server, visit  # noqa: F401

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
