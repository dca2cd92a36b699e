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
KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
DEEPSEEK_LETTERS = (
    r"\s?["
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-"
    "\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
    "]+"
)
DEEPSEEK_MARKS = r"\s?" "[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
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
    SplitRule(("deepseek-v3", "hunyuan-dense"), (r"\p{N}{1,3}", KANA, DEEPSEEK3)),
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
