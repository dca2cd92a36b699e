"""A search for a data mix: the ranking, what is trained and what is kept, a kill, caps, draws and refusals."""

import json

import numpy as np
import pytest

from herdlm.base.errors import InputError
from herdlm.pretrain.config import timeline
from herdlm.pretrain.pretrain import pretrain
from herdlm.recipe import read_recipe
from herdlm.scaling import trained as training
from herdlm.scaling.mix_candidates import CandidatesConfig, make_candidates
from herdlm.scaling.mix_search import mix_search
from tests.run.conftest import ROOT, herdlm
from tests.scaling.test_anneal_probe import sentences, squares, write

KEYS = [
    "tokenizer.vocab_size=400",
    "tokens.skill_documents=0",
    "pretrain.steps=60",
    "pretrain.rows_per_step=4",
    "pretrain.seq_len=32",
    "pretrain.train.anneal_steps=12",
    "pretrain.train.warmup_steps=5",
    "tokens.sources={prose = {languages = ['en']}, numbers = {languages = ['de']}}",
    "pretrain.mix=[{source = 'prose', share = 0.8}, {source = 'numbers', share = 0.2}]",
    "pretrain.anneal_mix=[{source = 'prose-anneal', share = 0.8}, {source = 'numbers-anneal', share = 0.2}]",
]
CANDIDATES = """
[candidates.more-numbers]
mix = { prose = 1, numbers = 1 }
[candidates.no-numbers]
mix = { prose = 1 }
anneal_mix = { prose-anneal = 1 }
"""


def recipe(*more):
    return read_recipe(ROOT / "recipes" / "tiny.toml", [*KEYS, *more])


