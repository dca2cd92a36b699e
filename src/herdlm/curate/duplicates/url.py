"""Normalizes addresses, so that the same page under different spellings has the same key."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from herdlm.curate.duplicates.hashing import hash_text

MAX_LABEL = 256
DEFAULT_PORTS = {"http": 80, "https": 443}
# Parameters that track where a visitor came from, grouped by the tools that add them
TRACKING = frozenset(
    [
        "gclid",
        "gclsrc",
        "dclid",
        "gbraid",
        "wbraid",
        "_ga",
        "_gl",
        "fbclid",
        "igshid",
        "igsh",
        "msclkid",
        "yclid",
        "ysclid",
        "twclid",
        "ttclid",
        "li_fat_id",
        "epik",
        "mc_cid",
        "mc_eid",
        "mkt_tok",
        "vero_id",
        "vero_conv",
        "_hsenc",
        "_hsmi",
        "__hssc",
        "__hstc",
        "__hsfp",
        "hsctatracking",
        "oly_anon_id",
        "oly_enc_id",
        "rb_clickid",
        "s_cid",
        "wt_mc",
        "wickedid",
        "ref_src",
        "ref_url",
        "trk",
        "trkcampaign",
        "cmpid",
        "ncid",
        "sc_campaign",
        "sc_channel",
        "spm",
    ]
)
TRACKING_PREFIXES = ("utm_", "mtm_", "pk_", "piwik_", "matomo_", "hsa_", "stm_", "at_custom")
SESSIONS = frozenset(
    ["jsessionid", "phpsessid", "sessionid", "session_id", "sess_id", "sessid", "zenid", "oscsid", "cfid", "cftoken"]
)
SESSION_PREFIXES = ("aspsessionid",)
MAYBE_SESSIONS = frozenset(["sid", "s", "session"])  # only if the value looks like one: "sid" can be a story's id
_TOKEN = re.compile(r"[0-9a-fA-F]{32,}|(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[0-9A-Za-z]{20,}")
_COOKIELESS = re.compile(r"(\([A-Za-z]\([0-9A-Za-z]{20,}\)\))+|\([0-9a-z]{24}\)")  # ASP.NET's sessions in a path
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
_IN_PATH = "%!$&'()*+,;=:@/"
_IN_QUERY = "%!$'()*+,;:@/?="
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BARE_HOST = re.compile(r"(//)?([\w-]+\.)+\w[\w-]*(:\d+)?([/?#]|$)")
_DOTS = re.compile("[\u3002\uff0e\uff61]")  # other full stops that can separate the labels of a host name


def normalize_url(url: str) -> str:
    """Return the normal form of an address. Normalizing it again changes nothing.

    For http and https: scheme and host in lower case, international host names in ASCII (IDNA), no user name, no
    default port, no trailing dot of the host; dot segments of the path resolved, no trailing slash except for the root;
    percent-encoding only where needed, in upper case; parameters sorted by name, keeping the order of equal names; no
    tracking parameters or session ids; no fragment, unless it starts with ``!`` and so names a page. A host without a
    scheme is taken for http. Anything else is only trimmed.
    """
    url = re.sub(r"[\t\r\n]", "", url).strip("".join(map(chr, range(33))))
    if _BARE_HOST.match(url) and not _SCHEME.match(url.split(".")[0]):
        url = f"http://{url.removeprefix('//')}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url
    scheme = parts.scheme
    if scheme not in DEFAULT_PORTS or not (host := normalize_host(parts.hostname or "")):
        return url
    address = f"{scheme}://{host}" + (f":{port}" if port not in (None, DEFAULT_PORTS[scheme]) else "")
    query = _query(parts.query)
    fragment = _encode(parts.fragment, _IN_PATH + "?") if parts.fragment.startswith("!") else ""
    return address + _path(parts.path) + (f"?{query}" if query else "") + (f"#{fragment}" if fragment else "")


def url_key(url: str) -> int:
    """Return the 64-bit key of an address. http and https have the same key."""
    return hash_text(normalize_url(url).removeprefix("https:").removeprefix("http:"))


def normalize_host(host: str) -> str:
    """Return a host name in lower-case ASCII without a trailing dot. IPv6 addresses keep their brackets."""
    if ":" in host:
        return f"[{host.lower()}]"
    return ".".join(_ascii_label(label) for label in _DOTS.sub(".", host).lower().rstrip(".").split("."))


def _ascii_label(label: str) -> str:
    if label.isascii():
        return label
    if len(label) > MAX_LABEL:  # no name of a host, and its punycode takes quadratic time
        return label.encode("utf-8", "replace").hex()
    try:
        return label.encode("idna").decode("ascii").lower()
    except UnicodeError:  # not allowed by IDNA, such as an emoji, but registered all the same
        return "xn--" + label.encode("punycode").decode("ascii").lower()


def _encode(piece: str, safe: str) -> str:
    """Percent-encode exactly the characters of ``piece`` that are neither unreserved nor ``safe``."""
    piece = _LONE_PERCENT.sub("%25", piece)
    piece = _ESCAPE.sub(lambda m: c if (c := chr(int(m[0][1:], 16))) in _UNRESERVED else m[0].upper(), piece)
    return quote(piece, safe=safe, errors="replace")


def _path(path: str) -> str:
    segments: list[str] = []
    for segment in _encode(path, _IN_PATH).removeprefix("/").split("/"):
        first, *parameters = segment.split(";")
        kept = [first, *(p for p in parameters if not _is_session(*p.partition("=")[::2]))]
        name = ";".join(kept)
        if name == "..":
            segments = segments[:-1]
        elif name != "." and not _COOKIELESS.fullmatch(name):
            segments.append(name)
    return f"/{'/'.join(segments)}".rstrip("/") or "/"


def _query(query: str) -> str:
    pairs = [_encode(piece, _IN_QUERY).partition("=") for piece in query.split("&") if piece]
    kept = [pair for pair in pairs if not (_is_tracking(pair[0]) or _is_session(pair[0], pair[2]))]
    return "&".join("".join(pair) for pair in sorted(kept, key=lambda pair: pair[0]))


def _is_tracking(name: str) -> bool:
    name = name.lower()
    return name in TRACKING or name.startswith(TRACKING_PREFIXES)


def _is_session(name: str, value: str) -> bool:
    name = name.lower()
    if name in SESSIONS or name.startswith(SESSION_PREFIXES):
        return True
    return name in MAYBE_SESSIONS and bool(_TOKEN.fullmatch(value))
