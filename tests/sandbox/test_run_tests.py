"""Tests in a process beside the code: what crosses between the two, and what the verdict says."""

import pytest

from herdlm.sandbox.limits import Limits


def passes(sandbox, code, tests, **options):
    result = sandbox.run_tests(code, tests, **options)
    assert result.passed, result.reason


ECHO = "def echo(x):\n    return x\n"


@pytest.mark.parametrize(
    "value",
    [
        "None",
        "True",
        "0",
        "-(2 ** 63)",
        "10 ** 4000",
        "-(10 ** 30)",
        "0.1",
        "-0.0",
        "float('inf')",
        "5e-324",
        "1 + 2j",
        "complex('nan+infj')",
        "'text'",
        "'\\ud800 \\x00 é 💡'",
        "b'\\x00\\xff'",
        "bytearray(b'ab')",
        "[]",
        "[1, [2.0, 'a', None], (3,)]",
        "(1, (2, [3]))",
        "{1, 2}",
        "frozenset({frozenset({1}), 'a'})",
        "{'a': [1], (1, 2): {3: 4}, None: None}",
        "range(3, 10, 2)",
        "...",
        "int",
        "type(None)",
        "__import__('decimal').Decimal('1.10')",
        "__import__('fractions').Fraction(10 ** 30, 7)",
        "__import__('datetime').datetime(2026, 12, 1, 5, 30)",
        "__import__('datetime').date(2026, 12, 1)",
        "__import__('datetime').timedelta(1, 2, 3)",
        "__import__('collections').deque([1, 2])",
    ],
)
def test_values_cross_in_both_directions_and_keep_their_types(sandbox, value):
    passes(
        sandbox,
        ECHO,
        f"given = {value}\nfound = echo(given)\nassert type(found) is type(given)\nassert repr(found) == repr(given)",
    )


def test_not_a_number_stays_one(sandbox):
    passes(sandbox, ECHO, "import math\nassert math.isnan(echo(math.nan)) and math.isnan(echo([math.nan])[0])")


def test_objects_of_a_subclass_cross_as_their_base(sandbox):
    code = (
        "from collections import Counter, OrderedDict, defaultdict, namedtuple\nfrom enum import IntEnum\n"
        "Color = IntEnum('Color', 'RED GREEN')\nPoint = namedtuple('Point', 'x y')\n"
        "def counter(): return Counter('aab')\ndef color(): return Color.GREEN\ndef point(): return Point(1, 2)\n"
    )
    tests = (
        "assert counter() == {'a': 2, 'b': 1}\nassert color() == 2\nassert point() == (1, 2) and type(point()) is tuple"
    )
    passes(sandbox, code, tests)


def test_changes_of_arguments_come_back(sandbox):
    code = (
        "def sort(values):\n    values.sort()\n    return values\n"
        "def deep(tree):\n    tree['a'][0].append(tree['b'].pop())\n    tree['new'] = tree['a']\n"
        "def swap(one, other):\n    one[:], other[:] = other[:], one[:]\n"
        "def add(values, *, to):\n    to.update(values)\n"
    )
    tests = (
        "given = [3, 1, 2]\nassert sort(given) is given and given == [1, 2, 3]\n"
        "inner = []\ntree = {'a': [inner], 'b': {7}}\nassert deep(tree) is None\n"
        "assert inner == [7] and tree['b'] == set() and tree['new'] is tree['a']\n"
        "x, y = [1], [2]\nswap(x, y)\nassert (x, y) == ([2], [1])\n"
        "found = {1}\nadd([2, 3], to=found)\nassert found == {1, 2, 3}\n"
    )
    passes(sandbox, code, tests)


def test_what_an_argument_holds_twice_is_one_thing(sandbox):
    code = (
        "def both(pair):\n    pair[0].append(1)\n    return pair[0] is pair[1]\n"
        "def loop():\n    x = []\n    x.append(x)\n    return x\n"
        "def fail(values):\n    values.append(1)\n    raise KeyError('no')\n"
    )
    tests = (
        "one = []\nassert both([one, one]) and one == [1]\nassert not both([[], []])\n"
        "found = loop()\nassert found[0] is found\n"
        "values = []\ntry:\n    fail(values)\nexcept KeyError as error:\n"
        "    assert error.args == ('no',) and values == [1]\n"
        "else:\n    assert False\n"
    )
    passes(sandbox, code, tests)