@pytest.fixture(scope="module")
def data(tokenizer, tmp_path_factory):
    """Two sources of different kinds, prose and numbers."""
    folder = tmp_path_factory.mktemp("mix")
    for name, make, count in (("prose", sentences, 150), ("numbers", squares, 150)):
        write(folder / "tokens" / name, tokenizer, make(name, count))
        write(folder / "tokens" / f"{name}-anneal", tokenizer, make(name, count // 3))
        write(folder / "tokens" / f"{name}-validation", tokenizer, make(f"{name} held out", 30))
    write(folder / "tokens" / "web-validation", tokenizer, [*sentences("v", 10), *squares("v", 10)])
    (folder / "tokenizer").mkdir()
    tokenizer.save(folder / "tokenizer")
    (folder / "candidates.toml").write_text(CANDIDATES)
    return folder


def search(data, out, *more, **options):
    given = dict(
        tokens=data / "tokens",
        tokenizer=data / "tokenizer",
        candidates=data / "candidates.toml",
        out=out,
        models=("ladder-1", "ladder-2"),
        steps=40,
    )
    return mix_search(recipe(*more).herd_job(), **(given | options))


@pytest.fixture(scope="module")
def told(data, tmp_path_factory):
    """(folder, result) of a search over three mixes that is confirmed on a third model."""
    out = tmp_path_factory.mktemp("out") / "search"
    return out, search(data, out, confirm="ladder-3")


def by_name(result):
    return {row["name"]: row for row in result["candidates"]}


def test_a_mix_with_more_of_a_domain_is_forecast_to_know_it_better(told):
    result = told[1]
    rows = by_name(result)
    numbers, prose = (
        {name: row["domains"][domain]["forecast"] for name, row in rows.items()} for domain in ("numbers", "prose")
    )
    assert max(numbers["more-numbers"]["high"], numbers["default"]["high"]) < numbers["no-numbers"]["low"]
    assert prose["no-numbers"]["value"] < prose["default"]["value"] < prose["more-numbers"]["value"]
    for model in ("ladder-1", "ladder-2"):
        measured = [rows[name]["domains"]["numbers"]["measured"][model] for name in ("more-numbers", "default")]
        assert measured[0] < measured[1] < rows["no-numbers"]["domains"]["numbers"]["measured"][model]
    assert [row["name"] for row in result["candidates"]] == ["default", "more-numbers", "no-numbers"]
    scores = [row["score"]["value"] for row in result["candidates"]]
    assert scores == sorted(scores)
    assert rows["no-numbers"]["against_default"]["verdict"] == "worse"
    for row in rows.values():  # all domains weigh alike where nothing is said
        assert row["score"]["value"] == pytest.approx(
            np.mean([d["forecast"]["value"] for d in row["domains"].values()])
        )


def test_the_larger_model_says_whether_the_ranking_held(told):
    confirm = told[1]["confirm"]
    assert (confirm["model"], confirm["best"], confirm["ranking"]) == ("ladder-3", "more-numbers", "held")
    assert confirm["difference"]["measured"]["low"] > 0 < confirm["difference"]["forecast"]["value"]
    errors = [of["error"] for by_mix in confirm["domains"].values() for of in by_mix.values()]
    assert len(errors) == 4
    assert confirm["largest_error"] == max(map(abs, errors)) < 0.2
    of = confirm["domains"]["numbers"]["default"]
    assert of["error"] == pytest.approx(of["forecast"]["value"] / of["measured"]["value"] - 1)


def test_the_result_is_an_artifact_that_names_its_inputs(told, data):
    out, result = told
    assert json.loads((out / "search.json").read_text()) == result
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"tokens", "tokenizer", "candidates"}
    assert manifest["counts"] == {"candidates": 3, "models": 8, "winner": "default"}
    for name, content in result["runs"].items():
        model = json.loads((out.with_name("search-models") / name / "manifest.json").read_text())
        assert model["content"] == content
        assert model["inputs"]["tokens"]["content"] == manifest["inputs"]["tokens"]["content"]
    text = (out / "search.txt").read_text()
    assert "forecast for flagship" in text
    assert "the ranking held" in text
    assert "With two sizes the forecast cannot be tested" in text


def test_the_default_mix_is_trained_as_the_recipe_trains_it(told, data, tmp_path):
    """One training loop: at the recipe's own length the search's model is the recipe's model."""
    result = search(data, tmp_path / "out", steps=None, runs=tmp_path / "runs", models=("ladder-1", "ladder-2"))
    alone = pretrain(
        recipe().job("ladder-1"), tokens=data / "tokens", tokenizer=data / "tokenizer", out=tmp_path / "alone"
    )
    weights = (tmp_path / "alone" / "model.safetensors").read_bytes()
    found = [path for path in (tmp_path / "runs").glob("ladder-1-*/model.safetensors") if path.read_bytes() == weights]
    assert len(found) == 1
    assert result["steps"] == alone["steps"] == 60
    assert result["tokens"] == alone["trained_tokens"]


def test_a_search_that_was_cut_off_trains_only_what_is_missing(told, data, tmp_path, monkeypatch):
    trained = []

    def cut(job, **options):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(job.name)
        return pretrain(job, **options)

    monkeypatch.setattr(training, "pretrain", cut)
    with pytest.raises(KeyboardInterrupt):
        search(data, tmp_path / "out", confirm="ladder-3")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(training, "pretrain", lambda *a, **k: trained.append(a[0].name) or pretrain(*a, **k))
    assert search(data, tmp_path / "out", confirm="ladder-3") == told[1]
    assert len(trained) == 8


def test_another_search_takes_over_the_models_that_it_shares(told, data, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(training, "pretrain", lambda *a, **k: trained.append(a[0].name) or pretrain(*a, **k))
    (tmp_path / "two.toml").write_text(
        "[candidates.half]\nmix = { numbers = 0.5, prose = 0.5 }\n[weights]\nprose = 2.0\n"
    )
    result = search(data, tmp_path / "out", candidates=tmp_path / "two.toml", runs=told[0].with_name("search-models"))
    assert trained == ["ladder-1", "ladder-2"]  # numbers first: another order of sources, another mix to the key
    half, more = by_name(result)["half"], by_name(told[1])["default"]
    assert by_name(result)["default"]["domains"] == more["domains"]
    assert half["score"]["value"] == half["domains"]["prose"]["forecast"]["value"]
    assert result["weights"] == {"prose": 2.0}


def test_seeds_are_averaged(told, data, tmp_path):
    runs = told[0].with_name("search-models")
    (tmp_path / "one.toml").write_text("[candidates.more-numbers]\nmix = { prose = 1, numbers = 1 }\n")
    result = search(data, tmp_path / "out", candidates=tmp_path / "one.toml", seeds=2, runs=runs)
    assert result["seeds"] == 2
    assert len(result["runs"]) == 2 * 2 * 2
    one, two = (by_name(r)["default"]["domains"]["prose"]["measured"]["ladder-1"] for r in (told[1], result))
    assert one != two
    assert one == pytest.approx(two, rel=0.1)


def test_a_candidate_is_tried_with_the_shares_its_caps_leave(data):
    config = CandidatesConfig.model_validate({"candidates": {"more": {"mix": {"prose": 0.2, "numbers": 0.8}}}})
    capped = recipe("pretrain.max_epochs={numbers = 0.2}")
    made = make_candidates(capped.herd_job(), config, data / "tokens", steps=20, source="file")
    assert [candidate.name for candidate in made] == ["default", "more"]
    more = made[1]
    assert more.asked == {"prose": 0.2, "numbers": 0.8}
    assert more.plan.sources["numbers"].epochs == pytest.approx(0.2)
    tried = {part.source: part.share for part in more.pretrain.mix}
    assert tried == {part.source: part.share for part in more.plan.config.mix}
    assert tried["numbers"] < 0.5
    assert more.pretrain.max_epochs == {}


def test_a_run_in_small_has_the_proportions_of_the_whole(data):
    whole = recipe(
        "pretrain.steps=200",
        "pretrain.train.anneal_steps=40",
        "pretrain.train.warmup_steps=10",
        "pretrain.mix_phases=[{from_tokens = 10240, mix = [{source = 'prose', share = 1}]}]",
        "pretrain.long_context=[{seq_len = 64, tokens = 1280, tokens_per_step = 128}]",
        "herd.max_seq_len=256",
    )
    config = CandidatesConfig.model_validate({"draw": {"count": 1}})
    small = make_candidates(whole.herd_job(), config, data / "tokens", steps=95, source="file")[0].pretrain
    assert [(s.kind, s.steps) for s in timeline(small)] == [("main", 40), ("main", 35), ("anneal", 20)]
    assert small.train.warmup_steps == 5


def test_drawn_candidates_lie_around_the_recipes_mix(data):
    draw = {"draw": {"count": 40, "concentration": 50.0}}
    made, again = (
        make_candidates(
            recipe().herd_job(), CandidatesConfig.model_validate(draw), data / "tokens", steps=20, source="file"
        )
        for _ in range(2)
    )
    assert [c.asked for c in made] == [c.asked for c in again]
    shares = [candidate.asked["numbers"] for candidate in made[1:]]
    assert len(set(shares)) == 40
    assert np.mean(shares) == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / 51 / 40) ** 0.5)
    assert 0.5 < np.std(shares) / (0.2 * 0.8 / 51) ** 0.5 < 1.5
    assert all(sum(candidate.asked.values()) == pytest.approx(1) for candidate in made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no candidates: give"),
        (
            "[candidates.a]\nmix = { proze = 1 }",
            r"candidate a: .*pretrain.mix.0.source = 'proze' is not a source; choose",
        ),
        ("[candidates.a]\nmix = { prose = 0 }", "candidates.a.mix.prose = 0"),
        ("[candidates.default]\nmix = { prose = 1 }", "candidates.default is the recipe's own mix"),
        ("[draw]\ncount = 2\nfixed = ['web']", "draw.fixed names web"),
        ("[draw]\ncount = 2\nfixed = ['prose']", "draw has 1 free sources"),
        (
            "[draw]\ncount = 2\n[weights]\nmaths = 1",
            "weights.maths does not name a held-out set. The sets are prose, numbers",
        ),
        ("[draw]\ncount = 2\nkount = 2", "unknown key draw.kount. Did you mean draw.count?"),
    ],
)
def test_a_file_of_candidates_that_cannot_be_tried_is_refused(data, tmp_path, text, message):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        search(data, tmp_path / "out", candidates=tmp_path / "bad.toml")


