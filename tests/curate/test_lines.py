"""Lines that many documents share are removed; code and headings are left whole."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.curate.steps.repeated_lines import check_remainder, frequent, line_keys, remove_lines
from tests.curate.crawls import article

NOTICE = "We use cookies to improve your experience on this site."
CODE = """\
import os
import sys

def main() -> None:
    print("Hello")
    return None

if __name__ == "__main__":
    main()"""
SHELL = "$ sudo apt-get install the-package\n$ make install"
C = '#include <stdio.h>\n\nint main(void)\n{\n  puts("hi");\n  return 0;\n}'

CONF = """\
# The settings of the host that serves the documents
<VirtualHost *:80>
  ServerName www.example.com and others
  DocumentRoot "/www/docs/host.example.com"
</VirtualHost>"""


def count_over(documents: list[str], more_than: int = 6) -> np.ndarray:
    return frequent(np.concatenate([line_keys(document) for document in documents]), more_than)


def test_a_line_of_more_than_six_documents_goes_whatever_its_case_and_spacing() -> None:
    documents = [f"{article('en', str(number))}\n{NOTICE}" for number in range(6)]
    six = count_over(documents)
    assert not len(six)
    documents.append(f"  {NOTICE.upper().replace(' ', '  ')}  \n\nA line of its own is here.")
    seven = count_over(documents)
    assert len(seven) == 1
    assert remove_lines(documents[-1], seven) == "A line of its own is here."
    for number, document in enumerate(documents[:6]):
        assert remove_lines(document, seven) == article("en", str(number)).strip("\n")


def test_a_document_counts_a_line_once() -> None:
    assert not len(count_over(["\n".join([NOTICE] * 50)] * 6))
    assert len(count_over([NOTICE] * 7)) == 1


def test_digits_tell_lines_apart() -> None:
    assert not len(count_over([f"The release of version {number} is out now." for number in range(20)]))


@pytest.mark.parametrize("code", [CODE, SHELL, C, "<div>\n  <p>\n</div>", "x = 1\ny = x + 1\nplain words in it", CONF])
def test_code_is_neither_counted_nor_torn(code: str) -> None:
    documents = [f"{article('en', str(number))}\n\n{code}\n\n{NOTICE}" for number in range(9)]
    common = count_over(documents)
    assert len(common) == 1
    for document in documents:
        assert code in remove_lines(document, common)
        assert NOTICE not in remove_lines(document, common)
    # even where its lines are frequent as prose elsewhere
    prose = "\n\n".join(f"“{line.strip(' ;{}[]:=<>/')}”" for line in code.split("\n"))
    keys = np.unique(np.concatenate([common, line_keys(prose)]))
    assert len(keys) > 1
    assert code in remove_lines(documents[0], keys)


def test_prose_is_not_taken_for_code() -> None:
    lines = [
        "All rights reserved, 2024. Terms of use (in short) apply:",
        "Home | News | Contact | Imprint",
        "Import duties are not included in the price shown.",
        "See the manual for get_user() and for what it returns",
        "Return the form within two weeks; later is too late.",
        "当社はお客様の個人情報を大切に保護します。",
    ]
    assert len(line_keys("\n\n".join(lines))) == len(lines)


def test_a_short_line_goes_only_as_part_of_a_menu() -> None:
    menu = ["Home", "News", "", "About us", "Contact"]
    documents = [
        "\n".join([*menu, "", "See also", "", f"This is what page {number} alone has to say.", "", "Contact"])
        for number in range(9)
    ]
    common = count_over(documents)
    assert len(common) == 5
    # "See also" stands in the same run; the second "Contact" stands alone
    assert remove_lines(documents[3], common) == "This is what page 3 alone has to say.\n\nContact"
    short = "Home\nNews\nAbout us\nWhat follows is not frequent at all."
    assert remove_lines(short, common) == short


def test_a_long_line_of_a_script_without_spaces_goes() -> None:
    notice = "版权所有未经许可不得转载"
    documents = [f"第{number}篇文章的内容各不相同\n{notice}" for number in range(9)]
    assert remove_lines(documents[2], count_over(documents)) == "第2篇文章的内容各不相同"


def test_a_line_alone_goes_from_three_words_and_sixteen_bytes_on() -> None:
    lines = ["one two thirteen", "one two fifteen", "one-and-twentyone", "twentyone twentytwo"]
    assert [len(line) for line in lines] == [16, 15, 17, 19]  # words: 3, 3, 3, 2
    documents = ["\n\nThis stands between them.\n\n".join(lines)] * 9
    left = remove_lines(documents[0], line_keys("\n\n".join(lines)))
    assert [line for line in left.split("\n") if line in lines] == lines[1:2] + lines[3:]


def test_without_frequent_lines_a_text_is_returned_as_it_is() -> None:
    text = "\n\n\n One line.  \n\n\n\nAnd another one.\n\n"
    assert remove_lines(text, np.zeros(0, np.uint64)) is text
    assert remove_lines(text, np.array([1, 2**64 - 1], np.uint64)) == text
    assert remove_lines("", np.array([5], np.uint64)) == ""
    assert line_keys("").shape == line_keys(" \n…\n---\n").shape == (0,)


def test_what_is_left_decides_about_the_document() -> None:
    assert check_remainder("a b", "", 0.5) == "only_repeated_lines"
    assert check_remainder("a b", " \n", 1.0) == "only_repeated_lines"
    assert check_remainder("abcd efgh\n", "abc", 0.5) == "mostly_repeated_lines"
    assert check_remainder("abcd efgh\n\n\n", "abcd", 0.5) is None
    assert check_remainder("abcd", "abcd", 0.0) is None


SENTENCES = st.sampled_from([f"{word} is the word of this long line." for word in ("One", "Two", "Three", "Four")])


@given(st.lists(st.lists(SENTENCES | st.just(""), max_size=8).map("\n".join), max_size=12), st.integers(0, 4))
@settings(deadline=None)
def test_long_lines_are_removed_exactly_where_a_plain_count_says(documents: list[str], more_than: int) -> None:
    counts = Counter(line for document in documents for line in set(document.split("\n")) if line)
    common = count_over([*documents, ""], more_than)
    assert len(common) == sum(count > more_than for count in counts.values())
    for document in documents:
        expected = [line for line in document.split("\n") if line and counts[line] <= more_than]
        assert [line for line in remove_lines(document, common).split("\n") if line] == expected
        assert remove_lines(remove_lines(document, common), common) == remove_lines(document, common)


@given(st.lists(st.integers(0, 2**64 - 1).map(lambda n: n % 7 * 2**61), max_size=60), st.integers(0, 5))
@settings(deadline=None)
def test_frequent_counts(keys: list[int], more_than: int) -> None:
    expected = sorted(key for key, count in Counter(keys).items() if count > more_than)
    assert frequent(np.array(keys, np.uint64), more_than).tolist() == expected
