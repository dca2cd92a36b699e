"""Answers one prompt without a server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from herdlm.base.errors import InputError
from herdlm.generate.request import Completion, SamplingParams
from herdlm.serve.workers.model_text import LoadedModel
from herdlm.tokens.chat import Message


def generate_once(
    path: Path,
    prompt: str,
    *,
    chat: bool = False,
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    stop: tuple[str, ...] = (),
    seed: int = 0,
    n: int = 1,
    device: str = "auto",
    dtype: str = "auto",
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
) -> list[Completion]:
    """Sample ``n`` continuations of ``prompt``, or with ``chat`` answers to it as a user message.

    Args:
        path: a model folder or a run, which means its flagship.
        system: the system message before the prompt; only with ``chat``.
        max_tokens: maximum of new tokens; None for all that the context leaves.
        tensor_parallel, pipeline_parallel: processes of this machine that share the model.

    Raises:
        InputError: the model, the prompt or an option is invalid.
    """
    if system is not None and not chat:
        raise InputError("--system needs --chat", "Add --chat, or drop --system")
    model = LoadedModel.load(
        path, device=device, dtype=dtype, tensor_parallel=tensor_parallel, pipeline_parallel=pipeline_parallel
    )
    if chat:
        before: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        tokens = model.chat_prompt([*before, {"role": "user", "content": prompt}])
    else:
        tokens = model.text_prompt(prompt)
    params = SamplingParams(
        max_tokens=model.room(tokens, max_tokens),
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        stop=stop,
        seed=seed,
        n=n,
        stop_tokens=model.stop_tokens,
    )
    (completions,) = model.engine.generate([tokens], params)
    model.engine.close()
    return [replace(c, text=model.answer_text(c.text)) for c in completions] if chat else completions
