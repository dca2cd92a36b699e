"""Stages that turn raw pages into tokens: curate, tokenizer, bank, tokens."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from herdlm.align.bank.tasks import LANGUAGES, TASKS, Bank, as_demonstration, as_prompt, questions, skill_documents
from herdlm.base.errors import InputError
from herdlm.base.json_lines import write_json_lines
from herdlm.base.progress import Progress
from herdlm.base.seeds import derive_seed, stream
from herdlm.curate.pipeline import curate
from herdlm.model.hf import GENERATION
from herdlm.model.weights import write_json
from herdlm.report.corpus_page import write_corpus_page
from herdlm.run.stage import Context
from herdlm.tokens.chat_format import generation_settings
from herdlm.tokens.documents import Split, read_documents, split_documents
from herdlm.tokens.shards import ShardWriter
from herdlm.tokens.text_shards import shard_counts, write_text_shards
from herdlm.tokens.tokenizer import Tokenizer, train_tokenizer
from herdlm.train.save import copy_tokenizer

WORD = re.compile(r"[a-z]{3,9}")


def curate_stage(context: Context) -> dict[str, Any]:
    """Turn raw pages into clean, unique documents."""
    recipe = context.recipe
    funnel = curate(context.stage.files, context.out, recipe.curate, seed=context.seed(), work=context.work / "curate")
    write_corpus_page(context.out)
    return funnel


def tokenizer_stage(context: Context) -> dict[str, Any]:
    """Train the tokenizer on the training documents."""
    config = context.recipe.tokenizer
    documents = context.inputs["documents"] / "documents"
    split = _split(context)
    chosen = split.train
    sizes = [len(d.text.encode()) for d in read_documents(documents) if d.id in chosen]
    share = min(config.training_megabytes * 1e6 / sum(sizes), 1.0)
    rng = stream(context.seed(), "sample")

    def sample() -> Iterator[str]:
        with Progress("tokenizer", len(sizes), "documents") as progress:
            for document in read_documents(documents):
                if document.id in chosen:
                    progress.advance()
                    if rng.random() < share:
                        yield document.text

    tokenizer = train_tokenizer(sample(), config)
    tokenizer.save(context.out)
    return {
        "vocab_size": tokenizer.vocab_size,
        "trained_on_bytes": round(sum(sizes) * share),
        "documents_over_language_limit": dict(sorted(split.cut.items())),
    }


def import_tokenizer_stage(context: Context) -> dict[str, Any]:
    """Copy the tokenizer of the folder that models start from, with its chat template and stop tokens."""
    folder = context.recipe.tokenizer_folder()
    assert folder is not None
    copy_tokenizer(folder, context.out)
    write_json(context.out / GENERATION, generation_settings(folder))
    return {"vocab_size": Tokenizer.load(context.out).vocab_size}


def bank_stage(context: Context) -> dict[str, Any]:
    """Make the instruction tasks' words, snippets, demonstrations and held-out questions."""
    config, split = context.recipe.bank, _split(context)
    documents = context.inputs["documents"] / "documents"
    words = _common_words(documents, split, Tokenizer.load(context.inputs["tokenizer"]), config.words)
    snippets, lines = _training_snippets(documents, split, config.snippet_characters)
    held_out_snippets = _held_out_snippets(documents, split, config.snippet_characters, lines)
    for name, texts_by_language in (("training", snippets), ("validation", held_out_snippets)):
        if not texts_by_language:
            raise InputError(
                f"no {name} document in {', '.join(LANGUAGES.values())} has a line with {config.snippet_characters} "
                "characters of prose",
                "Lower bank.snippet_characters, raise tokens.validation_percent, or give more pages",
            )
    rng = stream(context.seed(), "snippets")
    for part in (snippets, held_out_snippets):
        for code, texts in part.items():
            order = rng.permutation(len(texts))[: config.snippets_per_language]
            part[code] = [texts[i] for i in order]
    bank = {"words": words, "snippets": snippets, "held_out_snippets": held_out_snippets}
    (context.out / "bank.json").write_text(json.dumps(bank, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    loaded = load_bank(context.out)
    seeds = questions(loaded, config.seed_demonstrations, seed=context.seed(), name="seeds")
    held_out = questions(loaded, config.held_out_questions, seed=context.seed(), name="held out", held_out=True)
    write_json_lines(context.out / "seeds.jsonl", list(map(as_demonstration, seeds)))
    write_json_lines(
        context.out / "held_out.jsonl", [{"task": q.task, "prompt": q.prompt, "answer": q.answer} for q in held_out]
    )
    deciding = questions(loaded, config.gate_questions, seed=context.seed(), name="gate", held_out=True)
    examined = {q.prompt for q in held_out}
    for name, asked in (("exam", held_out), ("gate", [q for q in deciding if q.prompt not in examined])):
        write_json_lines(context.out / f"{name}.jsonl", [as_prompt(q, annotated=True) for q in asked])
    return {
        "words": len(words),
        "seeds": len(seeds),
        "held_out": len(held_out),
        "tasks": len(TASKS),
        "snippets": {code: len(texts) for code, texts in sorted(snippets.items())},
        "held_out_snippets": {code: len(texts) for code, texts in sorted(held_out_snippets.items())},
    }


def _common_words(documents: Path, split: Split, tokenizer: Tokenizer, wanted: int) -> list[str]:
    """The most common English words of the corpus that are one token and not in any task's wording."""
    counts: Counter[str] = Counter()
    for document in read_documents(documents):
        if document.id in split.train and document.language == "en":
            counts.update(WORD.findall(document.text))
    used = {part for task in TASKS for wording in (*task.prompts, *task.documents) for part in wording.lower().split()}
    words = []
    for word, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        if word not in used and len(tokenizer.encode(f" {word}")) == 1:
            words.append(word)
        if len(words) == wanted:
            return words
    raise InputError(
        f"the English training documents have {len(words)} common one-token words, but bank.words is {wanted}",
        "Lower bank.words, give more text, or add en to curate.language.keep",
    )


def _training_snippets(documents: Path, split: Split, size: int) -> tuple[dict[str, list[str]], set[str]]:
    """Pieces of prose by language, and every line of the training documents in any language."""
    snippets: dict[str, list[str]] = {}
    lines: set[str] = set()
    for document in read_documents(documents):
        if document.id in split.train:
            lines.update(map(_normalized, document.text.splitlines()))
            if document.language in LANGUAGES:
                snippets.setdefault(document.language, []).extend(piece for piece, _ in _snippets(document.text, size))
    return {code: texts for code, texts in snippets.items() if texts}, lines


def _held_out_snippets(documents: Path, split: Split, size: int, known: set[str]) -> dict[str, list[str]]:
    """Distinct pieces of validation documents' prose by language, without lines that are in training documents too."""
    snippets: dict[str, dict[str, None]] = {}
    for document in read_documents(documents):
        if document.id in split.validation and document.language in LANGUAGES:
            fresh = (piece for piece, line in _snippets(document.text, size) if _normalized(line) not in known)
            snippets.setdefault(document.language, {}).update(dict.fromkeys(fresh))
    return {code: list(texts) for code, texts in snippets.items() if texts}


def _normalized(line: str) -> str:
    return " ".join(line.lower().split())


def tokens_stage(context: Context) -> dict[str, Any]:
    """Write token shards: each source's text for training, annealing and validation, and the skill documents."""
    config, split = context.recipe.tokens, _split(context)
    tokenizer = Tokenizer.load(context.inputs["tokenizer"])
    documents = read_documents(context.inputs["documents"] / "documents")
    counts = write_text_shards(context.out, tokenizer, documents, split, config.sources)
    if config.skill_documents:
        counts["skills"] = _write_skills(context, tokenizer)
    if config.sources:
        left_out = {"documents_of_no_source": dict(sorted(split.outside.items()))}
        (context.out / "sources.json").write_text(
            json.dumps(left_out, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
    return counts


def _write_skills(context: Context, tokenizer: Tokenizer) -> dict[str, Any]:
    """Write the shard of documents that show a skill, of which only the answers are targets."""
    config = context.recipe.tokens
    begin, end = tokenizer.begin, tokenizer.end
    writer = ShardWriter(
        context.out / "skills", vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.content(), with_targets=True
    )
    made = list(
        skill_documents(
            load_bank(context.inputs["bank"]),
            config.skill_documents,
            seed=context.seed(),
            context_share=config.skill_context_share,
        )
    )
    before = tokenizer.encode_batch([text for text, _ in made])
    answers = tokenizer.encode_batch([f" {answer}" for _, answer in made])
    for (text, answer), prefix, suffix in zip(made, before, answers, strict=True):
        tokens = [*begin, *prefix, *suffix, end]
        targets = [False] * (len(begin) + len(prefix)) + [True] * (len(suffix) + 1)
        writer.add(tokens, text_bytes=len(f"{text} {answer}".encode()), targets=targets)
    return shard_counts(writer.close())


def load_bank(folder: Path) -> Bank:
    """Read the bank that the bank stage wrote."""
    return Bank(**json.loads((folder / "bank.json").read_text(encoding="utf-8")))


def _split(context: Context) -> Split:
    """The division of documents into sets. It is the same in every stage."""
    config = context.recipe.tokens
    documents = context.inputs["documents"] / "documents"
    return split_documents(
        read_documents(documents),
        documents,
        seed=derive_seed(context.recipe.seed, "split"),
        validation_percent=config.validation_percent,
        anneal_percent=config.anneal_percent,
        max_text_megabytes=config.max_text_megabytes,
        sources=config.sources,
    )


def _snippets(text: str, size: int) -> Iterator[tuple[str, str]]:
    """The first whole words, at most ``size`` characters, of each of a document's prose lines, with the line."""
    for line in text.splitlines():
        if len(line) < size or sum(c.isalpha() or c.isspace() for c in line) < 0.9 * len(line):
            continue
        piece = ""
        for word in line.split():
            if len(piece) + len(word) + 1 > size:
                break
            piece += f" {word}" if piece else word
        if piece:
            yield piece, line
