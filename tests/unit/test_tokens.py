"""The tokens that are valid now: what counts as one, and how they are changed while the agent runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agp_agent.audit import Audit
from agp_agent.errors import ConfigurationError
from agp_agent.readiness import Readiness
from agp_agent.token_watch import TokenWatch
from agp_agent.tokens import Tokens, TokenSource, fingerprint
from support.secret_files import replace_secret, write_secret

TOKEN = "t0ken-of-the-tests-1"
OTHER = "t0ken-of-the-tests-2"
THIRD = "t0ken-of-the-tests-3"


class Clock:
    """A clock that never jumps unless a test says so."""

    now_s = 1000.0

    def __call__(self) -> float:
        """Return the time it is set to."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """The clock of the sources below."""
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one token."""
    return write_secret(tmp_path / "token", f"{TOKEN}\n")


def source(path: Path, clock: Clock, name: str = "AGP_TOKEN") -> TokenSource:
    """Return a source that reads a file, and has read it at rest."""
    made = TokenSource(name, None, path, clock)
    made.current()
    rest(made, clock)
    return made


def rest(made: TokenSource, clock: Clock) -> tuple[bytes, ...]:
    """Let the file rest for a second after the next look; return what is valid then."""
    made.current()
    clock.now_s += 1
    return made.current()


def of(*tokens: str) -> tuple[bytes, ...]:
    """As the source has them."""
    return tuple(token.encode() for token in tokens)


def test_a_fixed_token_is_the_only_one() -> None:
    """As bytes, whatever its characters."""
    made = TokenSource("AGP_TOKEN", SecretStr("pässwörter-aller-art"), None)
    assert made.current() == made.held == made.known == ("pässwörter-aller-art".encode(),)


def test_a_source_without_anything_is_not_configured(tmp_path: Path) -> None:
    """It has no token; one with a file is configured, whatever the file holds."""
    nothing = TokenSource("AGP_TOKEN", None, None)
    assert (nothing.configured, nothing.current()) == (False, ())
    assert TokenSource("AGP_TOKEN", None, tmp_path / "missing").configured
    assert TokenSource("AGP_TOKEN", SecretStr(TOKEN), None).configured


def test_a_file_holds_one_token_a_line(file: Path, clock: Clock) -> None:
    """Blank lines and spaces around do not count; all are valid at once, for rotation."""
    write_secret(file, f"\n  {TOKEN} \r\n\n{OTHER}\n")
    assert source(file, clock).current() == of(TOKEN, OTHER)


@pytest.mark.parametrize("write", [write_secret, replace_secret], ids=["in place", "replaced"])
def test_a_new_token_is_valid_at_once_and_the_old_one_until_the_file_rests(
    file: Path, clock: Clock, write: Any
) -> None:
    """So a file that is being written takes nothing away; a second later what it holds is all there is."""
    made = source(file, clock)
    write(file, f"{OTHER}\n")
    assert made.current() == of(OTHER, TOKEN)
    clock.now_s += 0.9
    assert made.current() == of(OTHER, TOKEN)
    clock.now_s += 0.1
    assert made.current() == of(OTHER)
    assert made.known == of(OTHER, TOKEN)


def test_half_a_line_is_no_token_while_the_file_is_being_written(file: Path, clock: Clock) -> None:
    """However long it is; once it has its end it counts at once, and without one when the file has rested."""
    made = source(file, clock)
    write_secret(file, f"{THIRD}\n{OTHER[:-2]}")
    assert made.current() == made.known == of(THIRD, TOKEN)
    write_secret(file, f"{THIRD}\n{OTHER}\n")
    assert made.current() == of(THIRD, OTHER, TOKEN)
    write_secret(file, OTHER)
    assert made.current() == of(THIRD, OTHER, TOKEN)
    assert rest(made, clock) == of(OTHER)


def test_the_first_token_of_all_needs_no_end(tmp_path: Path, clock: Clock) -> None:
    """Many tools write files without one, and an agent that starts has nothing else."""
    made = TokenSource("AGP_TOKEN", None, write_secret(tmp_path / "first", TOKEN), clock)
    assert made.current() == rest(made, clock) == of(TOKEN)