def test_generators_are_read_as_far_as_the_tests_ask(sandbox):
    code = (
        "import itertools\ndef squares():\n    for n in itertools.count():\n        yield n * n\n"
        "def pairs(n):\n    return zip(range(n), 'abc')\ndef up(n):\n    yield from range(n)\n"
    )
    tests = (
        "from itertools import islice\nassert list(islice(squares(), 4)) == [0, 1, 4, 9]\n"
        "numbers = squares()\nassert next(numbers) == 0 and next(numbers) == 1\n"
        "assert list(pairs(2)) == [(0, 'a'), (1, 'b')]\nassert sum(up(4)) == 6 and up(2) != [0, 1]\n"
        "assert next(up(0), 'empty') == 'empty'\n"
    )
    passes(sandbox, code, tests)


def test_exceptions_cross_by_the_names_of_their_classes(sandbox):
    code = (
        "class Own(ValueError):\n    pass\n"
        "def fail(kind):\n    raise {'own': Own, 'index': IndexError}[kind]('why', 7)\ndef deep(): return deep()\n"
    )
    tests = (
        "for kind, wanted in (('own', Own), ('own', ValueError), ('index', LookupError)):\n"
        "    try:\n        fail(kind)\n"
        "    except wanted as error:\n        assert error.args == ('why', 7)\n    else:\n        assert False\n"
        "try:\n    deep()\nexcept RecursionError:\n    pass\nelse:\n    assert False\n"
    )
    passes(sandbox, code, tests)
    assert sandbox.run_tests(code, "fail('own')").reason == "Own: why, 7 at line 1: fail('own')"


def test_objects_without_a_literal_are_handles(sandbox):
    code = (
        "class Node:\n    count = 0\n    def __init__(self, value): self.value, self.next = value, None\n"
        "    def __eq__(self, other): return isinstance(other, Node) and self.value == other.value\n"
        "    def __lt__(self, other): return self.value < other.value\n    def __hash__(self): return self.value\n"
        "    def __len__(self): return 3\n    def __getitem__(self, key): return key * 2\n"
        "    def __repr__(self): return 'node'\n"
        "    def double(self, *, by=2): return Node(self.value * by)\n"
        "def chain(node): return node.next.value\ndef nodes(n): return [Node(i) for i in range(n)]\nroot = Node(5)\n"
    )
    tests = (
        "first = Node(1)\nfirst.next = Node(2)\nassert chain(first) == 2 and first.next.value == 2\n"
        "assert first == Node(1) and first != Node(2) and first != 1 and not first == 'node'\n"
        "assert isinstance(first, Node) and not isinstance(1, Node)\nassert first.double(by=3).value == 3\n"
        "assert max(nodes(3)).value == 2 and [n.value for n in sorted([Node(2), Node(1)])] == [1, 2]\n"
        "assert len(first) == 3 and first[4] == 8 and repr(first) == str(first) == 'node' and bool(first)\n"
        "assert {first: 'x'}[first] == 'x' and root.value == 5\nroot.value = 6\nassert root.value == 6\n"
        "Node.count = 4\nassert first.count == 4\ndel first.next\nassert not hasattr(first, 'next')\n"
        "try:\n    first < 1\nexcept TypeError:\n    pass\nelse:\n    assert False\n"
    )
    passes(sandbox, code, tests)


def test_functions_of_the_tests_can_be_passed(sandbox):
    code = (
        "def apply(function, values): return [function(v) for v in values]\n"
        "def compose(f, g): return lambda x: f(g(x))\n"
    )
    tests = (
        "def outer(x):\n    return apply(lambda y: y + x, [1, 2])\n"
        "assert apply(outer, [10, 20]) == [[11, 12], [21, 22]]\nassert apply(len, ['a', 'bc']) == [1, 2]\n"
        "assert compose(lambda x: x + 1, lambda x: x * 2)(5) == 11\n"
        "try:\n    apply(lambda x: 1 / x, [0])\nexcept ZeroDivisionError:\n    pass\nelse:\n    assert False\n"
    )
    passes(sandbox, code, tests)


def test_names_of_modules_that_the_code_imported_are_there(sandbox):
    passes(
        sandbox,
        "import math, collections as c\nfrom os import path\n",
        "assert math.pi > 3 and c.Counter and path.join",
    )


def test_a_built_in_name_is_the_codes_only_as_the_entry_point(sandbox):
    code, tests = "def sum(a, b):\n    return a + b\n", "assert sum(2, 3) == 5"
    passes(sandbox, code, tests, entry_point="sum")
    assert "TypeError" in sandbox.run_tests(code, tests).reason


