"""Whom a chat in the terminal talks to: a model in this process, or the models of a server."""

from __future__ import annotations

import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from herdlm.base.errors import InputError
from herdlm.generate.request import SamplingParams
from herdlm.serve.workers.model_text import ServedModel
from herdlm.tokens.chat import Message


@dataclass(frozen=True, slots=True)
class ChatResult:
    """How an answer ended.

    Attributes:
        text: the whole answer, as the model wrote it.
        reason: "stop", "length" or what else a server says; None where the user stopped it.
        tokens: how many were drawn; None where the server did not tell.
    """

    text: str
    reason: str | None
    tokens: int | None


class Cancellation:
    """Whether the user wants an answer to end."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._calls: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        """Whether it was asked for."""
        return self._cancelled.is_set()

    def on_cancel(self, call: Callable[[], None]) -> None:
        """Have ``call`` made at that moment; it wakes what waits."""
        self._calls.append(call)

    def cancel(self) -> None:
        """PromptRequest for it."""
        self._cancelled.set()
        for call in self._calls:
            call()


@contextmanager
def cancel_on_ctrl_c() -> Iterator[Cancellation]:
    """Ctrl-C stops an answer instead of breaking into the middle of an engine's step."""
    cancellation = Cancellation()

    def handle(number: int, frame: FrameType | None) -> None:
        cancellation.cancel()

    if threading.current_thread() is not threading.main_thread():
        yield cancellation
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield cancellation
    finally:
        signal.signal(signal.SIGINT, before)


class ChatClient(ABC):
    """A model that answers dialogs."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Whom one talks to now."""

    @abstractmethod
    def names(self) -> list[str]:
        """Models that :meth:`choose` takes, as far as they are known."""

    @abstractmethod
    def choose(self, name: str) -> None:
        """Talk to another model from now on.

        Raises:
            HerdError: it cannot be had; the one before stays.
        """

    @abstractmethod
    def answer(
        self,
        messages: Sequence[Message],
        params: SamplingParams,
        write: Callable[[str], None],
        cancellation: Cancellation,
    ) -> ChatResult:
        """Answer a dialog, giving each piece of text to ``write`` as it comes.

        Args:
            params: ``max_tokens`` is cut to what the context leaves; stop tokens are filled in.

        Raises:
            HerdError: there is no answer.
        """


class LocalModel(ChatClient):
    """The model that a folder or a run means, on the engine in this process."""

    def __init__(self, path: Path, *, device: str = "auto", dtype: str = "auto") -> None:
        self._device, self._dtype = device, dtype
        self.model = self._load(path)

    @property
    def name(self) -> str:
        """The loaded model's."""
        return self.model.name

    def names(self) -> list[str]:
        """The one that is loaded; others are given by their folders."""
        return [self.model.name]

    def choose(self, name: str) -> None:
        """Load the model of a folder or a run."""
        self.model = self._load(Path(name).expanduser())

    def _load(self, path: Path) -> ServedModel:
        model = ServedModel.load(path, device=self._device, dtype=self._dtype)
        model.chat_prompt([])  # a tokenizer without a dialog format fails here
        return model

    def answer(
        self,
        messages: Sequence[Message],
        params: SamplingParams,
        write: Callable[[str], None],
        cancellation: Cancellation,
    ) -> ChatResult:
        """Answer on the engine; a stopped answer's cache is freed."""
        model, engine = self.model, self.model.engine
        prompt = model.chat_prompt(messages)
        room = min(model.room(prompt, None), params.max_tokens)
        if params.min_tokens > room:
            raise InputError(f"min_tokens = {params.min_tokens}, but the context leaves {room}", "Lower it, or /clear")
        text, tokens, reason = "", 0, None
        request = engine.submit(prompt, replace(params, max_tokens=room, stop_tokens=model.stop_tokens))
        try:
            while engine.busy and not cancellation.cancelled:
                for event in engine.step():
                    new = event.text if text else model.answer_text(event.text)
                    text += new
                    tokens += len(event.tokens)
                    write(new)
                    reason = event.completion.finish_reason if event.completion else None
        finally:
            engine.abort(request)
        return ChatResult(text, reason, tokens)
