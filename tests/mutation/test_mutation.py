"""The mutator on pieces of code, and a whole campaign on a toy project."""

import json
import sys
import textwrap

import pytest

from a2d_d2.mutation.campaign import read_explanations, run_campaign, summarize
from a2d_d2.mutation.operators import mutants
from a2d_d2.mutation.plan import Module, planned
from a2d_d2.utils.repository import REPOSITORY


def added(source, *names):
    """The changed lines of all mutants."""
    return [
        line[1:]
        for mutant in mutants(textwrap.dedent(source), "m.py", names)
        for line in mutant.diff.splitlines()
        if line.startswith("+")
    ]


# ---------------------------------------------------------------- the changes


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", ["x = a <= b", "x = a >= b"]),
        ("x = a == b", ["x = a != b"]),
        ("x = a in b", ["x = a not in b"]),
        ("x = a is None", ["x = a is not None"]),
        ("x = a < b < c", ["x = a <= b < c", "x = a >= b < c", "x = a < b <= c", "x = a < b >= c"]),
        ("x = a + b * c", ["x = a - b * c", "x = a + b / c"]),
        ("x = a // b", ["x = a / b"]),
        ("x = a & b", ["x = a | b"]),
        ("x += a", ["x -= a"]),
        ("x = a and b", ["x = a or b"]),
        ("x = not a", ["x = a"]),
        ("x = [~a, f(-b)]", ["x = [a, f(-b)]", "x = [~a, f(b)]"]),
        ("x = 2", ["x = 3", "x = 1"]),
        ("x = 0.5", ["x = 0.55"]),
        ("x = 0.0", ["x = 0.1"]),
        ("x = True", ["x = False"]),
        ("x = min(a, y.argmax())", ["x = max(a, y.argmax())", "x = min(a, y.argmin())"]),
        # Left alone
        ("x = 'text'", []),
        ("x: int | None", []),
        ("def f(a: b | c) -> d | e: pass", []),
        ("@g(1)\ndef f(): pass", []),
        ("raise ValueError(1 + 1)", []),
        ("x = f'{1 + 1}'", []),
        ("x = zip(a, b, strict=True)", []),
        ("x = f(a, keep=True)", ["x = f(a, keep=False)"]),
    ],
)
def test_changes(source, expected):
    assert sorted(added(source)) == sorted(expected)


def test_every_mutant_is_one_change_of_the_whole_module():
    source = (
        "import os\n\ndef f(a):\n    return a + 1  # a comment\n\ndef g(a):\n    return a + 1\n"
    )
    found = mutants(source, "m.py")
    assert [m.line for m in found] == [4, 4, 4, 7, 7, 7]
    assert [m.function for m in found] == ["f"] * 3 + ["g"] * 3
    for mutant in found:
        values = {}
        exec(mutant.source, values)
        assert sorted((values["f"](1), values["g"](1)))[0] in (0, 1, 2, 3)
        assert (values["f"](1) == 2) != (values["g"](1) == 2)
    assert found[0].diff == "-return a + 1\n+return a - 1"


def test_ids_hold_while_the_code_around_changes():
    before = mutants("def f(a):\n    return a < 1\n", "m.py")
    after = mutants("x = 3\n\n\ndef f(a):\n    b = 2\n    return a < 1\n", "m.py")
    ids = [m.id for m in before]
    assert len(set(ids)) == 4
    assert set(ids) < {m.id for m in after}
    other = mutants("def f(a):\n    return a < 1\n", "n.py")
    assert not set(ids) & {m.id for m in other}
    twice = mutants("def f(a):\n    a < 1\n    a < 1\n", "m.py")
    assert len({m.id for m in twice}) == 8


def test_only_within_the_names():
    source = """
        LIMIT = 1
        class A:
            def f(self): return 2 + 2
            def g(self): return 3
    """
    assert added(source, "LIMIT") == ["LIMIT = 2", "LIMIT = 0"]
    assert len(added(source, "A.f", "A.g")) == 5 + 2
    assert len(added(source, "A")) == 7
    with pytest.raises(ValueError, match=r"m\.py has nothing to mutate in 'A\.h'"):
        added(source, "A.h")


# ---------------------------------------------------------------- a campaign

TOY = '''
def clamp(x, low, high):
    """x, but at least low and at most high."""
    if x > high:
        return high
    return max(x, low)


def wait(n):
    while n:
        n ^= n
'''
TESTS = """
from toy.numbers import clamp, wait

def test_clamp():
    assert [clamp(x, 2, 4) for x in (1, 3, 5)] == [2, 3, 4]

def test_wait():
    wait(3)
"""


@pytest.fixture
def toy(tmp_path):
    """A project with a module of four mutants, its tests, and the plan for it."""
    for name, text in {
        "toy/__init__.py": "",
        "toy/numbers.py": TOY,
        "tests/test_numbers.py": TESTS,
    }.items():
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).write_text(text)
    module = Module("toy/numbers.py", ("tests/test_numbers.py",))
    return tmp_path / "project", module, tmp_path / "record.json"


