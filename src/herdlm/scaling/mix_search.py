"""Searches for a data mix: small models on each candidate, forecasts for a large one, a larger model to confirm.

Llama 3 report, section 3.1.2. All candidates start from the same weights and read each source in the same order, so
that only the mix differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from herdlm.base.artifact import InputEntry, hash_file, require_file, write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.standalone import input_folder, standalone
from herdlm.pretrain.config import tokens_in
from herdlm.pretrain.job import HerdJob
from herdlm.scaling.mix_candidates import DEFAULT, Candidate, make_candidates, read_candidates
from herdlm.scaling.mix_report import lines
from herdlm.scaling.mix_runs import Bench, Losses
from herdlm.scaling.mixes import ForecastInterval, MixForecast, backtest, forecast_mixes
from herdlm.tokens.shards import Shard
from herdlm.tokens.sources import VALIDATION
from herdlm.tokens.tokenizer import Tokenizer


def mix_search(
    herd: HerdJob,
    *,
    tokens: Path,
    tokenizer: Path,
    candidates: Path,
    out: Path,
    models: Sequence[str] = (),
    steps: int | None = None,
    seeds: int = 1,
    confirm: str | None = None,
    held_out: Mapping[str, Path] | None = None,
    runs: Path | None = None,
) -> dict[str, Any]:
    """Search for the mix that gives the flagship the lowest loss; returns the content of ``out/search.json``.

    Args:
        models: names of the models to train on each candidate; by default the ladder.
        steps: of each training; by default the recipe's. Forecasts are for the flagship after as many tokens.
        seeds: trainings of each model on each candidate, whose losses are averaged.
        confirm: a larger model, trained on the best mix and on the default to check the ranking.
        held_out: shards to measure on, by domain, besides the validation text of each source of the recipe.
        runs: a folder that keeps the trained models; by default ``out``-models. Searches with the same folder share
            models, and an interrupted one resumes from there.

    Raises:
        InputError: models, candidates or shards cannot be used.
    """
    names = tuple(models) or herd.ladder
    domains = _domains(herd, tokens, held_out or {})
    _check_models(herd, names, confirm)
    _check_shards(domains, tokenizer)
    if (steps is not None and steps < 1) or seeds < 1:
        raise InputError(f"{steps} steps with {seeds} seeds", "Give at least 1 of each")
    config = read_candidates(require_file(candidates, "the file of candidates"))
    if unknown := sorted(set(config.weights) - set(domains)):
        raise InputError(
            f"{candidates}: weights.{unknown[0]} does not name a held-out set", f"The sets are {', '.join(domains)}"
        )
    weights = dict(config.weights) or dict.fromkeys(domains, 1.0)
    tried = make_candidates(herd, config, tokens, steps=steps, source=str(candidates))
    inputs = {
        "tokens": input_folder(tokens),
        "tokenizer": input_folder(tokenizer),
        "candidates": InputEntry(path=str(candidates), content=hash_file(candidates)),
        **{f"held-out-{name}": input_folder(folder) for name, folder in (held_out or {}).items()},
    }
    settings = {
        "herd": _settings(herd),
        "candidates": config.model_dump(mode="json"),
        "models": list(names),
        "steps": steps,
        "seeds": seeds,
        "axis": herd.axis,
        "confirm": confirm,
    }
    bench = Bench(
        tokens,
        tokenizer,
        domains,
        runs or out.with_name(f"{out.name}-models"),
        {role: inputs[role].content for role in ("tokens", "tokenizer")},
        seeds,
    )
    counts: dict[str, Any] = {}
    published = standalone(
        out, kind="mix-search", name="mix-search", settings=settings, inputs=inputs, seed=herd.seed, counts=counts
    )
    with published as (made, _, _):
        losses = bench.measure(tried, [herd.job(name) for name in names])
        result = _ranked(herd, tried, names, weights, losses)
        if confirm:
            best = next(row["name"] for row in result["candidates"] if row["name"] != DEFAULT)
            pair = [0, next(number for number, candidate in enumerate(tried) if candidate.name == best)]
            small = {domain: part[:, pair] for domain, part in losses.items()}
            large = bench.measure([tried[number] for number in pair], [herd.job(confirm)])
            result["confirm"] = _confirmed(herd, best, names, confirm, weights=weights, small=small, large=large)
        result["runs"] = dict(sorted(bench.contents.items()))
        write_text_durably(made / "search.json", json.dumps(result, indent=2) + "\n")
        write_text_durably(made / "search.txt", "\n".join(lines(result)) + "\n")
        counts |= {"candidates": len(tried), "models": len(bench.contents), "winner": result["candidates"][0]["name"]}
    return result


def _ranked(
    herd: HerdJob, tried: Sequence[Candidate], names: Sequence[str], weights: Mapping[str, float], losses: Losses
) -> dict[str, Any]:
    """The candidates by their forecast for the flagship, best first."""
    axis, flagship = herd.axis, herd.flagship
    sizes = herd.sizes(names)
    (target,) = herd.sizes([flagship])
    forecasts = forecast_mixes(losses, sizes, target, weights, seed=herd.seed)
    tested = backtest(losses, sizes)
    rows: list[dict[str, Any]] = []
    for number, (candidate, forecast) in enumerate(zip(tried, forecasts, strict=True)):
        of_run = candidate.plan.config
        measured = {domain: part.mean(-1).mean(0)[number].tolist() for domain, part in losses.items()}
        rows.append(
            {
                "name": candidate.name,
                "asked": candidate.asked,
                "mix": {part.source: part.share for part in of_run.mix},
                "anneal_mix": {part.source: part.share for part in of_run.anneal_mix},
                "epochs": {name: reading.epochs for name, reading in candidate.plan.sources.items()},
                "score": asdict(forecast.score),
                "against_default": asdict(forecast.against_first) | {"verdict": _verdict(forecast.against_first)},
                "domains": {
                    domain: {
                        "forecast": asdict(estimate),
                        "measured": dict(zip(names, measured[domain], strict=True)),
                        "backtest": None if tested is None else float(tested[domain][number]),
                    }
                    for domain, estimate in forecast.domains.items()
                },
            }
        )
    rows.sort(key=lambda row: row["score"]["value"])
    small = tried[0].pretrain
    return {
        "axis": axis,
        "models": dict(zip(names, sizes, strict=True)),
        "target": {"name": flagship, "size": target},
        "steps": small.steps,
        "tokens": tokens_in(small),
        "seeds": next(iter(losses.values())).shape[0],
        "held_out_rows": {domain: part.shape[-1] for domain, part in losses.items()},
        "weights": dict(weights),
        "candidates": rows,
    }


def _confirmed(
    herd: HerdJob,
    best: str,
    names: Sequence[str],
    model: str,
    *,
    weights: Mapping[str, float],
    small: Losses,
    large: Losses,
) -> dict[str, Any]:
    """Compare the default mix and the best other one on a larger model with their forecasts."""
    (size,) = herd.sizes([model])
    forecast = forecast_mixes(small, herd.sizes(names), size, weights, seed=herd.seed)
    measured = forecast_mixes(large, [size], size, weights, seed=herd.seed)
    errors: dict[str, dict[str, dict[str, Any]]] = {
        domain: {
            name: {
                "forecast": asdict(forecast[number].domains[domain]),
                "measured": asdict(measured[number].domains[domain]),
                "error": forecast[number].domains[domain].value / measured[number].domains[domain].value - 1,
            }
            for number, name in enumerate((DEFAULT, best))
        }
        for domain in small
    }
    return {
        "model": model,
        "size": size,
        "best": best,
        "domains": errors,
        "difference": {"forecast": asdict(forecast[1].against_first), "measured": asdict(measured[1].against_first)},
        "ranking": _held(forecast[1], measured[1]),
        "largest_error": max(abs(of["error"]) for by_name in errors.values() for of in by_name.values()),
    }


def _verdict(difference: ForecastInterval) -> str:
    if difference.value == 0:
        return "default"
    return "better" if difference.high < 0 else "worse" if difference.low > 0 else "no difference seen"


def _held(forecast: MixForecast, measured: MixForecast) -> str:
    """Whether the larger model confirms the forecast ranking of the two mixes, or the difference is not significant."""
    if measured.against_first.low <= 0 <= measured.against_first.high:
        return "not decided"
    return "held" if (forecast.against_first.value < 0) == (measured.against_first.value < 0) else "did not hold"


def _settings(herd: HerdJob) -> dict[str, Any]:
    """The settings of the herd that affect a search's result."""
    any_job = next(iter(herd.models.values()))
    return {
        "pretrain": herd.pretrain.model_dump(mode="json"),
        "models": {
            name: {"model": job.model.model_dump(mode="json"), "peak_lr": job.pretrain.train.peak_lr}
            for name, job in herd.models.items()
        },
        "flagship": herd.flagship,
        "ladder": list(herd.ladder),
        "seed": herd.seed,
        "device": any_job.device,
        "threads": any_job.threads,
    }


