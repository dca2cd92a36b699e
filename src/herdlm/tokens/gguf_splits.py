"""How llama.cpp splits text before byte-level BPE, by the name in ``tokenizer.ggml.pre``.

A rule is a list of regular expressions. Each isolates its matches in what the one before left, as the steps of a
Hugging Face pre-tokenizer do. Expressions are spelled as in the tokenizer.json files of the models they come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from herdlm.base.errors import InputError
from herdlm.tokens.tokenizer import split_pattern

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT = r"\p{N}"
DIGITS = r"\p{N}+"
CJK = "[一-龥ࠀ-一가-퟿]+"
DEEPSEEK_LETTERS = (
    r"\s?["
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕ"
    "ἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-"
    "ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
    "]+"
)
DEEPSEEK_MARKS = r"\s?[!-/:-~！-／：-～‘-‟　-。]+"  # noqa: RUF001
DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class SplitRule:
    """A rule of llama.cpp.

    ``whole_words``: a word that is a token is taken as it is, whatever the merges say (``ignore_merges``).
    ``begins``: a begin token is put before text where the file does not say.
    """

    names: tuple[str, ...]
    patterns: tuple[str, ...]
    whole_words: bool = False
    begins: bool = False


RULES = (
    SplitRule(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"), (split_pattern(),), True, True),
    SplitRule(("smaug-bpe", "dbrx"), (split_pattern(),)),
    SplitRule(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"), (split_pattern(single_digits=True),)),
    SplitRule(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), (DIGIT, GPT2)),
    SplitRule(("gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion", "gigachat", "exaone4", "a.x-4.0"), (GPT2,)),
    SplitRule(("deepseek-llm",), (r"[\r\n]", DEEPSEEK_LETTERS, DEEPSEEK_MARKS, r"\s+$", CJK, DIGITS)),
    SplitRule(("deepseek-coder",), (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, DIGIT)),
    SplitRule(("deepseek-v3", "hunyuan-dense"), (r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3)),
    SplitRule(("tekken",), (TEKKEN,), True, True),
    SplitRule(("default",), (r"[\p{P}\$\+<=>\^~\|]+", GPT2, DIGITS, "[0-9][0-9][0-9]")),
)


def rule_named(name: str, where: str) -> SplitRule:
    """The rule that a file names.

    Raises:
        InputError: it is not known here.
    """
    for rule in RULES:
        if name in rule.names:
            return rule
    known = ", ".join(sorted(name for rule in RULES for name in rule.names))
    raise InputError(f"{where}: tokenizer.ggml.pre is {name!r}", f"Known: {known}")


def pre_tokenizer(rule: SplitRule) -> dict[str, Any]:
    """The rule as the ``pre_tokenizer`` of a tokenizer.json."""
    steps: list[dict[str, Any]] = []
    for pattern in rule.patterns:
        if pattern == GPT2:  # the byte-level step has this expression itself
            steps.append(_byte_level(use_regex=True))
        else:
            steps.append({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False})
    if GPT2 not in rule.patterns:
        steps.append(_byte_level(use_regex=False))
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def rules_of(pre: dict[str, Any], where: str) -> list[SplitRule]:
    """The rules of llama.cpp that split as the ``pre_tokenizer`` of a byte-level tokenizer.json does.

    Raises:
        InputError: there is none, or the pre-tokenizer puts a space before text.
    """
    patterns = []
    for step in pre["pretokenizers"] if pre.get("type") == "Sequence" else [pre]:
        kind = step.get("type")
        if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
            pattern = step["pattern"]
            patterns.append(pattern.get("Regex") if isinstance(pattern, dict) else None)
        elif kind == "Digits":
            patterns.append(DIGIT if step.get("individual_digits") else DIGITS)
        elif kind == "ByteLevel" and not step.get("add_prefix_space"):
            patterns += [GPT2] if step.get("use_regex", True) else []
        else:
            raise InputError(f"{where}: llama.cpp has nothing like the step {step} of pre_tokenizer", "Use export-hf")
    found = [rule for rule in RULES if rule.patterns == tuple(patterns)]
    if not found:
        raise InputError(f"{where}: llama.cpp has no rule that splits text by {patterns}", "Use export-hf")
    return found
