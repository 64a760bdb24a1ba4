"""What a service is refused to start with: addresses without a token, tokens that are none, folders that are not there."""

from pathlib import Path

import pytest

from pipelines.errors import UserError
from quality.service.settings import STATE, Limits, Settings, check_address, folders, is_loopback, limits, read_token
from tests.service.conftest import TOKEN


def test_limits_are_set_by_their_names():
    assert limits([]) == Limits()
    assert limits(["scorings=8", "wait_seconds=0.5", "scorings=9"]) == Limits(scorings=9, wait_seconds=0.5)
    for given, told in [
        ("scorers=8", "no limit is called 'scorers'; there are body_bytes, small_body_bytes, "),
        ("scorings", "give a whole number above 0, as in scorings=2"),
        ("scorings=2.5", "give a whole number above 0, as in scorings=2"),
        ("scorings=0", "give a whole number above 0, as in scorings=2"),
        ("wait_seconds=inf", "give a number above 0, as in wait_seconds=2"),
        ("wait_seconds=nan", "give a number above 0, as in wait_seconds=2"),
    ]:
        with pytest.raises(UserError, match=f"^--limit {given}: {told}"):
            limits([given])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LocalHost"])
def test_loopback_addresses_need_no_token(host):
    assert is_loopback(host)
    check_address(Settings(Path(), Path(), host=host))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.5", "corpora.example", "localhost.example", "", "127.0.0.1.example"]
)
def test_other_addresses_are_refused_without_a_token(host):
    assert not is_loopback(host)
    with pytest.raises(UserError, match="others can reach this address; give a token"):
        check_address(Settings(Path(), Path(), host=host))
    check_address(Settings(Path(), Path(), host=host, token=TOKEN))


def test_a_token_is_read_from_a_private_file_before_the_environment(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    assert read_token(str(file), {"WINNOW_TOKEN": "f" * 32}) == TOKEN
    assert read_token(None, {"WINNOW_TOKEN": TOKEN}) == TOKEN
    assert read_token(None, {}) is None
    for mode in (0o640, 0o604):
        file.chmod(mode)
        with pytest.raises(UserError, match="others may read this token; chmod 600"):
            read_token(str(file), {})


@pytest.mark.parametrize("given", ["", "short", "a" * 513, "with a space in it", "line\nbreak in the token", "ümlaut" * 5])
def test_what_cannot_be_a_token_is_refused_and_not_repeated(tmp_path, given):
    file = tmp_path / "token"
    file.write_text(given)
    file.chmod(0o600)
    for ask in (lambda: read_token(str(file), {}), lambda: read_token(None, {"WINNOW_TOKEN": given})):
        with pytest.raises(UserError, match="16 to 512 visible ASCII characters") as caught:
            ask()
        assert not given or given not in str(caught.value)


def test_a_token_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match="no-such: No such file"):
        read_token(str(tmp_path / "no-such"), {})
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff" * 40)
    binary.chmod(0o600)
    with pytest.raises(UserError, match="not UTF-8"):
        read_token(str(binary), {})


def test_the_token_is_not_in_what_is_printed_of_the_settings():
    assert TOKEN not in repr(Settings(Path(), Path(), token=TOKEN))


def test_the_state_lies_beside_the_runs_and_is_private(tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    root, state, recipes = folders(str(runs), None, None)
    assert (root, state, recipes) == (runs, runs / STATE, None)
    assert state.stat().st_mode & 0o777 == 0o700
    assert folders(str(runs), str(tmp_path / "deep/state"), str(tmp_path))[1:] == (tmp_path / "deep/state", tmp_path)


def test_folders_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "file").touch()
    runs = tmp_path / "runs"
    runs.mkdir()
    for arguments, told in [
        ((str(tmp_path / "no"), None, None), "--runs .*no: no such folder"),
        ((str(tmp_path), None, str(tmp_path / "no")), "--recipes .*no: no such folder"),
        ((str(tmp_path), str(tmp_path), None), "--state .*: lies among the runs"),
        ((str(tmp_path), str(tmp_path / "state"), None), "--state .*state: lies among the runs"),
        ((str(tmp_path), str(tmp_path / "run/deep"), None), "--state .*deep: lies among the runs"),
        ((str(runs), str(tmp_path / "file/state"), None), "--state .*: Not a directory"),
    ]:
        with pytest.raises(UserError, match=told):
            folders(*arguments)