def test_what_cannot_be_searched_is_refused(data, tmp_path, told):
    with pytest.raises(InputError, match="no model giant"):
        search(data, tmp_path / "out", models=("ladder-1", "giant"))
    with pytest.raises(InputError, match="models of a single size"):
        search(data, tmp_path / "out", models=("ladder-1",))
    with pytest.raises(InputError, match="ladder-2 is one of the models that forecast"):
        search(data, tmp_path / "out", confirm="ladder-2")
    with pytest.raises(InputError, match="exists"):
        search(data, told[0])
    done = herdlm(
        "mix",
        "search",
        "recipes/tiny.toml",
        "--tokens",
        tmp_path,
        "--tokenizer",
        data / "tokenizer",
        "--out",
        tmp_path / "o",
        "--candidates",
        data / "candidates.toml",
    )
    assert done.returncode == 2
    assert "web-validation is not a token shard" in done.stderr


def test_the_command_line_prints_the_table(told, data, tmp_path):
    keys = [part for key in KEYS for part in ("--set", key)]
    done = herdlm(
        "mix",
        "search",
        "recipes/tiny.toml",
        "--tokens",
        data / "tokens",
        "--tokenizer",
        data / "tokenizer",
        "--candidates",
        data / "candidates.toml",
        "--out",
        tmp_path / "out",
        "--models",
        "ladder-1,ladder-2",
        "--steps",
        40,
        "--confirm",
        "ladder-3",
        "--runs",
        told[0].with_name("search-models"),
        *keys,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (told[0] / "search.txt").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_on_the_sample_crawl_a_mix_heavier_in_german_is_forecast_to_know_german_better(tmp_path):
    """Real pages, the recipe's ladder and its flagship: forecasts within 5% of what the flagship then measures."""
    sources = "{english = {languages = ['en']}, german = {languages = ['de']}, romance = {languages = ['fr', 'es']}}"
    mixes = {"english": 0.6, "german": 0.2, "romance": 0.2}
    main, anneal = (
        "[" + ", ".join(f"{{source = '{n}{end}', share = {s}}}" for n, s in mixes.items()) + "]"
        for end in ("", "-anneal")
    )
    changes = (
        f"tokens.sources={sources}",
        "tokens.skill_documents=2000",
        "tokens.max_text_megabytes={}",
        f"pretrain.mix={main}",
        f"pretrain.anneal_mix={anneal}",
    )
    keys = [part for change in changes for part in ("--set", change)]
    done = herdlm("run", "recipes/tiny.toml", "--until", "tokens", "--out", tmp_path / "run", *keys)
    assert done.returncode == 0, done.stderr
    (tmp_path / "mixes.toml").write_text(
        "[candidates.german]\nmix = { english = 0.3, german = 0.5, romance = 0.2 }\n"
        "anneal_mix = { english-anneal = 0.3, german-anneal = 0.5, romance-anneal = 0.2 }\n"
    )
    stages = tmp_path / "run" / "stages"
    told = mix_search(
        read_recipe(ROOT / "recipes" / "tiny.toml", changes).herd_job(),
        tokens=stages / "tokens",
        tokenizer=stages / "tokenizer",
        candidates=tmp_path / "mixes.toml",
        out=tmp_path / "search",
        steps=100,
        confirm="flagship",
    )
    rows = by_name(told)
    german, english = (
        {name: row["domains"][domain]["forecast"] for name, row in rows.items()} for domain in ("german", "english")
    )
    assert german["german"]["high"] < german["default"]["low"]
    assert english["default"]["high"] < english["german"]["low"]
    assert told["confirm"]["ranking"] == "held"
    assert told["confirm"]["largest_error"] < 0.05
