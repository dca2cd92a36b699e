"""Chat clients: a model in this process, or the base class for the models of a server."""

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
from herdlm.serve.workers.model_text import LoadedModel
from herdlm.tokens.chat import Message


@dataclass(frozen=True, slots=True)
class ChatResult:
    """A finished answer.

    Attributes:
        text: the answer as the model wrote it.
        reason: "stop", "length" or another finish reason of a server; None if the user cancelled the answer.
        tokens: number of sampled tokens; None if the server did not report it.
    """

    text: str
    reason: str | None
    tokens: int | None


class Cancellation:
    """The user's request to end an answer."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        """Whether the user cancelled the answer."""
        return self._cancelled.is_set()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` upon cancellation, to wake a blocked read."""
        self._callbacks.append(callback)

    def cancel(self) -> None:
        """Cancel the answer."""
        self._cancelled.set()
        for callback in self._callbacks:
            callback()


@contextmanager
def cancel_on_ctrl_c() -> Iterator[Cancellation]:
    """Let Ctrl-C cancel an answer instead of interrupting an engine's step."""
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
        """The current model's name."""

    @abstractmethod
    def names(self) -> list[str]:
        """Known models that :meth:`choose` accepts."""

    @abstractmethod
    def choose(self, name: str) -> None:
        """Switch to another model.

        Raises:
            HerdError: that model is unusable; the current one stays.
        """

    @abstractmethod
    def answer(
        self,
        messages: Sequence[Message],
        params: SamplingParams,
        write: Callable[[str], None],
        cancellation: Cancellation,
    ) -> ChatResult:
        """Answer a dialog and pass each piece of text to ``write`` as it arrives.

        Args:
            params: ``max_tokens`` is cut to what the context leaves; stop tokens are filled in.

        Raises:
            HerdError: there is no answer.
        """


class LocalModel(ChatClient):
    """The model of a folder or a run, on an engine in this process."""

    def __init__(self, path: Path, *, device: str = "auto", dtype: str = "auto") -> None:
        self._device, self._dtype = device, dtype
        self.model = self._load(path)

    @property
    def name(self) -> str:
        """The loaded model's name."""
        return self.model.name

    def names(self) -> list[str]:
        """The loaded model only; others are given as folders."""
        return [self.model.name]

    def choose(self, name: str) -> None:
        """Load the model of a folder or a run."""
        self.model = self._load(Path(name).expanduser())

    def _load(self, path: Path) -> LoadedModel:
        model = LoadedModel.load(path, device=self._device, dtype=self._dtype)
        model.chat_prompt([])  # fails early if the tokenizer has no dialog format
        return model

    def answer(
        self,
        messages: Sequence[Message],
        params: SamplingParams,
        write: Callable[[str], None],
        cancellation: Cancellation,
    ) -> ChatResult:
        """Answer on the engine. A cancelled answer's cache is freed."""
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
