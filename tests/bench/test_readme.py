"""The README's numbers are those of the committed results."""

import pytest

from hyvideo_rt.bench.readme import ROOT, with_tables


def test_the_tables_are_generated() -> None:
    text = (ROOT / "README.md").read_text()
    assert with_tables(text) == text, "run: python -m hyvideo_rt.bench.readme"


def test_a_lost_place_is_an_error() -> None:
    with pytest.raises(SystemExit, match="cpu"):
        with_tables("# no tables")
