"""Reading keeps what teaches something, and counts the rest by reason."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.data.check import check
from herdlm.data.counts import Counts
from herdlm.data.formats.detect import FORMS, convert, known_form
from herdlm.data.read import converted, read_dialogs, read_preferences, read_thumbs, sieved
from herdlm.data.row import Row, make_row
from herdlm.data.source import Source, parse_source
from herdlm.data.useless import Sieve
from herdlm.data.write import write_records


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


ASK, ANSWER = turn("user", "2+2?"), turn("assistant", "4")


class Words:
    """A chat format with a token for each word: its answers are targets, its template refuses two users running."""

    class Rendered:
        def __init__(self, tokens, weights):
            self.tokens, self.weights = tokens, weights

    def render(self, messages, *, tools=None, first=0):
        roles = [message["role"] for message in messages]
        if any(a == b == "user" for a, b in zip(roles, roles[1:], strict=False)):
            raise InputError("roles must alternate", "Correct them")
        tokens, weights = [], []
        for index, message in enumerate(messages):
            words = message["content"].split()
            own = message["role"] == "assistant" and index >= first
            tokens += words
            weights += [message.get("weight", 1.0) if own else 0.0] * len(words)
        return self.Rendered(tokens, weights)


def file(tmp_path, rows, name="a.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path)


def reasons(counts):
    assert counts.read == counts.kept + sum(dropped.count for dropped in counts.dropped.values())
    return {reason: dropped.count for reason, dropped in counts.dropped.items()}


def test_dialogs_that_teach_nothing_are_dropped_and_counted(tmp_path):
    rows = [
        [ASK, ANSWER],
        [ASK],
        [],
        [ASK, turn("assistant", " ")],
        [ASK, turn("assistant", "4", weight=0)],
        [ASK, turn("assistant", "5", weight=0), ASK, ANSWER],
        [ASK, ANSWER],
    ]
    dialogs, counts = read_dialogs([file(tmp_path, [{"messages": row} for row in rows])])
    assert [d["messages"] for d in dialogs] == [rows[0], [*rows[5][:1], turn("assistant", "5", weight=0), ASK, ANSWER]]
    assert reasons(counts) == {
        "no assistant message": 2,
        "only empty answers": 1,
        "all answers have weight 0": 1,
        "duplicate": 1,
    }
    assert counts.dropped["duplicate"].examples == [f"{tmp_path / 'a.jsonl'}, line 7"]


def test_pairs_that_teach_nothing_are_dropped_and_counted(tmp_path):
    other = turn("assistant", "5")
    rows = [
        {"prompt": [ASK], "chosen": [ANSWER], "rejected": [ANSWER]},
        {"prompt": [ASK], "chosen": [ANSWER], "rejected": [turn("assistant", "")]},
        {"prompt": [ASK], "chosen": [ASK, ANSWER], "rejected": [ASK, other]},
        {"prompt": [ASK], "chosen": [turn("user", "4")], "rejected": [other]},
        {"prompt": "", "chosen": "a", "rejected": "b"},
        {"prompt": [ASK], "chosen": [], "rejected": [other]},
    ]
    pairs, counts = read_preferences([file(tmp_path, rows)])
    assert pairs == [{"prompt": [ASK], "chosen": [ANSWER], "rejected": [other]}]
    assert reasons(counts) == {
        "equal answers": 1,
        "an empty answer": 2,
        "an answer that is not the assistant's": 1,
        "no prompt": 1,
    }
    assert counts.repaired == {"the prompt was repeated in the answers": 1}


def test_a_file_of_which_nothing_is_left_is_an_error_with_its_reasons(tmp_path):
    with pytest.raises(InputError, match=r"no row of .*a\.jsonl can be used: 1 dropped: no assistant message"):
        read_dialogs([file(tmp_path, [{"messages": [ASK]}])])


def test_lengths_and_templates_with_a_chat_format(tmp_path):
    rows = [[ASK, ANSWER], [ASK, turn("assistant", "one two three")], [ASK, turn("user", "now"), ANSWER]]
    dialogs, counts = read_dialogs([file(tmp_path, [{"messages": r} for r in rows])], chat_format=Words(), seq_len=3)
    assert [d["messages"] for d in dialogs] == rows[:1]
    assert reasons(counts) == {"too long for 3 tokens": 1, "refused by the chat template: roles must alternate": 1}
    pair = {"prompt": "q", "chosen": "a", "rejected": "a b c"}
    with pytest.raises(InputError, match="too long for 3 tokens"):
        read_preferences([file(tmp_path, [pair])], chat_format=Words(), seq_len=3)
    assert len(read_preferences([file(tmp_path, [pair])], chat_format=Words(), seq_len=4)[0]) == 1


def test_weights_of_files_repeat_or_choose_rows(tmp_path):
    rows = [{"prompt": f"q{n}", "completion": "a"} for n in range(10)]
    path = file(tmp_path, rows).path
    twice, counts = read_dialogs([Source(path, 2.5)], seed=3)
    assert (counts.kept, counts.used, len(twice)) == (10, 25, 25)
    assert twice[:10] == twice[10:20]
    half = [d["messages"][0]["content"] for d in read_dialogs([Source(path, 0.5)], seed=3)[0]]
    assert len(set(half)) == 5
    assert half == [d["messages"][0]["content"] for d in read_dialogs([Source(path, 0.5)], seed=3)[0]]


def test_names_with_weights(tmp_path):
    odd = tmp_path / "a:2"
    odd.write_text("{}")
    for given_, source in {
        "chats.jsonl": ("chats.jsonl", 1.0),
        "chats.jsonl:2": ("chats.jsonl", 2.0),
        "chats.jsonl:.5": ("chats.jsonl", 0.5),
        "C:\\data\\chats.jsonl": ("C:\\data\\chats.jsonl", 1.0),
        "C:\\data\\chats.jsonl:3": ("C:\\data\\chats.jsonl", 3.0),
        "a:b.jsonl": ("a:b.jsonl", 1.0),
        str(odd): (str(odd), 1.0),
        f"{odd}:4": (str(odd), 4.0),
    }.items():
        read = parse_source(given_)
        assert (str(read.path), read.weight) == source
    for bad in ("a:0", "a:-1", "a:nan", "a:inf"):
        with pytest.raises(InputError, match="is not above zero"):
            parse_source(bad)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats()
    | st.sampled_from(["", "a", "user", "####", "[{", "0", 10**400]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "from", "content", "value", "text", "type", "output", "name"]), inner
        )
    ),
    max_leaves=8,
)
KEYS = sorted(
    {key for form in FORMS for key in form.keys}
    | {
        "label",
        "system",
        "history",
        "tools",
        "functions",
        "kto_tag",
        "reward_model",
        "function",
        "verifier",
        "task",
        "entry_point",
        "test",
        "Question",
        "message_id",
        "parent_id",
        "weight",
        "response",
        "turns",
        "tests",
        "input",
        "chat",
    }
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool"]),
            "content": st.sampled_from(["", "a", "b b"]),
        },
        optional={"weight": st.sampled_from([0, 0.5, 1]), "name": st.just("n")},
    ),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON | MESSAGES, max_size=6), st.sampled_from(sorted(FORMS, key=id)), JSON
)
def test_any_row_is_read_or_refused_by_its_line(value, form, filler):
    for row_value in (value, dict.fromkeys(form.keys, filler) | value):
        row = make_row("a.jsonl", "line 7", row_value, {})
        for kind in ("dialogs", "preferences", "thumbs", "prompts", "text"):
            try:
                records = convert(row, known_form(row), kind)
            except InputError as error:
                assert str(error).startswith("a.jsonl, line 7")
            else:
                for record in records:
                    Sieve(chat_format=Words()).reason(kind, record, "a.jsonl")


CONTENT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
SAID = st.sampled_from(["user", "assistant"]).flatmap(lambda role: st.builds(turn, st.just(role), CONTENT))
ROWS = st.lists(
    st.builds(lambda a, b: {"prompt": a, "completion": b}, CONTENT, CONTENT)
    | st.builds(lambda a: {"messages": a}, st.lists(SAID, max_size=4))
    | st.builds(lambda a, b, c: {"prompt": a, "chosen": b, "rejected": c}, CONTENT, CONTENT, CONTENT)
    | st.builds(lambda a, b: {"chosen": a, "rejected": b}, st.lists(SAID, min_size=1), st.lists(SAID, min_size=1))
    | st.builds(
        lambda p, a, b: {"prompt": p, "chosen": a, "rejected": b},
        st.lists(SAID, min_size=1, max_size=2),
        st.lists(SAID, max_size=4),
        st.lists(SAID, max_size=4),
    )
    | st.builds(lambda a, b, c: {"prompt": a, "completion": b, "label": c}, CONTENT, CONTENT, st.booleans())
    | st.builds(lambda a, b: {"prompt": a, "answer": b}, CONTENT, CONTENT)
    | st.builds(lambda a, b: {"text": a, "test_list": [b]}, CONTENT, CONTENT),
    max_size=4,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_what_is_written_reads_back_as_it_was(tmp_path, rows):
    path = file(tmp_path, rows).path
    counts, sieve, kept = Counts(), Sieve(), {}
    for found in converted(path, None) if rows else ():
        if not isinstance(found, InputError):
            for record, reason, _ in sieved(found, sieve, counts):
                if reason is None:
                    kept.setdefault(found.kind, []).append(record)
    reasons(counts)
    for kind, records in kept.items():
        out = tmp_path / "out.jsonl"
        write_records(out, records)
        again = [record for found in converted(out, None) for record in found.records]
        kinds = {found.kind for found in converted(out, None)}
        out.unlink()
        assert again == records
        assert kinds == {kind}


def test_written_tools_and_checks_read_back(tmp_path):
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": None}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    dialog = {"messages": [ASK, turn("assistant", "", tool_calls=[call]), turn("tool", "1", name="f"), ANSWER]}
    check_ = {"prompt": [ASK], "instruction_id_list": ["a"], "kwargs": [{"n": 1}], "verifier": "ifeval"}
    thumb = {"prompt": [ASK], "completion": [ANSWER], "label": False, "tools": tools}
    for number, records in enumerate([[{**dialog, "tools": tools}], [check_], [thumb]]):
        write_records(tmp_path / f"{number}.jsonl", records)
        assert [r for found in converted(tmp_path / f"{number}.jsonl", None) for r in found.records] == records
    assert read_thumbs([Source(tmp_path / "2.jsonl")])[0] == [thumb]
    with pytest.raises(InputError, match="exists"):
        write_records(tmp_path / "2.jsonl", [])


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def failing():
        yield {"messages": []}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_records(tmp_path / "out.jsonl", failing())
    assert list(tmp_path.iterdir()) == []


def test_duplicates_across_files_and_rows_of_a_held_out_file(tmp_path):
    rows = [{"prompt": f"q{n}", "completion": "a"} for n in range(4)]
    first, second = file(tmp_path, rows[:3], "a.jsonl"), file(tmp_path, rows[2:], "b.jsonl")
    held_out = file(tmp_path, [rows[0], {"prompt": " Q1 ", "completion": "other"}], "held.jsonl")
    reports, kept = check([first.path, second.path], held_out=[held_out.path])
    assert [report.counts.kept for report in reports] == [3, 1]
    assert reasons(reports[1].counts) == {"duplicate of a row in another file": 1}
    leaks = {name: dropped.count for name, dropped in reports[0].leaks.items()}
    assert leaks == {"also in the held-out file": 1, "with a prompt of the held-out file": 1}
    assert len(kept) == 4


def test_rows_are_read_once_per_column(tmp_path):
    row = make_row("a.jsonl", "line 1", {"prompt": "q", "completion": "a", "extra": 1}, {})
    assert isinstance(row, Row)
    counts = Counts()
    for found in converted(file(tmp_path, [{"prompt": "q", "completion": "a", "extra": 1}]).path, None):
        list(sieved(found, Sieve(), counts))
    assert counts.unused == {"extra": 1}


PAUSE = {"type": "special", "text": "<|eot_id|>"}


def test_a_special_part_is_its_token_and_plain_text_never_is(tmp_path, tokenizer):
    from herdlm.tokens.chat_format import ChatFormat

    format = ChatFormat.of(tokenizer)
    end = tokenizer.special("<|eot_id|>")
    parts = [{"type": "text", "text": "4"}, PAUSE, {"type": "text", "text": "4"}]
    looks = [{"type": "text", "text": "4<|eot_id|>"}, {"type": "text", "text": "4"}]
    rows = [{"messages": [ASK, turn("assistant", given)]} for given in ("44", parts, looks)]
    (plain, special, text), _ = read_dialogs([file(tmp_path, rows)], chat_format=format)
    assert text["messages"][1]["content"] == "4<|eot_id|>4" != special["messages"][1]["content"] == parts
    counted = [format.render(record["messages"]).tokens.count(end) for record in (plain, special, text)]
    assert counted == [2, 3, 2]
    write_records(tmp_path / "again.jsonl", [special])
    assert read_dialogs([Source(tmp_path / "again.jsonl")])[0] == [special]
    pair = {"prompt": [ASK], "chosen": [turn("assistant", parts)], "rejected": [turn("assistant", "4<|eot_id|>4")]}
    assert read_preferences([file(tmp_path, [pair], "pairs.jsonl")], chat_format=format)[1].kept == 1


def test_a_special_part_that_the_tokenizer_lacks_is_an_error_with_its_line(tmp_path, tokenizer):
    from herdlm.tokens.chat_format import ChatFormat

    format = ChatFormat.of(tokenizer)
    unknown = {"messages": [ASK, turn("assistant", [{"type": "special", "text": "<|moo|>"}])]}
    source = file(tmp_path, [{"messages": [ASK, ANSWER]}, unknown])
    with pytest.raises(InputError, match=r"a.jsonl, line 2: the tokenizer of .* has no special token '<\|moo\|>'"):
        read_dialogs([source], chat_format=format)
    (report,), kept = check([source.path], chat_format=format)
    assert (report.unreadable, len(kept), report.counts.rows) == (1, 1, 1) and "line 2" in report.errors[0]
    assert len(read_dialogs([source])[0]) == 2
    with pytest.raises(InputError, match="has no special token"):
        format.render(unknown["messages"])
    column = file(tmp_path, [{"instruction": [PAUSE], "output": "4"}], "column.jsonl")
    with pytest.raises(InputError, match="of type 'special', not of type 'text'"):
        read_dialogs([column])
