"""Markdown on the page: as CommonMark has it, and whatever a model writes, nothing of it is executed or loaded."""

import html.parser
import re

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from playwright.sync_api import expect

from tests.serve.page.hostile import TEXTS
from tests.serve.scripted import Scripted, served

pytestmark = pytest.mark.browser

# What a text becomes, as nested lists: elements [name, {attributes}, children] and texts. Wrappers of the page's own
# around code and tables, and the hosts told behind links, are left out with ``plain``.
TREE = """
(plain) => {
  const { MarkdownView } = window.markdown;
  const tree = (node) => {
    if (node.nodeType === 3) return node.data;
    const own = ["code", "scroll"].some((name) => node.classList.contains(name)) || node.localName === "span";
    if (plain && (node.classList.contains("code-bar") || node.classList.contains("host"))) return [];
    const children = [...node.childNodes].flatMap((child) => {
      const found = tree(child);
      return typeof found === "string" ? [found] : found.length && Array.isArray(found[0]) ? found : [found];
    }).filter((child) => child.length);
    if (plain && own) return children;
    const attributes = Object.fromEntries([...node.attributes].map(({ name, value }) => [name, value]));
    return [node.localName, attributes, children];
  };
  window.treeOf = (root) => [...root.childNodes].flatMap((node) => {
    const found = tree(node);
    return Array.isArray(found[0]) ? found : [found];
  });
  window.shown = (texts) => {
    const root = document.createElement("div");
    const view = new MarkdownView(root);
    for (const text of texts) view.update(text);
    return window.treeOf(root);
  };
}
"""


@pytest.fixture(scope="module")
def module_visit(browser):
    with served(Scripted().app()) as url:
        page = browser.new_page()
        page.goto(url)
        page.evaluate("async () => { window.markdown = await import('/page/markdown.js') }")
        yield page
        page.close()


@pytest.fixture
def plain(module_visit):
    """The tree of a text without the page's own additions, to compare with a referee's."""
    module_visit.evaluate(TREE, True)
    return lambda text: module_visit.evaluate("(text) => shown([text])", text)


@pytest.fixture
def whole(module_visit):
    """The tree of a text as it stands on the page, given in the pieces in which it grew."""
    module_visit.evaluate(TREE, False)
    return lambda *texts: module_visit.evaluate("(texts) => shown(texts)", list(texts))


REFEREE = (
    MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 100})
    .enable(["table", "strikethrough"])
    .disable(["image"])
)


class Reader(html.parser.HTMLParser):
    """The referee's HTML as a tree."""

    def __init__(self, text):
        super().__init__()
        self.root = ["root", {}, []]
        self.open = [self.root]
        self.feed(text)

    def handle_starttag(self, name, attributes):
        element = [name, dict(attributes), []]
        self.open[-1][2].append(element)
        if name not in ("br", "hr"):
            self.open.append(element)

    def handle_endtag(self, name):
        if name not in ("br", "hr"):
            self.open.pop()

    def handle_data(self, text):
        self.open[-1][2].append(text)


def meaning(children, *, inside=""):
    """A tree without what tells nothing: spaces at borders, names of languages, levels of headings."""
    found = []
    for child in children:
        if isinstance(child, str):
            text = child if inside == "pre" else child.replace("\n", "")
            text = re.sub(" +", " ", text) if inside == "code" else text
            if found and isinstance(found[-1], str):
                found[-1] += text
            elif text:
                found.append(text)
            continue
        name, attributes, inner = child
        if name == "a" and inner == [attributes["href"]]:  # the referee has no addresses without brackets
            found[-1:] = [found[-1] + inner[0]] if found and isinstance(found[-1], str) else [*found[-1:], inner[0]]
            continue
        kept = {key: value for key, value in attributes.items() if key in ("href", "start")}
        align = attributes.get("style", attributes.get("class", "") or "").removeprefix("text-align:")
        if name in ("td", "th") and align:
            kept["align"] = align
        if name == "p" and attributes.get("class") == "heading":
            name = "h"
        name = {"s": "del", **{f"h{level}": "h" for level in range(1, 7)}}.get(name, name)
        found.append([name, kept, meaning(inner, inside="pre" if "pre" in (name, inside) else name)])
    if inside == "pre":
        return [found[0].rstrip("\n")] if found and isinstance(found[0], str) else found
    return [
        child.strip() if isinstance(child, str) and inside in ("p", "li", "h", "td", "th") else child for child in found
    ]


