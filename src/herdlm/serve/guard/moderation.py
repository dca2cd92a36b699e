"""A guard in a worker process of its own, asked by the server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from herdlm.base.errors import InputError
from herdlm.serve.guard.guard import PROBE, GuardError, GuardOutput, GuardProtocol, Subject, Verdict
from herdlm.serve.workers.backend import Backend, Launch, launch_process
from herdlm.serve.workers.memory import estimate_memory
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.protocol import WorkerOptions
from herdlm.tokens.chat import Message


class Moderator:
    """Asks a guard in a worker of its own. Call all methods in the asyncio thread.

    Raises:
        InputError, DamagedError: ``path`` holds no model, or the threshold is not a probability.
    """

    def __init__(
        self,
        path: Path,
        threshold: float = 0.5,
        *,
        device: str = "auto",
        dtype: str = "auto",
        launch: Launch = launch_process,
    ) -> None:
        self.text = ModelText.read(path)
        self.protocol = GuardProtocol.read(self.text.folder, self.text.format, self.text.context, threshold)
        options = WorkerOptions(str(self.text.folder), device, dtype)
        self.backend = Backend(f"guard {self.text.name}", options, launch)

    @property
    def bytes(self) -> int:
        """Bytes of memory of its worker, measured or estimated."""
        info = self.backend.info
        return info.bytes if info else estimate_memory(self.text, self.backend.options)

    async def start(self) -> None:
        """Load the guard and check that it answers as one.

        Raises:
            InputError: it does not.
        """
        await self.backend.start()
        assert self.backend.info is not None
        self.protocol = replace(self.protocol, context=self.backend.info.context)  # the cache may hold less
        try:
            await self.judge(PROBE, "prompt")
        except GuardError as error:
            raise InputError(
                f"{self.text.folder} is not a guard: {error.what}", "Give a model trained on the protocol"
            ) from error

    async def stop(self) -> None:
        """Stop the guard's worker."""
        await self.backend.stop()

    async def judge(self, messages: Sequence[Message], subject: Subject) -> Verdict:
        """Judge the last user turn, or with "answer" the assistant's answer at the end.

        Raises:
            InputError: there is nothing to judge.
            GuardError, WorkerFailedError: the guard gave no verdict. The caller must let nothing pass.
        """
        prompts = await asyncio.to_thread(self.protocol.prompts, messages, subject)
        verdict = self.protocol.verdict(await self._ask(prompts), subject)
        if self.protocol.needs_codes(verdict):
            verdict = self.protocol.with_codes(verdict, await self._ask(self.protocol.forced_prompts(prompts)))
        return verdict

    async def _ask(self, prompts: Sequence[Sequence[int]]) -> list[GuardOutput]:
        params = self.protocol.params
        generation = await self.backend.submit([(prompt, params) for prompt in prompts], stream=False)
        try:
            outputs = {output.prompt: GuardOutput(output.logprobs, output.text) async for output in generation}
        finally:
            generation.close()
        return [outputs[index] for index in range(len(prompts))]
