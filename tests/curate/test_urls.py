"""Addresses in one form, block lists, and the newest version of a page."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.curate.duplicates.url import normalize_url, url_key
from herdlm.curate.steps.older_versions import UNDATED, newest, parse_date
from herdlm.curate.steps.url import BlockLists
from tests.curate.crawls import Write

PIECES = st.sampled_from(
    [
        "/",
        "//",
        ".",
        "..",
        "/../",
        "/./",
        "%",
        "%2",
        "%2f",
        "%2F",
        "%41",
        "%7e",
        "%25",
        "%C3%A9",
        "é",
        "日",
        " ",
        "+",
        ";",
        ";jsessionid=A1",
        ";v=1",
        "(S(abcdefghijklmnopqrstuvwx))",
        "index.html",
        "a",
        "B",
        "?",
        "&",
        "=",
        "#",
        "#!",
        "utm_source=x",
        "sid=0123456789abcdef0123456789abcdef",
        "sid=7",
        "PHPSESSID=q",
        "b=2",
        "a=1",
        "a=0",
        "\\",
        "[",
        "]",
        "@",
        ":",
        ":80",
        ":443",
        ":8080",
        "example.com",
        "EXAMPLE.com.",
        "bücher.example",
        "straße.de",
        "xn--bcher-kva.de",
        "\u3002",
        "😀.la",
        "\ud800",
        "\t",
        "\n",
        "\x00",
        "'",
        '"',
        "<",
        "|",
        "^",
    ]
)
URLS = st.builds(
    lambda start, pieces: start + "".join(pieces),
    st.sampled_from(
        ["http://", "https://", "HTTP://Example.com", "https://example.com/", "//", "", "ftp://h/", "http:"]
    ),
    st.lists(PIECES, max_size=12),
)


@given(URLS | st.text())
@settings(max_examples=600, deadline=None)
def test_normalizing_twice_changes_nothing_more(url: str) -> None:
    once = normalize_url(url)
    assert normalize_url(once) == once


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("HTTP://Example.COM", "http://example.com/"),
        (" https://example.com:443/a\n", "https://example.com/a"),
        ("http://example.com:443/", "http://example.com:443/"),
        ("http://example.com.:0080/a/b/../c/./d/", "http://example.com/a/c/d"),
        ("http://example.com/../../a", "http://example.com/a"),
        ("http://example.com/a/b/c/../d", "http://example.com/a/b/d"),
        ("http://example.com/a/../b", "http://example.com/b"),
        ("http://user:secret@example.com/", "http://example.com/"),
        ("http://example.com/%7euser/%c3%a9/é/%2f/a b", "http://example.com/~user/%C3%A9/%C3%A9/%2F/a%20b"),
        ("http://example.com/100%", "http://example.com/100%25"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://BÜCHER.example/", "http://xn--bcher-kva.example/"),
        ("http://例え\u3002テスト/", "http://xn--r8jz45g.xn--zckzah/"),
        ("http://[2001:DB8::1]:80/", "http://[2001:db8::1]/"),
        ("http://e.com/?b=2&a=1&a=0", "http://e.com/?a=1&a=0&b=2"),
        ("http://e.com/p?utm_source=x&id=3&fbclid=y&UTM_Medium=z", "http://e.com/p?id=3"),
        ("http://e.com/p?gclid=1", "http://e.com/p"),
        ("http://e.com/p?&&", "http://e.com/p"),
        ("http://e.com/p?flag&empty=", "http://e.com/p?empty=&flag"),
        ("http://e.com/a;jsessionid=0A1B?x=1", "http://e.com/a?x=1"),
        ("http://e.com/a;v=1;JSESSIONID=2/b", "http://e.com/a;v=1/b"),
        ("http://e.com/(S(lit3py55t21z5v55vlm25s55))/a.aspx", "http://e.com/a.aspx"),
        ("http://e.com/(S(lit3py55t21z5v55vlm25s55));jsessionid=1", "http://e.com/"),
        ("http://e.com/t?sid=0123456789abcdef0123456789abcdef&t=5", "http://e.com/t?t=5"),
        ("http://e.com/story?sid=123", "http://e.com/story?sid=123"),
        ("http://e.com/a#part", "http://e.com/a"),
        ("http://e.com/#!/page", "http://e.com/#!/page"),
        ("//e.com/a", "http://e.com/a"),
        ("www.e.com/a", "http://www.e.com/a"),
        ("e.com:8080", "http://e.com:8080/"),
        ("mailto:Someone@E.com", "mailto:Someone@E.com"),
        ("http://e.com:port/", "http://e.com:port/"),
        ("http://[broken/", "http://[broken/"),
        ("", ""),
    ],
)
def test_each_rule_of_normalization(given: str, normal: str) -> None:
    assert normalize_url(given) == normal


def test_pages_of_one_address_share_a_key_and_others_do_not() -> None:
    assert url_key("http://E.com/a/?utm_id=1#x") == url_key("https://e.com/a")
    assert len({url_key(f"http://e.com/{page}") for page in range(10_000)}) == 10_000


def test_blocked_domains_cover_subdomains_and_words_stand_alone(write: Write) -> None:
    domains = write("domains.txt", "\ufeff# bad ones\nBad.example\n\n*.worse.example # why\nbücher.example\n".encode())
    more = write("more.txt", b"10.0.0.1\n")
    words = write("words.txt", b"Casino\n")
    lists = BlockLists.load([domains, str(more)], [words])
    for url in ("http://bad.example/", "https://www.BAD.example./x", "http://worse.example", "xn--bcher-kva.example/"):
        assert lists.check(url) == "blocked_domain", url
    assert lists.check("http://10.0.0.1:8080/") == "blocked_domain"
    for url in ("http://online-casino.example/", "http://e.com/CASINO_games", "http://e.com/?q=%63asino"):
        assert lists.check(url) == "blocked_word", url
    for url in ("http://notbad.example/", "http://bad.example.org/", "http://e.com/casinos", "http://[broken/", ""):
        assert lists.check(url) is None, url
    assert BlockLists().check("http://bad.example/") is None


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "does not exist"),
        (b"# nothing\n", "is empty"),
        (b"fine.example\nnot a domain\n", "line 2: 'not a domain' is not a domain"),
        (b"http://e.com/\n", "line 1"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_by_name(write: Write, content: bytes | None, error: str) -> None:
    path = write("list.txt", content or b"")
    if content is None:
        path.unlink()
    with pytest.raises(InputError, match=error) as caught:
        BlockLists.load([path])
    assert "list.txt" in str(caught.value)
    with pytest.raises(InputError, match=r"line 1: 'two words' is not a word"):
        BlockLists.load(words=[write("words.txt", b"two words\n")])


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("2024-02-03T04:05:06Z", "2024-02-03T04:05:06+00:00"),
        ("2024-02-03T04:05:06.789Z", "2024-02-03 04:05:06.789"),
        ("2024-02-03T04:05:06.123456789Z", "2024-02-03T04:05:06.123456Z"),
        ("2024-02-03T06:05:06+02:00", "20240203040506"),
        ("2024-02-03", "2024-02-03T00:00:00Z"),
        ("2024-02", "2024-02-01"),
        ("2024", "2024-01-01"),
    ],
)
def test_forms_of_one_date_are_one_time(text: str, same_as: str) -> None:
    assert parse_date(text) == parse_date(same_as) != UNDATED


def test_a_date_is_microseconds_since_1970() -> None:
    assert parse_date("1970-01-01T00:00:00.000003Z") == 3
    assert parse_date("1969-12-31T23:59:59Z") == -1_000_000
    assert parse_date("2024-02-03T04:05:06.789Z") == 1_706_933_106_789_000


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13-01", "2024-02-30T00:00:00Z", "99999999999999"])
def test_what_is_no_date_is_older_than_any(text: str) -> None:
    assert parse_date(text) == UNDATED < parse_date("0001-01-01")


DATES = ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2023-12-31T23:59:59Z", "2024-06-01", "unknown"]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(DATES)), max_size=30), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_of_every_page_the_newest_version_is_left(pages: list[tuple[int, str]], rng) -> None:
    last: dict[int, int] = {}
    for row, (key, date) in enumerate(pages):
        if key not in last or parse_date(date) >= parse_date(pages[last[key]][1]):
            last[key] = row
    expected = sorted(set(range(len(pages))) - set(last.values()))
    order = list(range(len(pages)))
    rng.shuffle(order)
    keys = np.array([pages[row][0] for row in order], np.uint64)
    times = np.array([parse_date(pages[row][1]) for row in order], np.int64)
    found = newest(keys, times, np.array(order, np.int64))
    assert found[:, 0].tolist() == expected
    assert [pages[row][0] for row in found[:, 0]] == [pages[row][0] for row in found[:, 1]]
    assert set(found[:, 1].tolist()) <= set(last.values())
