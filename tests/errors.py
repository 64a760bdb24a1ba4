"""What tests ask of errors that users meet."""

from __future__ import annotations

import pytest

from pipelines.errors import UserError


def one_line(call, *parts):
    """The call fails with one line that holds these parts."""
    with pytest.raises(UserError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert str(part) in line, line