def test_a_change_within_the_same_tick_of_the_clock_of_files_is_seen(file: Path, clock: Clock) -> None:
    """Times of files are coarse: the same size, times and number may hide another content until the file rests."""
    made = source(file, clock)
    for token in (OTHER, THIRD, OTHER, THIRD):
        write_secret(file, f"{token}\n")
        assert made.current()[0] == token.encode()
    assert rest(made, clock) == of(THIRD)


def test_an_unchanged_file_is_not_read_again(file: Path, clock: Clock) -> None:
    """Authentication does not parse a file at each request: the same objects come back."""
    made = source(file, clock)
    assert made.current() is made.current()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("", "expected one token a line, found none."),
        ("short\n", "expected tokens of at least 16 characters, one a line."),
        (f"{OTHER}\nsho", "expected tokens of at least 16 characters, one a line."),
        (None, "cannot be read: No such file or directory."),
    ],
)
def test_a_damaged_file_leaves_the_old_tokens_valid_and_says_why(
    file: Path, clock: Clock, damage: str | None, why: str
) -> None:
    """Nobody is locked out by a slip, however long it lasts; a mended file counts at once."""
    made = source(file, clock)
    if damage is None:
        file.unlink()
    else:
        write_secret(file, damage)
    assert rest(made, clock) == of(TOKEN)
    assert made.problem == f"AGP_TOKEN_FILE: {file} {why}"
    write_secret(file, f"{OTHER}\n")
    assert made.current()[0] == OTHER.encode()
    assert not made.problem
    assert rest(made, clock) == of(OTHER)


def test_a_file_that_others_may_read_is_not_used_from_then_on(file: Path, clock: Clock) -> None:
    """The mode is looked at again whenever the file changes, and a change of the mode is one."""
    made = source(file, clock)
    file.chmod(0o644)
    assert made.current() == of(TOKEN)
    assert made.problem is not None
    assert made.problem.startswith(f"AGP_TOKEN_FILE: {file} has mode 0644, so everybody on this machine can read it;")
    replace_secret(file, f"{OTHER}\n", 0o644)
    assert rest(made, clock) == of(TOKEN)
    file.chmod(0o640)
    assert rest(made, clock) == of(OTHER)
    assert not made.problem


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read: No such file or directory."),
        ("\n \n", "expected one token a line, found none."),
        (f"{TOKEN}\nshort\n", "expected tokens of at least 16 characters, one a line."),
    ],
)
def test_a_file_that_never_held_a_token_is_an_error(tmp_path: Path, text: str | None, sentence: str) -> None:
    """One sentence that names setting and file, and not what stands in it."""
    file = tmp_path / "token"
    if text is not None:
        write_secret(file, text)
    with pytest.raises(ConfigurationError) as caught:
        TokenSource("AGP_TOKEN", None, file).current()
    assert str(caught.value) == f"AGP_TOKEN_FILE: {file} {sentence}"
    assert "short" not in str(caught.value)


def test_a_file_that_others_may_read_is_an_error_at_the_start(file: Path) -> None:
    """With the mode it has, and those it should have."""
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"has mode 0644, .*; expected 0600 or 0400, or 0640 or 0440 "):
        TokenSource("AGP_TOKEN", None, file).current()


def test_the_tokens_of_a_directory_are_an_error(tmp_path: Path) -> None:
    """A mount that went wrong is told."""
    with pytest.raises(ConfigurationError, match="is not a regular file"):
        TokenSource("AGP_TOKEN", None, tmp_path).current()


def test_a_fingerprint_tells_tokens_apart_and_nothing_else() -> None:
    """Eight digits of its hash."""
    assert fingerprint(b"abc") == "ba7816bf"


# --- both directions ---------------------------------------------------------------------------------------------


@pytest.fixture
def tokens(tmp_path: Path, file: Path, clock: Clock) -> Tokens:
    """Both directions, by files."""
    outbound = write_secret(tmp_path / "outbound", f"{OTHER}\n")
    return Tokens(source(file, clock), source(outbound, clock, "AGP_DASHBOARD_TOKEN"))


