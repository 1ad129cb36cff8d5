"""Byte ranges against their definition; over HTTP they are in test_http.py."""

from hypothesis import given
from hypothesis import strategies as st

from hyvideo_rt.server.ranges import Slice, Unsatisfiable, parse_range


@given(st.integers(0, 30), st.integers(0, 40) | st.none(), st.integers(0, 40) | st.none())
def test_ranges_are_those_of_a_slice(size: int, first: int | None, last: int | None) -> None:
    """Against the definition in RFC 9110, section 14.1.2, byte by byte."""
    data = list(range(size))
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if first is None and last is None:
        expected = data
    elif first is None:
        expected = data[-last:] if last else []
    elif last is not None and last < first:
        expected = data
    else:
        expected = [i for i in data if i >= first and (last is None or i <= last)]
    try:
        part = parse_range(header, size) or Slice(0, size)
        assert data[part.start : part.stop] == expected
        assert 0 <= part.start < part.stop <= size or part == Slice(0, size)
    except Unsatisfiable:
        assert expected == []