def campaign(toy, **options):
    root, module, record = toy
    return run_campaign(root, [module], record, package="toy", progress=False, **options)


def test_a_campaign_on_a_toy_project(toy, monkeypatch):
    monkeypatch.setattr("a2d_d2.mutation.campaign._CPU_EXTRA", 0)  # for the loop without end
    root, module, record = toy
    outcomes = campaign(toy, workers=2)
    result = summarize(root, [module], outcomes, {})
    of_toy = result["modules"]["toy/numbers.py"]
    # x <= high and min for max are noticed, |= for ^= ends never. At x == high both ways are equal.
    counts = {key: of_toy[key] for key in ("tried", "killed", "timed_out", "unexplained")}
    assert counts == {"tried": 4, "killed": 2, "timed_out": 1, "unexplained": 1}
    (equal,) = of_toy["survivors"]
    assert equal["diff"] == "-if x > high:\n+if x >= high:"
    assert (equal["function"], equal["line"], equal["reason"]) == ("clamp", 4, None)
    assert (root / "toy" / "numbers.py").read_text() == TOY

    # Nothing is tried again, and a reason explains.
    monkeypatch.setattr("a2d_d2.mutation.campaign._run_all", None)
    assert campaign(toy) == outcomes == json.loads(record.read_text())
    result = summarize(root, [module], outcomes, {equal["id"]: "equal", "f" * 12: "gone"})
    assert (result["explained"], result["unexplained"]) == (1, 0)
    assert result["stale_explanations"] == ["f" * 12]


def test_better_tests_try_all_again(toy):
    root, module, record = toy
    module = Module(module.path, module.tests, ("clamp",))
    toy = root, module, record
    assert list(campaign(toy, workers=1)[module.path]["outcomes"].values()).count("survived") == 1
    extra = "\n\ndef test_ends():\n    assert clamp(True, 0, 1) is True\n"
    (root / "tests" / "test_numbers.py").write_text(TESTS + extra)
    outcomes = campaign(toy, workers=1)[module.path]["outcomes"]
    assert list(outcomes.values()) == ["killed"] * 3


def test_tests_that_fail_by_themselves_are_named(toy):
    root, _, _ = toy
    (root / "tests" / "test_numbers.py").write_text("def test_it():\n    assert False\n")
    with pytest.raises(OSError, match=r"without any change tests/test_numbers\.py failed"):
        campaign(toy)


def test_another_package_than_the_copy_is_noticed(toy):
    root, module, _ = toy
    (root / "tests" / "test_numbers.py").write_text(
        "import sys, types\n"
        "sys.modules['toy'] = types.SimpleNamespace(__file__='/elsewhere/toy/__init__.py')\n"
        "def test_it(): pass\n"
    )
    with pytest.raises(OSError, match="toy was imported from /elsewhere"):
        campaign(toy)


def test_a_limit_spreads_over_the_module(toy):
    outcomes = campaign(toy, limit=2, workers=1)["toy/numbers.py"]["outcomes"]
    assert len(outcomes) == 2


# ---------------------------------------------------------------- the plan and the reasons


def _bare(diff):
    """Python 3.10 writes tuples in parentheses where later ones do not; identities follow."""
    return diff.translate(str.maketrans("", "", "()"))


def test_the_plan_and_the_reasons_fit_the_package():
    known = {}
    for module in planned():
        assert all((REPOSITORY / test).exists() for test in module.tests)
        source = (REPOSITORY / module.path).read_text(encoding="utf-8")
        found = mutants(source, module.path, module.names)
        assert found
        known |= {mutant.id: (module.path, mutant.diff) for mutant in found}
    path = REPOSITORY / "tools" / "mutants_explained.json"
    bare = {(module, _bare(diff)) for module, diff in known.values()}
    for entry in json.loads(path.read_text(encoding="utf-8")):
        assert (entry["module"], _bare(entry["diff"])) in bare, "run tools/mutate.py"
        if sys.version_info >= (3, 11):
            assert known[entry["id"]] == (entry["module"], entry["diff"]), "run tools/mutate.py"
    assert all(len(reason) > 20 for reason in read_explanations(path).values())
    with pytest.raises(ValueError, match=r"a2d_d2/config\.py is not planned for mutation"):
        planned(["a2d_d2/config.py"])


@pytest.mark.parametrize("text", ["{", "3", '[{"id": "a"}]', '[{"id": "a", "reason": " "}]', "[1]"])
def test_broken_reasons_are_named(text, tmp_path):
    path = tmp_path / "reasons.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"reasons\.json"):
        read_explanations(path)


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"[1]", b'{"m.py": {"outcomes": 5}}', b'{"m.py": 1}']
)
def test_a_broken_record_is_named(data, toy):
    _, _, record = toy
    record.write_bytes(data)
    with pytest.raises(ValueError, match=f"{record} is no record of mutants .*; remove it"):
        campaign(toy)