def _domains(herd: HerdJob, tokens: Path, further: Mapping[str, Path]) -> dict[str, Path]:
    """Held-out shards by domain: those of the recipe's sources, and ``further`` ones."""
    own = {name: tokens / f"{name}{VALIDATION}" for name in herd.domains}
    if twice := sorted(set(own) & set(further)):
        raise InputError(f"the held-out set {twice[0]} is a source of the recipe", "Give it another name")
    return own | dict(further)


def _check_models(herd: HerdJob, names: Sequence[str], confirm: str | None) -> None:
    for name in (*names, *((confirm,) if confirm else ())):
        herd.job(name)
    if len(set(herd.sizes(names))) < 2:
        raise InputError(f"models of a single size ({', '.join(names)}) give no forecast", "Give two sizes or more")
    if len(set(names)) < len(names):
        raise InputError(
            f"a model is named twice: {', '.join(names)}", "Name each once; for several trainings, raise seeds"
        )
    if confirm in names:
        raise InputError(f"{confirm} is one of the models that forecast", "Confirm on a larger model")


def _check_shards(domains: Mapping[str, Path], tokenizer: Path) -> None:
    content = Tokenizer.load(tokenizer).content()
    for folder in domains.values():
        if Shard(folder).index.tokenizer != content:
            raise InputError(
                f"{folder} was made with another tokenizer than {tokenizer}", "Tokenize its text again with that one"
            )