def squeezed(children):
    return [
        child if isinstance(child, str) else [child[0], child[1], squeezed(child[2])]
        for child in children
        if child != ""
    ]


def refereed(text):
    return squeezed(meaning(Reader(REFEREE.render(text)).root[2]))


SAMPLES = [
    "One *two* **three** ***four*** _five_ __six__ `seven` ~~eight~~ snake_case_name 2*3*4 **a*b*c**",
    "# A #\n## B\n####### no\n#no\n#\ntext\n### C `d` *e*",
    "- a\n- b\n  - c\n    - d\n- e\n\n* other\n+ third",
    "1. a\n2. b\n   more\n\n   again\n3) c\n10. x",
    "- a\n\n- b\n\n  c\n- ```\n  code\n  ```\n- > quoted\n  lazy\n-\n- z",
    "> one\ntwo\n> > three\n>four\n\n> new\n\ntext",
    "```python\nx = 1\n\n  y\n```\n~~~~\n```\n~~~\n~~~~\nafter",
    "```\nnever closed\n- a",
    "  ```\n  indented\n    more\n ```",
    "| a | b |\n|---|:-:|\n| 1 | `x` \\| y |\n| 2 |\n\nafter",
    "a | b\n-- | -:\n1 | 2 | 3\n> end",
    "text\n| a |\n|---|\n| 1 |",
    "[a](http://b.cd/) [e *f*](https://g.hi/j(k)l 'title') [m](<https://n.op/>) \\[q](https://r.st/) [u\nv](https://w.xy/)",
    "[a [b](https://c.de/) f](https://g.hi/) [unclosed](https://j.kl/ [m]",
    "<https://a.bc/d?e=f&g=h> and <not a link> &amp; &lt; &#65; &#x42; &nope;",
    "* * *\n- - -\n___\n**\n--",
    "a\\\nb  \nc\nd \\* \\a `\\` ``a`b`` `` ` `` `unclosed",
    "*a **b c* d** **e *f** g* ****h**** *(**i**)* 5*6 * 7* **j**k",
    "a * b * c ** d ** _e_f _g_. (_h_) *i\nj*",
    "- a\n b\n  c\n   d\n1. e\n- f",
    "text\n- list\ntext\n1. one\ntext\n2. two",
    "- a\n\n\n- b\n\n      c",
    "> - a\n> - b\n>\n> c\n- > d\n  > e",
    "Title\n===\nSub\n---\ntext\n\n    indented code\n\n      more\n\nafter",
    "[a][1] [b] [1]\n\n[1]: https://a.bc/ 'title'\n[b]: <https://d.ef/>\n\nafter",
    "Ärger *übermäßig* 日本語**強調**です 🎉*x*",
]


@pytest.mark.parametrize("text", SAMPLES)
def test_markdown_is_commonmark_with_tables(plain, text):
    assert squeezed(meaning(plain(text))) == refereed(text)


PIECES = [
    "a",
    "b c",
    "*",
    "**",
    "_",
    "`",
    "\n",
    "\n\n",
    " ",
    "  ",
    "- ",
    "1. ",
    "2) ",
    "> ",
    "# ",
    "```",
    "~~~\n",
    "|",
    "|-|-|\n",
    "[",
    "]",
    "[x](https://x.yz/)",
    "](<https://x.yz/>)",
    "(",
    ")",
    "\\",
    "<",
    "&lt;",
    "---",
    "é",
    ".",
]


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=14).map("".join))
def test_any_mix_of_marks_is_commonmark(plain, text):
    assume("[](" not in text)  # an empty link shows its host here
    # A table's line of dashes goes on with a quote's or an item's text here, as it never does in prose.
    assume("|-|" not in text or not any(mark in text for mark in ("- ", ". ", ") ", "> ")))
    assert squeezed(meaning(plain(text))) == refereed(text)