def test_names_of_the_prelude_come_before_the_codes(sandbox):
    code = "def encode(x): return 0\ndef decode(x): return 0\n"
    prelude = "def encode(x): return x + 1\ndef decode(x):\n    '''To do.'''\n"
    tests = "assert decode(encode(4)) == {}"
    assert sandbox.run_tests(code, tests.format(0), entry_point="decode", prelude=prelude).passed
    assert not sandbox.run_tests(code, tests.format(4), entry_point="decode", prelude=prelude).passed
    missing = sandbox.run_tests("", tests.format(4), entry_point="decode", prelude=prelude)
    assert missing.reason == "NameError: name 'decode' is not defined at line 1: assert decode(encode(4)) == 4"


@pytest.mark.parametrize(
    ("code", "tests", "reason"),
    [
        ("def f(): return 1", "assert f() == 1", "passed"),
        ("def f(): return 1", "assert f() == 2", "an assertion failed at line 1: assert f() == 2"),
        (
            "def f(): return 1",
            "x = 1\nassert f() == 2, 'wrong'",
            "AssertionError: wrong at line 2: assert f() == 2, 'wrong'",
        ),
        ("def g(): return 1", "assert f() == 1", "NameError: name 'f' is not defined at line 1: assert f() == 1"),
        ("def f(:", "pass", "the code raised SyntaxError: invalid syntax"),
        ("1 / 0", "pass", "the code raised ZeroDivisionError: division by zero"),
        ("import os; os._exit(0)", "pass", "the code ended its process"),
        ("while True: print('x' * 1000)", "pass", "the code reached its limit of output"),
        ("import time; time.sleep(60)", "pass", "the code reached its limit of timeout"),
        ("def f(x): pass", "class A: pass\nf(A())", "TypeError: an object of type A cannot be passed"),
    ],
)
def test_the_reason_says_why(sandbox, code, tests, reason):
    seconds = 0.5 if "timeout" in reason else 30
    result = sandbox.run_tests(code, tests, limits=Limits(wall_seconds=seconds, output_bytes=1000))
    assert result.passed is (reason == "passed")
    assert result.reason.startswith(reason)


def test_what_the_code_does_at_its_top_stays_in_its_process(sandbox):
    code = "import builtins, sys\nbuiltins.sorted = lambda x: 5\nsys.modules['math'] = None\nvalues = [1]\n"
    passes(sandbox, code, "import math\nassert sorted([2, 1]) == [1, 2] and values == [1]")


def test_files_are_beside_the_code(sandbox):
    passes(sandbox, "def f(): return open('a.txt').read()", "assert f() == 'x'", files={"a.txt": "x"})


def test_dates_of_a_subclass_and_classes_with_a_metaclass_cross(sandbox):
    code = (
        "import datetime, decimal\nclass Day(datetime.date): pass\nclass Cash(decimal.Decimal):\n"
        "    def __str__(self): return 'much'\ndef day(): return Day(2024, 2, 29)\ndef cash(): return Cash('1.5')\n"
        "class Meta(type):\n    def __eq__(self, other): return True\n    __hash__ = type.__hash__\n"
        "class Value(metaclass=Meta):\n    def __init__(self, a): self.a = a\ndef value(): return Value(7)\n"
    )
    tests = (
        "from datetime import date\nfrom decimal import Decimal\nassert day() == date(2024, 2, 29)\n"
        "assert cash() == Decimal('1.5')\nassert value().a == 7\nassert Value(8).a == 8\n"
    )
    assert sandbox.run_tests(code, tests).reason == "passed"


@pytest.mark.parametrize(
    ("code", "tests", "passes"),
    [
        ("import math\ndef root(x): return x**0.5", "assert math.isclose(root(2) ** 2, 2)", True),
        (
            "class math:\n    isclose = lambda *a: True\ndef root(x): return x",
            "assert math.isclose(root(2) ** 2, 2)",
            False,
        ),
        (
            "from datetime import datetime\ndef day(d): return d.day",
            "assert day(datetime.fromisoformat('2024-02-29')) == 29",
            True,
        ),
        ("from copy import copy\ndef twice(x): return [*x, *copy(x)]", "assert twice(copy([1])) == [1, 1]", True),
        ("class queue:\n    def put_two(self): return 2", "assert queue().put_two() == 2", True),
        ("class queue:\n    kind = 'fast'", "assert queue.kind == 'fast'", True),
    ],
)
def test_modules_that_tests_use_are_the_real_ones(sandbox, code, tests, passes):
    assert sandbox.run_tests(code, tests).passed == passes
