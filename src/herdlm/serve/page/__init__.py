"""The web page at ``/``: static files beside this one, without a build step and with nothing from another host."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

# Scripts and styles come from files here alone; no string becomes markup or code (Trusted Types without a policy).
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def page_router() -> APIRouter:
    """Routes of the page: ``/`` and its files under ``/page/``. They hold no secret and ask for no key."""
    router = APIRouter(include_in_schema=False)
    folder = files(__package__)
    for prefix in ("", "vendor/"):
        for file in sorted(folder.joinpath(prefix).iterdir(), key=lambda file: file.name):
            media_type = TYPES.get(file.name.rpartition(".")[2])
            if media_type is not None:
                path = "/" if file.name == "index.html" else f"/page/{prefix}{file.name}"
                _add_route(router, path, file.read_bytes(), media_type)
    return router


def _add_route(router: APIRouter, path: str, content: bytes, media_type: str) -> None:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = HEADERS | {"etag": tag}

    async def answer(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    router.add_api_route(path, answer, methods=["GET", "HEAD"])
