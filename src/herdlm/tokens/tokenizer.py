"""Tokenizers: those of any Hugging Face ``tokenizer.json``, and new byte-level BPE ones with Llama 3's split rule."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from pydantic import Field
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from herdlm.base.artifact import hash_bytes
from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_files import as_object, read_bounded
from herdlm.base.recipe import Section
from herdlm.tokens.chat_template import llama3_template
from herdlm.tokens.renamed import Renamed, rename_special
from herdlm.tokens.token_bytes import byte_reader
from herdlm.tokens.tokenizer_files import (
    RESTORE,
    TOKENIZER_BYTES,
    add_missing,
    also_special,
    check_definition,
    check_ids,
    named_tokens,
    read_settings,
)
from herdlm.tokens.tokenizer_probe import probe

BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"
PAD = "<|finetune_right_pad_id|>"
START_HEADER = "<|start_header_id|>"
END_HEADER = "<|end_header_id|>"
END_OF_MESSAGE = "<|eom_id|>"
END_OF_TURN = "<|eot_id|>"
PYTHON_TAG = "<|python_tag|>"
SPECIAL_TOKENS = (BEGIN_OF_TEXT, END_OF_TEXT, PAD, START_HEADER, END_HEADER, END_OF_MESSAGE, END_OF_TURN, PYTHON_TAG)
SHORT = 4096  # characters of a text that is encoded within a millisecond or so
LLAMA3_NAMES = {"bos_token": BEGIN_OF_TEXT, "eos_token": END_OF_TURN, "pad_token": PAD}
# Characters in a row of a class that the split rule does not divide: letters, marks, or spaces
_LONG_RUN = re.compile(r"[^\W\d_]{1000}|[^\w\s]{1000}|[^\S\r\n]{1000}|[\r\n]{1000}|_{1000}")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)


class TokenizerConfig(Section):
    """How the tokenizer is trained."""

    vocab_size: int = Field(128_256, ge=272, description="all entries: bytes, merges and special tokens")
    single_digits: bool = Field(False, description="one token per digit; the Llama 3 rule groups up to three digits")
    training_megabytes: float = Field(100.0, gt=0, description="how much text to train on, sampled evenly")
    leading_space: bool = Field(
        False, description="start chat contents with a space, so that a word is the same token everywhere"
    )


def split_pattern(single_digits: bool = False) -> str:
    """The pre-tokenization rule of Llama 3: contractions, words with one mark before them, digits, marks, spaces."""
    digits = r"\p{N}" if single_digits else r"\p{N}{1,3}"
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
        r"|[^\r\n\p{L}\p{N}]?\p{L}+"
        rf"|{digits}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+"
        r"|\s+(?!\S)"
        r"|\s+"
    )


class Tokenizer:
    """Encodes text and decodes ids, by the rules of any ``tokenizer.json``.

    Text never encodes to special tokens; :meth:`special` returns them by name, and
    :class:`herdlm.tokens.chat_format.ChatFormat` puts them where a template does.

    Attributes:
        begin: ids before a text that starts here; empty if the tokenizer adds none.
        end: ends a document.
        pad: fills rows; its targets weigh nothing, so without a pad token any id will do.
        bos, eos: ids of the tokens that the folder names so; None if it names none.
        named: the tokens that the folder names, such as ``bos_token``, for chat templates.
        strips_space: whether decoding drops a space at the start of a text.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        leading_space: bool = False,
        named: Mapping[str, str] | None = None,
        also_special: Iterable[str] = (),
        add_bos: bool = False,
    ) -> None:
        # If a page or a user writes "<|eot_id|>", these are characters, not the end of a turn.
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.leading_space = leading_space
        self.vocab_size: int = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        self.named = dict(LLAMA3_NAMES if named is None else named)
        self.named = {role: token for role, token in self.named.items() if backend.token_to_id(token) is not None}
        self.added: dict[int, AddedToken] = backend.get_added_tokens_decoder()
        also = {*self.named.values(), *(token for token in also_special if backend.token_to_id(token) is not None)}
        roles = {token for token in also if len(token) > 1}  # a folder that pads with "!" still writes "!"
        self._special = {t.content: id for id, t in self.added.items() if t.special or t.content in roles}
        self._special |= {token: id for token in roles if (id := backend.token_to_id(token)) is not None}
        self._special_ids = frozenset(self._special.values())
        # A model of SentencePiece may hold "<s>" as a word, and find it in a text.
        self._leaks = any(id in backend.encode(t, add_special_tokens=False).ids for t, id in self._special.items())
        self._bytes_of, self.strips_space = byte_reader(backend)
        self.bos, self.eos = (self._named_id(role) for role in ("bos_token", "eos_token"))
        self.begin = self._begin() or ((self.bos,) if add_bos and self.bos is not None else ())
        self.end = self._first_of(END_OF_TEXT, "<|endoftext|>", "</s>", self.named.get("eos_token", ""))
        self.pad = self._first_of(self.named.get("pad_token", ""), PAD, self.named.get("eos_token", ""))

    @property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens and their ids."""
        return dict(self._special)

    def special(self, name: str) -> int:
        """The id of a special token.

        Raises:
            InputError: this tokenizer has no such token.
        """
        try:
            return self._special[name]
        except KeyError:
            known = ", ".join(sorted(self._special)[:8]) or "none"
            raise InputError(
                f"the tokenizer has no special token {name}", f"Its special tokens are {known}; name one of them"
            ) from None

    def is_special(self, id: int) -> bool:
        """Whether ``id`` is a special token, which no text encodes to."""
        return id in self._special_ids

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, without begin or end tokens.

        Raises:
            InputError: the text has a lone surrogate, which no encoding can write.
        """
        if len(text) > SHORT:  # a batch of one: only batches let other threads of the interpreter run
            return self.encode_batch([text])[0]
        with encoding([text]):
            ids: list[int] = self._text_backend.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts at once, on all cores that the process may use, while other threads run.

        Raises:
            InputError: a text has a lone surrogate, or the tokenizer's patterns give up on it.
        """
        with encoding(texts):
            encoded = self._text_backend.encode_batch_fast(list(texts), add_special_tokens=False)
            return [each.ids for each in encoded]

    @cached_property
    def longest_token(self) -> int:
        """The most bytes of text that one token can stand for."""
        bytes_of = max((len(self.token_bytes(id)) for id in range(self.vocab_size)), default=1)
        # A normalizer may make one character of several.
        return max(bytes_of, 16) * (4 if self.backend.normalizer is not None else 1)

    def least_tokens(self, text: str) -> int:
        """A bound from below of the tokens of ``text``, which costs next to nothing."""
        return len(text) // self.longest_token

    @cached_property
    def renamed(self) -> Renamed:
        """A backend with secret names of the special tokens."""
        return rename_special(self.backend, self._special)

    @property
    def _text_backend(self) -> Backend:
        return self.renamed.backend if self._leaks else self.backend

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Text of ``ids``; bytes of an incomplete character become the replacement character."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=not keep_special)
        return text

    def continuation(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` that follow others: as :meth:`decode`, but a space at the start stays."""
        return b"".join(self.token_bytes(id) for id in ids if id < self.vocab_size).decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of a token; empty for special tokens and for ids that the vocabulary leaves out.

        Raises:
            InputError: the id is outside the vocabulary.
        """
        if id in self._special_ids:
            return b""
        if id in self.added:  # stored as text, whatever the form of the others
            return self.added[id].content.encode()
        if not 0 <= id < self.vocab_size:
            raise InputError(f"token id {id} is outside the vocabulary of {self.vocab_size}", "Check the ids")
        token = self.backend.id_to_token(id)
        return b"" if token is None else self._bytes_of(token)

    def content(self) -> str:
        """Hash of the tokenizer's definition, to check that tokens and model belong together."""
        return hash_bytes(self.backend.to_str().encode())

    def save(self, folder: Path) -> None:
        """Write the files from which transformers, vLLM and herdlm load a tokenizer with Llama 3's special tokens."""
        self.backend.encode_special_tokens = False  # what other tools expect in the file
        try:
            self.backend.save(str(folder / "tokenizer.json"))
        finally:
            self.backend.encode_special_tokens = True
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **LLAMA3_NAMES,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "leading_space": self.leading_space,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / "chat_template.jinja").write_text(llama3_template(self.leading_space), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Load the tokenizer of a model or tokenizer folder.

        Raises:
            InputError: the folder holds no ``tokenizer.json``, or one of a kind that cannot be represented.
            DamagedError: a file there cannot be read.
        """
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise InputError(f"{folder} holds no tokenizer.json", "Give a model or tokenizer folder")
        data = read_bounded(path, RESTORE, most=TOKENIZER_BYTES)
        definition = as_object(data, path, RESTORE, encoding="utf-8-sig")
        check_definition(definition, path)
        text = data.decode("utf-8-sig")
        if (problem := probe(text)) is not None:
            raise DamagedError(f"{path} is not a valid tokenizer: {problem}", RESTORE)
        try:
            backend = Backend.from_str(text)
        except Exception as error:  # the backend raises bare Exception
            raise DamagedError(f"{path} is not a valid tokenizer: {error}", RESTORE) from error
        check_ids(backend, definition.get("added_tokens") or [], path)
        settings = read_settings(Path(folder))
        add_missing(backend, settings)
        try:
            return cls(
                backend,
                leading_space=bool(settings.get("leading_space")),
                named=named_tokens(settings),
                also_special=also_special(settings),
                add_bos=settings.get("add_bos_token") is True,
            )
        except InputError as error:
            raise InputError(f"{path}: {error.what}", error.remedy) from error

    def _named_id(self, role: str) -> int | None:
        id: int | None = self.backend.token_to_id(self.named[role]) if role in self.named else None
        return id

    def _first_of(self, *tokens: str) -> int:
        return next((self._special[token] for token in tokens if token in self._special), 0)

    def _begin(self) -> tuple[int, ...]:
        """What the backend's post-processor puts before a text."""
        plain = self.backend.encode("a", add_special_tokens=False).ids
        whole = self.backend.encode("a", add_special_tokens=True).ids
        found = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        return tuple(whole[:found])


@contextmanager
def encoding(texts: Sequence[str]) -> Iterator[None]:
    """Errors of encoding ``texts`` as ones of the input.

    Raises:
        InputError: a text has a lone surrogate, or the tokenizer's patterns give up on it.
    """
    try:
        yield
    except (TypeError, UnicodeEncodeError) as error:
        wrong = next((text for text in texts if re.search("[\ud800-\udfff]", text)), "")
        raise not_encodable(wrong) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of the library in Rust; no class of it can be imported
            raise
        said = " ".join(str(error).split())[:200]
        raise InputError(f"the tokenizer fails on a text: {said}", "Change its split pattern, or the text") from error


def not_encodable(text: str) -> InputError:
    found = re.search("[\ud800-\udfff]", text)
    place = f" at character {found.start()}" if found else ""
    return InputError(f"the text holds a lone surrogate{place}, which is no character", "Correct or drop the text")


def _cut_runs(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts with their long runs of letters or marks cut, since training takes the square of the longest piece.

    Base64, DNA and text without spaces are such pieces. A cut costs the merge of the two characters beside it.
    """
    for text in texts:
        at = 0
        for run in _LONG_RUN.finditer(text):
            yield text[at : run.end()]
            at = run.end()
        if at < len(text):
            yield text[at:]


def train_tokenizer(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Train BPE merges on ``texts``. The same texts in the same order give the same tokenizer.

    Raises:
        InputError: the texts yield fewer than ``vocab_size`` tokens.
    """
    backend = Backend(models.BPE(ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split_pattern(config.single_digits)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    wanted = config.vocab_size - len(SPECIAL_TOKENS)
    trainer = trainers.BpeTrainer(
        vocab_size=wanted, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    backend.train_from_iterator(_cut_runs(texts), trainer)
    if backend.get_vocab_size() < wanted:
        most = backend.get_vocab_size() + len(SPECIAL_TOKENS)
        raise InputError(
            f"tokenizer.vocab_size is {config.vocab_size}, but the text yields only {most} tokens",
            f"Give more text, or set tokenizer.vocab_size to at most {most}",
        )
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    begin = backend.token_to_id(BEGIN_OF_TEXT)
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single=f"{BEGIN_OF_TEXT} $A",
                pair=f"{BEGIN_OF_TEXT} $A {BEGIN_OF_TEXT} $B",
                special_tokens=[(BEGIN_OF_TEXT, begin)],
            ),
        ]
    )
    return Tokenizer(backend, leading_space=config.leading_space)