def test_the_two_directions_never_share_a_token(tokens: Tokens, tmp_path: Path, clock: Clock) -> None:
    """Also not after a rotation: the file that would bring that about is not used."""
    tokens.check()
    write_secret(tmp_path / "outbound", f"{THIRD}\n{TOKEN}\n")
    assert rest(tokens.outbound, clock) == of(OTHER)
    sentence = f"{tmp_path / 'outbound'} holds a token of the other direction; expected two different ones."
    assert tokens.outbound.problem == f"AGP_DASHBOARD_TOKEN_FILE: {sentence}"
    write_secret(tmp_path / "token", f"{OTHER}\n")
    assert rest(tokens.inbound, clock) == of(TOKEN)
    assert tokens.inbound.problem is not None
    write_secret(tmp_path / "outbound", f"{THIRD}\n")
    assert rest(tokens.outbound, clock) == of(THIRD)
    assert rest(tokens.inbound, clock) == of(OTHER)  # it is free now
    assert tokens.known() == of(OTHER, TOKEN, THIRD, OTHER)


def test_two_equal_tokens_are_an_error_at_the_start(tmp_path: Path) -> None:
    """Whichever way they are given."""
    file = write_secret(tmp_path / "token", f"{OTHER}\n{TOKEN}\n")
    both = Tokens(TokenSource("AGP_TOKEN", None, file), TokenSource("AGP_DASHBOARD_TOKEN", SecretStr(TOKEN), None))
    with pytest.raises(ConfigurationError, match=r"^AGP_TOKEN, AGP_DASHBOARD_TOKEN: expected two different tokens"):
        both.check()


# --- what is told of it ------------------------------------------------------------------------------------------


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """Where the audit trail is."""
    return tmp_path / "audit.jsonl"


@pytest.fixture
def readiness() -> Readiness:
    """The agent's condition, which hears of files that are not used."""
    return Readiness()


@pytest.fixture
def watch(tokens: Tokens, trail: Path, readiness: Readiness) -> TokenWatch:
    """What is tested."""
    audit = Audit(trail)
    return TokenWatch(tokens, audit, readiness)


async def rotations(watch: TokenWatch, trail: Path) -> list[dict[str, Any]]:
    """Look, and return all that was audited until now."""
    watch.look()
    await watch._audit.flush()
    return [json.loads(line) for line in trail.read_text().splitlines()]


async def test_a_rotation_is_audited_by_fingerprints(
    watch: TokenWatch, tmp_path: Path, trail: Path, clock: Clock
) -> None:
    """When the new token comes, and when the old one goes; never the tokens themselves."""
    assert await rotations(watch, trail) == []
    write_secret(tmp_path / "token", f"{THIRD}\n")
    (came,) = await rotations(watch, trail)
    old, new = fingerprint(TOKEN.encode()), fingerprint(THIRD.encode())
    assert (came["event"], came["setting"]) == ("token rotated", "AGP_TOKEN")
    assert (came["added"], came["removed"], came["token_fingerprints"]) == ([new], [], [new, old])
    clock.now_s += 1
    _, went = await rotations(watch, trail)
    assert (went["added"], went["removed"], went["token_fingerprints"]) == ([], [old], [new])
    assert len(await rotations(watch, trail)) == 2
    assert not {token for token in (TOKEN, OTHER, THIRD) if token in trail.read_text()}
    await watch._audit.aclose()


async def test_a_file_that_is_not_used_is_said_loudly_and_once(
    watch: TokenWatch, tmp_path: Path, readiness: Readiness, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an error in the log and a warning of the agent, until the file is mended."""
    news: list[tuple[str, str | None]] = []
    readiness.on_news = lambda part, problem: news.append((part, problem))
    write_secret(tmp_path / "token", "")
    for _ in range(3):
        watch.look()
    assert list(readiness.warnings) == ["AGP_TOKEN_FILE"]
    assert readiness.warnings["AGP_TOKEN_FILE"].endswith("expected one token a line, found none.")
    write_secret(tmp_path / "token", f"{TOKEN}\n")
    watch.look()
    assert readiness.warnings == {}
    assert [problem is None for _, problem in news] == [False, True]
    assert capsys.readouterr().out.count("token file not used") == 1
    await watch._audit.aclose()


async def test_a_file_that_vanishes_with_all_its_tokens_is_no_error_of_the_loop(
    tokens: Tokens, tmp_path: Path, trail: Path, readiness: Readiness
) -> None:
    """It goes on looking."""
    audit = Audit(trail)
    never = TokenSource("AGP_DASHBOARD_TOKEN", None, tmp_path / "missing")
    watch = TokenWatch(Tokens(tokens.inbound, never), audit, readiness)
    watch.look()
    assert list(readiness.warnings) == ["AGP_DASHBOARD_TOKEN_FILE"]
    await audit.aclose()
