"""The result reader on what a kill, a full disk or an editor may leave."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnjax.runs import jsonl

scalars = (
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
)
values = st.recursive(
    scalars, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=4
)
rows = st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=4)
bits_of_files = st.lists(
    st.binary(max_size=12)
    | st.sampled_from(
        [b"\n", b"{}", b'{"a": 1}\n', b"[]\n", b"\r\n", b"NaN\n", b"\xff"]
    ),
    max_size=6,
).map(b"".join)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "results.jsonl"


@pytest.mark.slow
@given(rows=rows, cut=st.integers(1, 10**6))
def test_a_kill_loses_the_row_it_interrupted_and_no_other(path, rows, cut):
    path.unlink(missing_ok=True)
    for row in rows:
        jsonl.append(path, row)
    assert jsonl.read(path) == rows
    written = path.read_bytes() if rows else b""
    end = cut % (len(written) + 1)
    path.write_bytes(written[:end])
    whole = written[:end].count(b"\n")
    assert jsonl.read(path) == rows[:whole]
    jsonl.drop_partial_line(path)
    # What is computed again goes on a line of its own.
    for row in rows[whole:]:
        jsonl.append(path, row)
    assert path.read_bytes() == written
    assert jsonl.read(path) == rows


def is_object(line):
    try:
        return isinstance(json.loads(line.decode("utf-8")), dict)
    except ValueError:
        return False


@given(written=bits_of_files)
def test_arbitrary_bytes_are_read_or_refused_by_line(path, written):
    path.write_bytes(written)
    lines = written.split(b"\n")[:-1]
    try:
        found = jsonl.read(path)
    except ValueError as error:
        number = int(str(error).split(" line ")[1].split(" ")[0])
        assert 1 <= number <= len(lines)
        assert not is_object(lines[number - 1])
        assert all(map(is_object, lines[: number - 1]))
    else:
        assert len(found) == len(lines)
    jsonl.drop_partial_line(path)
    left = path.read_bytes()
    assert written.startswith(left)
    assert left == b"" or left.endswith(b"\n")
    assert b"\n" not in written[len(left) :]
