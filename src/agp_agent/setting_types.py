"""What a setting may be: the types of ``agp_agent.settings``, each with the sentence that says what was expected."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from agp_agent import lacks
from agp_agent.tokens import TOKEN_MIN_CHARS

UID_FIRST: Final = 1000
UID_LAST: Final = 65535  # rootless engines cannot map more

_NODE: Final = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]*|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|n\w+CNTRL|\d+")


def _token(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < TOKEN_MIN_CHARS:
        raise ValueError(f"a token of at least {TOKEN_MIN_CHARS} characters (agp-agent token new makes one)")
    return value


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", value):
        raise ValueError("an http:// or https:// URL without query, such as https://dashboard.example")
    try:
        parts = urlsplit(value)
        (parts.hostname or "").encode("idna")
        parts.port  # noqa: B018  it raises
    except ValueError:
        raise ValueError("a URL whose host is a name or an address, and whose port is at most 65535") from None
    return value.rstrip("/")


def _url_without_user(value: str) -> str:
    if re.match(r"\w+://[^/]*@", value):
        raise ValueError("a URL without user and password; the token goes into AGP_DASHBOARD_TOKEN_FILE")
    return _http_url(value)


def _nodes(value: str) -> str:
    if not all(_NODE.fullmatch(one) for one in split_list(value)):
        raise ValueError("tags, full names or stable ids of nodes, such as tag:dashboard,dash.example.ts.net")
    return value


def split_list(value: str) -> tuple[str, ...]:
    """The parts between commas."""
    return tuple(one.strip() for one in value.split(","))


def _uid_range(value: str) -> str:
    match = re.fullmatch(r"(\d+)-(\d+)", value)
    if not match or not UID_FIRST <= int(match[1]) <= int(match[2]) <= UID_LAST:
        raise ValueError(f"two user ids from {UID_FIRST} to {UID_LAST}, such as 20000-20255")
    return value


def _networks(value: str) -> str:
    try:
        list(split_networks(value))
    except ValueError:
        raise ValueError(
            "IPv4 addresses and networks, separated by commas, such as 203.0.113.7,198.51.100.0/24"
        ) from None
    return value


def split_networks(value: str) -> Iterator[IPv4Network]:
    """The networks between commas. Raises ``ValueError``."""
    return (IPv4Network(one.strip()) for one in value.split(",") if one.strip())


def _accepted(value: str) -> str:
    lacks.parse(value)
    return value


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
PlainUrl = Annotated[str, AfterValidator(_url_without_user)]
Token = Annotated[SecretStr, AfterValidator(_token)]
Nodes = Annotated[str, AfterValidator(_nodes)]
UidRange = Annotated[str, AfterValidator(_uid_range)]
Networks = Annotated[str, AfterValidator(_networks)]
Accepted = Annotated[str, AfterValidator(_accepted)]