# Whether anything on the page is more than text, links to the web, and the page's own parts of an answer.
GUARD = """
() => {
  const ELEMENTS = new Set(["p", "h4", "h5", "h6", "hr", "div", "span", "button", "pre", "code", "blockquote", "ul",
    "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "a", "br", "strong", "em", "del"]);
  const ATTRIBUTES = new Set(["dir", "class", "tabindex", "role", "aria-label", "type", "data-copy", "start", "scope",
    "href", "target", "rel", "title"]);
  window.foreign = (root) => {
    for (const element of root.querySelectorAll("*")) {
      if (!ELEMENTS.has(element.localName) || element.namespaceURI !== "http://www.w3.org/1999/xhtml") {
        return `an element ${element.localName}`;
      }
      for (const { name, value } of element.attributes) {
        if (!ATTRIBUTES.has(name)) return `an attribute ${name}`;
        if (name === "href" && !/^https?:\\/\\/[^@]*$/.test(value)) return `a link to ${value}`;
        if (name === "href" && element.localName !== "a") return `href on ${element.localName}`;
        if (name === "class" && !/^(heading|code|code-bar|small|scroll|host|left|right|center)$/.test(value)) {
          return `a class ${value}`;
        }
      }
      if (element.localName === "a" && !element.rel.includes("noopener")) return "a link without noopener";
    }
    return null;
  };
  window.growth = (text) => {
    const root = document.createElement("div");
    const view = new window.markdown.MarkdownView(root);
    for (let end = 1; end <= text.length; end += 1) {
      view.update(text.slice(0, end));
      const whole = document.createElement("div");
      new window.markdown.MarkdownView(whole).update(text.slice(0, end));
      if (!root.isEqualNode(whole)) return `grown to ${end} it is ${root.outerHTML}, not ${whole.outerHTML}`;
      const found = window.foreign(root);
      if (found) return `${found} after ${end}`;
    }
    return null;
  };
}
"""


@pytest.fixture
def growth(module_visit):
    """What is wrong with a text as it grows letter by letter: foreign markup, or another look than drawn at once."""
    module_visit.evaluate(GUARD)
    return lambda text: module_visit.evaluate("(text) => growth(text)", text)


@pytest.mark.parametrize("text", [*TEXTS, *SAMPLES], ids=range(len(TEXTS) + len(SAMPLES)))
def test_at_every_split_an_answer_is_harmless_and_drawn_as_if_at_once(growth, text):
    assert growth(text) is None
    assert growth(f"Before\n\n- item\n\n  {text}\n\n# After") is None


HOSTILE_PIECES = [
    *PIECES,
    "<script>",
    "<img src=x onerror=alert(1)>",
    "](javascript:x)",
    "![",
    "](data:,x)",
    "\r",
    "\r\n",
    "\t",
    "</div>",
    "&#60;",
    "http://a.b/",
    "\u202e",
    "\x00",
    "- - ",
    "#",
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(HOSTILE_PIECES), min_size=1, max_size=20).map("".join))
def test_any_mix_grows_harmlessly_and_as_if_drawn_at_once(growth, text):
    assert growth(text) is None


@pytest.mark.parametrize("walls", ["with its policy", "without its policy"])
def test_no_hostile_answer_is_executed_or_loads_anything(scripted, visit, walls):
    """Streamed letter by letter into the real page; also with the browser's second wall taken away."""
    scripted.answer = lambda body: list(TEXTS[int(body["messages"][-1]["content"])])
    seen = visit(scripted.url, bypass_csp=walls == "without its policy")
    seen.page.on("dialog", lambda dialog: seen.problems.append(f"a dialog: {dialog.message}"))
    for number in range(len(TEXTS)):
        seen.say(str(number))
        seen.finished(number + 1)
    seen.page.evaluate(GUARD)
    for body in seen.page.locator(".markdown").all():
        assert body.evaluate("(root) => foreign(root)") is None
    for number, text in enumerate(TEXTS):
        if "<script>" in text:
            shown = seen.answers().nth(number).locator(".markdown").inner_text()
            assert "window.traces" in shown
    assert seen.page.evaluate("window.traces") is None
    assert {url for url in seen.requests if not url.startswith(f"{scripted.url}/page/")} == {
        f"{scripted.url}/",
        f"{scripted.url}/v1/models",
        f"{scripted.url}/v1/chat/completions",
    }
    seen.page.reload()  # what was kept is drawn anew
    expect(seen.answers()).to_have_count(len(TEXTS))
    assert seen.page.evaluate("window.traces") is None


def test_hostile_answers_leave_traces_on_a_careless_page(scripted, visit):
    """The control of the test above: the same texts as markup are executed, and are seen to be."""
    seen = visit(scripted.url, bypass_csp=True, takes=("",))
    for text in TEXTS:
        if any(name in text for name in ("<meta", "<form", "<base")):  # these would lead away from the page
            continue
        seen.page.evaluate("(text) => document.querySelector('#welcome').innerHTML = text", text)
    seen.page.wait_for_timeout(500)
    assert seen.page.evaluate("window.traces") >= 5
    assert any("192.0.2.1" in url or url.endswith("/x") for url in seen.requests)


