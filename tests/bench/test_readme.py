"""The numbers of README.md and docs/ are those of the committed results."""

import pytest

from hyvideo_rt.bench.markdown import ROOT
from hyvideo_rt.bench.readme import FILES, with_tables


@pytest.mark.parametrize("name", FILES)
def test_the_tables_are_generated(name: str) -> None:
    text = (ROOT / name).read_text()
    assert with_tables(text, FILES[name], name) == text, "run: python -m hyvideo_rt.bench.readme"


def test_a_lost_place_is_an_error() -> None:
    with pytest.raises(SystemExit, match=r"README.md has no place for a table: <!-- cpu -->"):
        with_tables("# no tables", FILES["README.md"], "README.md")
