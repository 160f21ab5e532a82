"""Old tests of the inventory: each is in the tree, or the test that replaces it is."""

import ast
from pathlib import Path

HERE = Path(__file__).parent


def test_old_tests_are_replaced():
    present = {
        f"tests/{path.relative_to(HERE.parents[1]).as_posix()}::{node.name}"
        for path in HERE.parents[1].rglob("test_*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    moved = {test.rpartition("/")[2] for test in present}  # files keep their names
    lines = (HERE / "tests.txt").read_text("utf-8").splitlines()
    old = {line.partition("[")[0] for line in lines if line.startswith("tests/")}
    lines = (HERE / "renamed_tests.txt").read_text("utf-8").splitlines()
    new = dict(line.split(" -> ") for line in lines)
    kept = {test for test in old - new.keys() if test.rpartition("/")[2] in moved}
    named = {test for test in old & new.keys() if set(new[test].split(", ")) <= present}
    gone = {test for test in old & new.keys() if new[test].startswith("removed: ")}
    assert old - kept - named - gone == set()
