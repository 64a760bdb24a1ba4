"""URLs in the form in which they are compared: what block lists, removal and the join with cited pages share.

`plain_host` and `plain_path` undo what a writer of a URL is free to choose (RFC 3986, section 6.2.2). `normalised` goes further and
names the page that two URLs most likely both lead to:

| part | what becomes of it | why |
|---|---|---|
| scheme | left out, http and https only | most sites moved from http to https, and their citations did not |
| user | left out | it says who asks, not for what |
| host | lower case, IDNA, no dot at the end, no `www.` | one site, as block lists have it |
| port | left out where it is 80 or 443 | the defaults; which of them belongs to the scheme that is left out decides nothing |
| path | escapes in one form, slashes at its end left out | servers redirect `/a/` and `/a` to one another |
| query | escapes in one form, `utm_*`, `gclid`, `fbclid` left out, nothing of an empty one | these say where a reader came from |
| fragment | left out | it never reaches the server |

The order of a query, the case of a path, `index.html` and dots in a path stay: servers may tell pages apart by them.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, quote, urlsplit

MOST_HOST = 253  # characters of a name in the DNS
_DEFAULT_PORTS = frozenset([80, 443])
_TRACKING = frozenset(["gclid", "fbclid"])
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ASCII = "".join(map(chr, range(128)))


def plain_host(host: str) -> str:
    """A host in the form in which hosts are compared: lower case, ASCII where IDNA has it, no brackets, no dot at the end."""
    host = host.strip("[]").lower().removesuffix(".")
    if not host.isascii():
        try:
            return host.encode("idna").decode("ascii")
        except UnicodeError:
            return host
    return host


def plain_path(path: str) -> str:
    """A path with its query as they are compared: UTF-8 escaped, unreserved characters not, the digits of an escape in capitals."""
    if not path.isascii():
        path = quote(path, _ASCII, errors="surrogatepass")
    return _ESCAPED.sub(_plain_escape, path) if "%" in path else path


def _plain_escape(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0].upper()


def with_port(host: str, port: int | None) -> str:
    """A plain host as it stands in a URL."""
    named = f"[{host}]" if ":" in host else host
    return named if port is None else f"{named}:{port}"


def port_of(parts: SplitResult) -> int | None:
    """The port that a URL states; None for none, and for one that is no port."""
    try:
        return parts.port
    except ValueError:
        return None


def _split(url: str) -> tuple[SplitResult, str] | None:
    """A URL's parts and its plain host without `www.`; None where it is no http(s) URL with a host."""
    try:
        parts = urlsplit(url)
        host = plain_host(parts.hostname or "")
    except ValueError:
        return None
    if parts.scheme not in ("", "http", "https") or not 0 < len(host) <= MOST_HOST:
        return None
    while host.startswith("www.") and "." in host[4:]:
        host = host[4:]
    return parts, host


def normalised(url: str) -> str | None:
    """`host[:port][/path][?query]` by the table above, the same for URLs that lead to one page; None for what is no http(s) URL."""
    found = _split(url)
    if found is None:
        return None
    parts, host = found
    port = port_of(parts)
    query = "&".join(one for one in parts.query.split("&") if one and not _tracks(one))
    target = plain_path(parts.path).rstrip("/") + (f"?{plain_path(query)}" if query else "")
    return with_port(host, None if port in _DEFAULT_PORTS else port) + target


def site(url: str | None) -> str | None:
    """The last two names of a URL's host, or the address that it is: pages of one site have one maker. None without a host.

    Where registration happens a level deeper (`.co.uk`), many sites count as one; no site ever counts as two.
    """
    found = _split(url or "")
    if found is None:
        return None
    host = found[1]
    names = host.split(".")
    return host if ":" in host or names[-1].isdigit() else ".".join(names[-2:])


def _tracks(parameter: str) -> bool:
    name = parameter.partition("=")[0].lower()
    return name.startswith("utm_") or name in _TRACKING
