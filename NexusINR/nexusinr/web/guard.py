"""Who may talk to the viewer: whoever has its secret address, and no page but its own.

Everything that a server answers (pages, static files, websocket, uploads, downloads) passes one
middleware. The address carries a secret; opening it gives the browser a cookie for as long as this
viewer runs, and takes the secret out of the address bar. Requests by another name of the machine
(DNS rebinding) or from pages of others (forged requests, foreign websockets) are refused as well.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from nexusinr.errors import InputError

LOCAL = "127.0.0.1"

#: What the user chooses has to be this long; what is drawn here is longer.
SHORTEST_SECRET = 16

#: A name or a number, and a port. Anything else in a Host header is no browser's.
_HOST = re.compile(r"([\w.-]+|\[[0-9a-f:.]+\])(:\d+)?", re.ASCII | re.IGNORECASE)

_REFUSED = "Refused: open the address that `nexusinr view` printed, with its secret.\n"

#: Opened from a link on another page, a redirection would arrive without the cookie (it is strict);
#: a page of ours that moves on does not.
_WELCOME = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0; url=/"><title>NexusINR</title>"""

_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Guard:
    """The lock of one running viewer.

    Attributes:
        host: the address to bind: this machine alone, unless another one is named.
        secret: what the address carries.
        pages: files whose inline scripts may run.

    Raises InputError for another host without a secret of its own, and for a weak secret.
    """

    host: str = LOCAL
    secret: str = ""
    pages: tuple[Path, ...] = ()
    _token: str = field(default_factory=lambda: secrets.token_urlsafe(32), init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.secret and not _is_loopback(self.host):
            raise InputError(
                f"--host {self.host} opens the viewer to other machines: choose a secret for them "
                f"with --secret ({SHORTEST_SECRET} letters and digits or more)"
            )
        if not self.secret:
            object.__setattr__(self, "secret", secrets.token_urlsafe(32))
        if not re.fullmatch(rf"[\w-]{{{SHORTEST_SECRET},}}", self.secret, re.ASCII):
            raise InputError(
                f"--secret: {len(self.secret)} characters are given, and it takes "
                f"{SHORTEST_SECRET} or more letters, digits, - or _: python -c "
                "'import secrets; print(secrets.token_urlsafe())' draws one"
            )

    def __repr__(self) -> str:
        return f"Guard({self.host!r})"  # the secret stays out of logs

    def address(self, port: int) -> str:
        """The whole address, with the secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}/?secret={self.secret}"

    def protect(self, app: web.Application) -> None:
        """Puts the lock before everything that an application answers; call before it starts."""
        logging.getLogger("aiohttp.access").disabled = True  # its lines would hold the secret
        scripts = " ".join(_inline_scripts(page) for page in self.pages)

        @web.middleware
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self._is_by_own_name(request) or _is_from_another_page(request):
                return _refusal()
            if "secret" in request.query:
                right = _equal(request.query["secret"], self.secret)
                return self._welcome(request) if right else _refusal()
            if not _equal(request.cookies.get(_cookie(request), ""), self._token):
                return _refusal()
            return await handler(request)

        async def sign(request: web.Request, response: web.StreamResponse) -> None:
            response.headers.update(_HEADERS)
            host = request.host if _HOST.fullmatch(request.host) else ""
            response.headers["Content-Security-Policy"] = _policy(host, scripts)

        app.middlewares.insert(0, admit)
        app.on_response_prepare.append(sign)
        app.router.add_post("/paraview/", _launch)

    def _is_by_own_name(self, request: web.Request) -> bool:
        """A name that no stranger's DNS can point here: a number, or a name that is ours."""
        if not _HOST.fullmatch(request.host):
            return False
        name = request.url.host or ""
        local = _is_loopback(self.host)
        if _is_loopback(name) or (not local and _is_number(name)):
            return True
        return not local and name.lower() in {
            self.host.lower(),
            socket.gethostname().lower(),
            socket.getfqdn().lower(),
        }

    def _welcome(self, request: web.Request) -> web.Response:
        response = web.Response(text=_WELCOME, content_type="text/html")
        response.set_cookie(_cookie(request), self._token, httponly=True, samesite="Strict")
        return response


async def _launch(_: web.Request) -> web.Response:
    """Where the websocket is: trame's page asks this first, and needs no other way to be told."""
    return web.json_response({"sessionURL": "ws://USE_HOST/ws"})


def _refusal() -> web.Response:
    return web.Response(status=403, text=_REFUSED)


def _equal(given: str, right: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(errors="replace"), right.encode())


def _cookie(request: web.Request) -> str:
    """Browsers share cookies between the ports of a host: each viewer has a name of its own."""
    return f"nexusinr-{request.url.port}"


def _is_from_another_page(request: web.Request) -> bool:
    """Browsers name the origin of websockets, of uploads, and of scripts that fetch."""
    origin = request.headers.get("Origin")
    if origin is None:
        return False
    try:
        return URL(origin).authority != request.host
    except ValueError:
        return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_number(host) and ipaddress.ip_address(host).is_loopback)


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _policy(host: str, scripts: str) -> str:
    """The page may load and talk to its own server alone. Vue compiles templates: unsafe-eval."""
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' 'unsafe-eval' {scripts}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' blob: data:",
            "font-src 'self' data:",
            f"connect-src 'self' ws://{host} wss://{host}",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _inline_scripts(page: Path) -> str:
    """The digests that let the scripts in a page run, as the policy wants them."""
    bodies = re.findall(rb"<script>(.*?)</script>", page.read_bytes(), re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(body).digest()).decode() for body in bodies)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
