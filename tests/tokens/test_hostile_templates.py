"""Chat templates that loop, or make values that fill the memory: an error that names the template."""

import pytest

from herdlm.base.errors import InputError
from herdlm.tokens import chat_template
from herdlm.tokens.chat_template import ChatTemplate
from herdlm.tokens.time_limit import TooLongError, time_limit


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 1000000000 }}",
        "{{ 1000000000 * ('a',) }}",
        "{{ 10 ** 100000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{% set n = 'a' * 9999999 %}{{ n * 9999999 }}",
        "{{ range(1000000000) | list }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ 1 / 0 }}",
    ],
)
def test_values_that_would_fill_the_memory(text):
    with pytest.raises(InputError, match="the chat template"):
        ChatTemplate(text, "t").render(messages=[])


def test_loops_that_would_not_end(monkeypatch):
    monkeypatch.setattr(chat_template, "RENDER_SECONDS", 0.2)
    text = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    with pytest.raises(InputError, match=r"runs for over 0.2 s"):
        ChatTemplate(text, "t").render(messages=[])
    assert ChatTemplate("{{ 'ab' * 3 }}{{ 2 ** 8 }}{{ '%5d' % 3 }}", "t").render() == "ababab256    3"


def test_a_limit_that_is_not_reached_does_nothing():
    for _ in range(1000):
        with time_limit(60.0):
            pass
    with pytest.raises(TooLongError), time_limit(0.1):
        while True:
            pass
