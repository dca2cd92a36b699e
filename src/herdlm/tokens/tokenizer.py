"""A byte-level BPE tokenizer with Llama 3's split rule, stored as a Hugging Face ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from herdlm.base.artifact import hash_bytes
from herdlm.base.errors import DamagedError, InputError
from herdlm.base.recipe import Section
from herdlm.tokens.chat_template import chat_template

BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"
PAD = "<|finetune_right_pad_id|>"
START_HEADER = "<|start_header_id|>"
END_HEADER = "<|end_header_id|>"
END_OF_MESSAGE = "<|eom_id|>"
END_OF_TURN = "<|eot_id|>"
PYTHON_TAG = "<|python_tag|>"
SPECIAL_TOKENS = (BEGIN_OF_TEXT, END_OF_TEXT, PAD, START_HEADER, END_HEADER, END_OF_MESSAGE, END_OF_TURN, PYTHON_TAG)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


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
    """Encodes text and decodes ids. Text never encodes to special tokens; :meth:`special` returns them by name."""

    def __init__(self, backend: Backend, *, leading_space: bool = False) -> None:
        # If a page or a user writes "<|eot_id|>", these are characters, not the end of a turn.
        backend.encode_special_tokens = True
        self.backend = backend
        self.leading_space = leading_space
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self._special = {name: id for name in SPECIAL_TOKENS if (id := backend.token_to_id(name)) is not None}
        self._special_ids = frozenset(self._special.values())

    def special(self, name: str) -> int:
        """The id of a special token.

        Raises:
            InputError: this tokenizer has no such token.
        """
        try:
            return self._special[name]
        except KeyError:
            raise InputError(
                f"the tokenizer has no special token {name}",
                "Use a tokenizer.json whose added_tokens include those of Llama 3, or one that herdlm trained",
            ) from None

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, without begin or end tokens."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts at once, on all cores that the process may use."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Text of ``ids``; bytes of an incomplete character become the replacement character."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=not keep_special)
        return text

    def token_bytes(self, id: int) -> bytes:
        """The bytes of a token; empty for special tokens."""
        if id in self._special_ids:
            return b""
        token = self.backend.id_to_token(id)
        if token is None:
            raise InputError(f"token id {id} is outside the vocabulary of {self.vocab_size}", "Check the ids")
        return bytes(_BYTE_OF_CHARACTER[character] for character in token)

    def content(self) -> str:
        """Hash of the tokenizer's definition, to check that tokens and model belong together."""
        return hash_bytes(self.backend.to_str().encode())

    def save(self, folder: Path) -> None:
        """Write the files from which transformers, vLLM and herdlm load this tokenizer."""
        self.backend.encode_special_tokens = False  # what other tools expect in the file
        try:
            self.backend.save(str(folder / "tokenizer.json"))
        finally:
            self.backend.encode_special_tokens = True
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BEGIN_OF_TEXT,
            "eos_token": END_OF_TURN,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "leading_space": self.leading_space,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / "chat_template.jinja").write_text(chat_template(self.leading_space), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Load the tokenizer of a model or tokenizer folder.

        Raises:
            InputError: the folder holds no ``tokenizer.json``.
            DamagedError: a file there cannot be read.
        """
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise InputError(f"{folder} holds no tokenizer.json", "Give a model or tokenizer folder")
        try:
            backend = Backend.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the backend raises bare Exception
            raise DamagedError(
                f"{path} is not a valid tokenizer: {error}", "Restore the file from its source"
            ) from error
        settings = Path(folder) / "tokenizer_config.json"
        try:
            leading_space = settings.is_file() and json.loads(settings.read_text(encoding="utf-8")).get("leading_space")
        except (ValueError, AttributeError) as error:
            raise DamagedError(f"{settings} is not valid JSON: {error}", "Restore the file from its source") from error
        return cls(backend, leading_space=bool(leading_space))


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
    backend.train_from_iterator(texts, trainer)
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


def _byte_characters() -> dict[str, int]:
    """The byte of each printable character that represents one in byte-level BPE files (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in printable}
    for shift, byte in enumerate(b for b in range(256) if b not in set(printable)):
        table[chr(256 + shift)] = byte
    return table


_BYTE_OF_CHARACTER = _byte_characters()
