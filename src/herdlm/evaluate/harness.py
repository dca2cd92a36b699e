"""A model folder as a model of EleutherAI's lm-evaluation-harness, by the name ``herdlm``.

    python -m herdlm.evaluate.harness --model herdlm --model_args pretrained=FOLDER,dtype=float32 --tasks arc_easy

is lm-eval's own command with this model registered. lm-eval loads no plugins, so its command ``lm_eval`` does not find
the model by itself. In Python, importing this module registers it for ``lm_eval.simple_evaluate(model="herdlm", ...)``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as Backend

from herdlm.base.errors import InputError
from herdlm.evaluate.engines import EngineOptions
from herdlm.evaluate.local import LocalModel
from herdlm.generate.request import SamplingParams
from herdlm.tokens.answers import without_marks

try:
    import lm_eval.models  # noqa: F401 - lm-eval's own models, which it registers only if nothing else is
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise InputError("lm-eval is not installed", "pip install 'herdlm[harness]'") from error

DEVICE = "cuda:0"  # what lm-eval passes by default, on a machine without GPUs, too
WINDOW = 512  # requests given to the engine, and to lm-eval's cache of answers, together
MAX_TOKENS = 256  # of an answer, unless the task says otherwise; lm-eval's default
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # names of one option
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@register_model("herdlm")
class HarnessModel(TemplateLM):  # type: ignore[misc]  # lm-eval has no types
    """What lm-eval asks of a model, answered by an engine.

    Args:
        pretrained: a model folder, or a run, which means its flagship.
        device, dtype, tensor_parallel, pipeline_parallel: see :class:`herdlm.evaluate.engines.EngineOptions`.
        max_length: the most tokens, if fewer than the model's.
        batch_size, max_batch_size: given by lm-eval and not needed; the engine packs requests into steps by itself.

    Raises:
        InputError, DamagedError: the folder or an option is unusable.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        device: str | None = None,
        dtype: str = "auto",
        tensor_parallel: int = 1,
        pipeline_parallel: int = 1,
        max_length: int | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if device is None or (device == DEVICE and not torch.cuda.is_available()):
            device = "auto"
        options = EngineOptions(device, str(dtype), int(tensor_parallel), int(pipeline_parallel))
        self.model = LocalModel(Path(pretrained), options)
        if max_length is not None:
            if not 2 <= int(max_length) <= self.model.context:
                raise InputError(f"max_length = {max_length}", f"Give 2 to {self.model.context}, the model's context")
            self.model.context = int(max_length)
        self.pretrained = pretrained
        self.words = self.model.tokenizer
        # Texts come with the special tokens that a chat template wrote, as text.
        self._backend = Backend.from_str(self.words.backend.to_str())

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.words.end if self.words.eos is None else self.words.eos

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context."""
        return self.model.prefix[0]

    @property
    def max_length(self) -> int:
        """The model's context in tokens."""
        return self.model.context

    @property
    def max_gen_toks(self) -> int:
        """The most tokens of an answer, unless a task says otherwise."""
        return MAX_TOKENS

    @property
    def tokenizer_name(self) -> str:
        """Names lm-eval's cache of requests, which hold templated texts."""
        return str(self.pretrained).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text; by default after the tokenizer's begin token, unless the text starts with it."""
        begin = self.words.begin
        name = self.words.backend.id_to_token(begin[0]) if begin else None
        if add_special_tokens is False or (name and string.startswith(name)):
            begin = ()
        return [*begin, *self._backend.encode(string, add_special_tokens=False).ids]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        found = []
        for window in _windows(requests):
            scored = self.model.score_pairs([(context, continuation) for _, context, continuation in window])
            for (texts, *_tokens), score in zip(window, scored, strict=True):
                found.append((score.logprob, score.greedy))
                self.cache_hook.add_partial("loglikelihood", texts, found[-1])
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts after one begin token.

        lm-eval's Hugging Face model puts a second one before texts whose tokenizer adds one itself, except with
        ``add_bos_token=False``; with that the figures are equal.
        """
        found = []
        for request in requests:
            (text,) = request.args
            tokens = self.tok_encode(text, add_special_tokens=False)
            found.append(sum(self.model.score_tokens(tokens)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers up to a stop string, an end token or the most tokens.

        Raises:
            InputError: a task asks for sampling that the engine does not know, or for more tokens than the context has.
        """
        found: list[str] = []
        for window in _windows(requests):
            asked = [self._generation(*request.args) for request in window]
            texts = [""] * len(window)
            for number, (completion,) in self.model.engines.generate(
                [prompt for prompt, _ in asked], [params for _, params in asked]
            ):
                texts[number] = _before(self.words.decode(completion.tokens), asked[number][1].stop)
            found += texts
            for request, text in zip(window, texts, strict=True):
                self.cache_hook.add_partial("generate_until", request.args, text)
        return found

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's text, None if not asked for.

        Raises:
            InputError: the folder has none, or not that one.
        """
        if chat_template is False or chat_template is None:
            return None
        if self.model.format.template_text is None or chat_template not in (True, "default"):
            raise InputError(
                f"{self.pretrained} has no chat template {'' if chat_template is True else chat_template}".rstrip(),
                "Leave out --apply_chat_template, or give the folder a chat_template.jinja",
            )
        return self.model.format.template_text

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A dialog as text; without ``add_generation_prompt`` it ends inside the last message, which is to go on.

        Raises:
            InputError: the template refuses the dialog, even without a system message.
        """
        try:
            text = self._rendered(chat_history, add_generation_prompt)
        except InputError:
            without = [message for message in chat_history if message["role"] != "system"]
            if len(without) == len(chat_history):
                raise
            text = self._rendered(without, add_generation_prompt)
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"]
        kept = last if last and last in text else last.strip()  # templates may strip messages
        return text[: text.rindex(kept) + len(kept)]

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval records of the model."""
        return {"model_dtype": self.model.engines.compute, "model_sha": self.model.fingerprint}

    def _rendered(self, messages: list[dict[str, str]], prompt: bool) -> str:
        template = self.model.format.templates["default"]
        text = template.render(
            messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **self.words.named
        )
        return without_marks(text).text

    def _generation(self, context: str, options: dict[str, Any]) -> tuple[list[int], SamplingParams]:
        """The prompt and the parameters of a request."""
        options = dict(options)
        stop = options.pop("until", None) or ()
        stop = (stop,) if isinstance(stop, str) else tuple(text for text in stop if text)
        lengths = [value for name in LENGTHS if (value := options.pop(name, None)) is not None]
        most = int(lengths[0]) if lengths else MAX_TOKENS
        if most >= self.max_length:
            raise InputError(
                f"an answer of up to {most} tokens leaves the context of {self.max_length} no room for a question",
                "Lower max_gen_toks by --gen_kwargs",
            )
        drawn = options.pop("do_sample", None)
        values = {name: value for name in SAMPLING if (value := options.pop(name, None)) is not None}
        if options:
            raise InputError(
                f"generation with {', '.join(options)}", f"Use {', '.join(SAMPLING)}, until and max_gen_toks"
            )
        if drawn is False:
            values["temperature"] = 0.0
        temperature = values.pop("temperature", 1.0 if drawn else 0.0)
        special = self.words.special_tokens
        ends = [special[text] for text in stop if text in special]
        params = SamplingParams(
            max_tokens=most,
            temperature=float(temperature),
            stop=tuple(text for text in stop if text not in special),
            stop_tokens=tuple(dict.fromkeys([*self.model.format.stop_tokens, *ends])),
            **values,
        )
        prompt = self.tok_encode(context) or list(self.model.prefix)
        return prompt[-(self.max_length - most) :], params


def _windows(requests: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (requests[begin : begin + WINDOW] for begin in range(0, len(requests), WINDOW))


def _before(text: str, stops: Sequence[str]) -> str:
    return functools.reduce(lambda left, stop: left.split(stop)[0], stops, text)


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