def test_the_policy_refuses_markup_from_strings_and_foreign_content(scripted, visit):
    seen = visit(scripted.url, takes=("Content Security Policy", "Trusted"))
    refused = []
    seen.page.on("requestfailed", lambda request: refused.append((request.url, request.failure)))
    told = seen.page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return 'taken' } catch (error) { return error.name } }"
    )
    assert told == "TypeError"
    seen.page.evaluate("""() => {
        const script = document.createElement('script');
        script.append('window.traces = 1');
        document.body.append(script);
        document.body.append(Object.assign(new Image(), { src: 'http://192.0.2.1/pixel.png' }));
    }""")
    blocked = seen.page.evaluate("fetch('http://192.0.2.1/').then(() => 'sent', (error) => error.name)")
    assert blocked == "TypeError"
    assert seen.page.evaluate("window.traces") is None
    asked = [url for url in seen.requests if "192.0.2.1" in url]
    assert sorted(asked) == sorted(url for url, reason in refused if reason == "csp")


def test_links_say_where_they_lead(whole):
    (paragraph,) = whole(
        "[bank.example](https://evil.example/a) https://example.org/b [c](https://user@example.org) "
        "https://bank.example:443@evil.example"
    )
    span, text = paragraph[2][0], paragraph[2][1:]
    assert span[0] == "span" and span[2][0][1]["href"] == "https://evil.example/a"
    assert span[2][1] == ["span", {"class": "host"}, [" (evil.example)"]]
    assert text[1][0] == "a" and text[1][2] == ["https://example.org/b"]
    assert text[2:] == [" [c](https://user@example.org) https://bank.example:443@evil.example"]
    (paragraph,) = whole("![a cat](https://example.org/cat.png)")
    assert paragraph[2][0][2][0][2] == ["picture: ", "a cat"]


def test_a_line_break_in_a_table_cell_is_one(whole):
    (scroll,) = whole("| a |\n|---|\n| b<br>c<BR />d<brx> |")
    (row,) = scroll[2][0][2][1][2]
    assert row[2][0][2] == ["b", ["br", {}, []], "c", ["br", {}, []], "d<brx>"]


def test_headings_of_an_answer_lie_below_the_pages_own_without_gaps(whole):
    levels = [element[0] for element in whole("### A\n# B\n### C\n###### D\n## E\n> # F")]
    assert levels == ["h4", "h4", "h5", "h6", "h5", "blockquote"]
    assert whole("> # F")[0][2][0][1]["class"] == "heading"


def test_finished_blocks_stay_the_elements_they_are(module_visit):
    same = module_visit.evaluate("""() => {
        const root = document.createElement("div");
        const view = new window.markdown.MarkdownView(root);
        view.update("# A\\n\\nB\\n\\nC");
        const before = [...root.children];
        view.update("# A\\n\\nB\\n\\nC goes on\\n\\nD");
        return before.map((element, number) => element === root.children[number]);
    }""")
    assert same == [True, True, False]


LONG = {
    "backticks": "`" * 50_000,
    "rising backticks": " ".join("`" * length for length in range(1, 300)),
    "stars": "*" * 50_000,
    "opened": "*a " * 20_000,
    "nested": "*a " * 5_000 + "a* " * 5_000,
    "brackets": "[" * 50_000,
    "links": "[a](" * 10_000,
    "angles": "[a](<" * 10_000,
    "quotes": ">" * 50_000,
    "lists": "- " * 25_000,
    "dashes": "-" * 25_000 + " " * 25_000 + "x",
    "table": "|" * 20_000 + "\n" + "|-" * 20_000,
    "fences": "```\n" * 10_000 + "x",
    "lazy": "> a\n" + "b\n" * 5_000,
    "items": "- a\n" * 10_000,
    "urls": "https://" * 8_000,
    "entities": "&#" * 25_000,
    "pictures": "![" * 5_000 + "](http://a.b)" * 5_000,
    "references": "[a]: http://a.b\n" * 5_000 + "[a]" * 5_000,
}


@pytest.mark.parametrize("name", LONG)
def test_long_texts_are_shown(module_visit, name):
    """A parser that backtracks would run into the time-out of the test."""
    shown = module_visit.evaluate(
        """(text) => {
            const element = document.createElement("div");
            new window.markdown.MarkdownView(element).update(text);
            return element.childElementCount;
        }""",
        LONG[name],
    )
    assert shown > 0
