"""JSON responses."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """``body`` as JSON. Escapes characters outside ASCII, since an error may quote text that is not valid Unicode."""
    return Response(json.dumps(body, allow_nan=False), status, headers, "application/json")
