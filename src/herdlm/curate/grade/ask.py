"""Asks a language model behind an OpenAI-compatible API to grade documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from herdlm.base.errors import HerdError
from herdlm.base.openai_api import KEY_VARIABLES, NoReplyError, OpenAIServer, StatusError, environment_key
from herdlm.curate.grade.config import LabelConfig

_ONLY_THIS = frozenset({400, 413, 422})


class NoAnswerError(HerdError):
    """A question got no answer: ``fault`` is ``refused`` (by the server) or ``no_answer`` (to any try)."""

    def __init__(self, fault: str, what: str) -> None:
        super().__init__(what)
        self.fault = fault


class Asker:
    """Asks ``model`` at ``address`` (such as http://127.0.0.1:8000/v1). Can be used from many threads.

    The key is ``HERDLM_API_KEY`` or else ``OPENAI_API_KEY`` from the environment.

    Raises:
        InputError: The address or the key is invalid.
    """

    def __init__(self, address: str, model: str, config: LabelConfig) -> None:
        self.model, self.config = model, config
        self._server = OpenAIServer(
            address,
            key=environment_key(),
            tries=config.tries,
            first_wait=config.first_wait_seconds,
            max_wait=config.max_wait_seconds,
            timeout=config.timeout_seconds,
            remedy=f"Check the address, the model's name {model!r} and the key in {' or '.join(KEY_VARIABLES)}",
        )

    @property
    def retries(self) -> int:
        """Failed tries that were repeated."""
        return self._server.retries

    def stop(self) -> None:
        """Stop waiting: pending questions get no answer."""
        self._server.stop()

    def ask(self, messages: Sequence[dict[str, str]]) -> str:
        """Return the model's reply, after up to ``config.tries`` tries.

        Raises:
            NoAnswerError: There is none.
            InputError: No question can be answered, because the key, the address or the model's name is wrong.
        """
        body = {"model": self.model, "messages": messages, "max_tokens": self.config.max_tokens, "temperature": 0}
        try:
            return self._server.ask("/chat/completions", body, _content)
        except NoReplyError as error:
            raise NoAnswerError("no_answer", error.what) from error
        except StatusError as error:
            if error.status in _ONLY_THIS:
                raise NoAnswerError("refused", error.what) from error
            raise


def _content(reply: Any) -> str:
    """Return the text of the first choice."""
    content = reply["choices"][0]["message"]["content"]
    return content if isinstance(content, str) else ""  # null if the model declined
