"""Headers: those that every answer carries, and those of a request that is refused before its body is read."""

from __future__ import annotations

import ipaddress

from starlette.types import Scope

from herdlm.serve.errors import RefusedError

# An answer is data: a browser must not guess its kind, show it as a page, or frame it. Pages have their own policy.
SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
MAX_HEADER_BYTES = 32_768


def with_safe_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """``headers`` of an answer with those of ``SAFE_HEADERS`` that it has not."""
    present = {name.lower() for name, _ in headers}
    added = [(name.encode(), value.encode()) for name, value in SAFE_HEADERS.items() if name.encode() not in present]
    return [*headers, *added]


def header(scope: Scope, name: bytes) -> str:
    """The value of a request's header; empty without one."""
    value: bytes = next((value for key, value in scope["headers"] if key == name), b"")
    return value.decode("latin-1")


def check_framing(scope: Scope) -> None:
    """Refuse a request that a proxy may read in another way than this server, or with endless headers.

    Raises:
        RefusedError: it states its length in two ways, is of an unknown version, or has too many headers.
    """
    names = [name for name, _ in scope["headers"]]
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if scope.get("http_version", "1.1") not in ("1.0", "1.1") or size > MAX_HEADER_BYTES:
        raise RefusedError(
            f"the request is not HTTP/1.1 with at most {MAX_HEADER_BYTES} bytes of headers",
            "Send such a one",
            code="invalid_request",
            status=400,
        )
    if names.count(b"content-length") > 1 or (b"content-length" in names and b"transfer-encoding" in names):
        raise RefusedError("the request states its length twice", "Send it once", code="invalid_request", status=400)


def check_host(scope: Scope) -> None:
    """Refuse a request to another host than this machine.

    A page of anybody's can give its own name the address 127.0.0.1 once it is open (DNS rebinding), and then reads what
    a server without keys answers. The browser still sends the page's name as the host.

    Raises:
        RefusedError: the header Host names no loopback address.
    """
    if not is_loopback(header(scope, b"host")):
        raise RefusedError(
            "this server answers requests to this machine itself alone",
            "Use http://127.0.0.1 or http://localhost; for other names, start it with --keys or --no-keys",
            code="wrong_host",
            status=421,
        )


def is_loopback(host: str) -> bool:
    """Whether a Host header's value is ``localhost`` or a loopback address, with or without a port."""
    name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not name:
        name, port = host, ""
    if port and not (port.isdecimal() and port.isascii() and len(port) <= 5):
        return False
    if name.lower() == "localhost":
        return True
    if name.startswith("[") != name.endswith("]") or (":" in name and not name.startswith("[")):
        return False
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
