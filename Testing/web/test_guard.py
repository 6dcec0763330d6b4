"""The lock of the viewer: a real server, and clients with and without the key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import ClientResponse, ClientSession, CookieJar, WSServerHandshakeError, web
from aiohttp.test_utils import TestServer

from nexusinr.errors import InputError
from nexusinr.web.guard import Guard

SECRET = "a-secret-of-17-ch"
SCRIPT = "fetch('./loading.tpl')"


class Browser:
    """A client that keeps cookies, and its server."""

    def __init__(self, session: ClientSession, port: int) -> None:
        self.session, self.port = session, port

    async def get(self, path: str, method: str = "GET", **headers: str) -> ClientResponse:
        address = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(
            method, address, headers=headers, allow_redirects=False
        ) as response:
            await response.read()
            return response

    async def log_in(self) -> ClientResponse:
        return await self.get(f"/?secret={SECRET}")

    async def talk(self, **headers: str) -> str:
        address = f"ws://127.0.0.1:{self.port}/ws"
        async with self.session.ws_connect(address, headers=headers) as socket:
            return await socket.receive_str()


@pytest.fixture
def browse(tmp_path) -> Callable[[Callable[[Browser], Awaitable[None]]], None]:
    """Runs a visit to a guarded server with a page, a static file, an upload and a websocket."""
    (tmp_path / "index.html").write_text(f"<script>{SCRIPT}</script><script src='a.js'></script>")

    async def socket(request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        await response.send_str("hello")
        return response

    async def upload(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async def serve(visit: Callable[[Browser], Awaitable[None]], guard: Guard) -> None:
        app = web.Application()
        app.add_routes([web.get("/ws", socket), web.post("/upload", upload)])
        app.add_routes([web.static("/", tmp_path)])
        guard.protect(app)
        server = TestServer(app)
        async with server, ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
            assert server.port is not None
            await visit(Browser(session, server.port))

    def run(visit: Callable[[Browser], Awaitable[None]], host: str = "127.0.0.1") -> None:
        asyncio.run(serve(visit, Guard(host, SECRET, (tmp_path / "index.html",))))

    return run


PLACES = ["/", "/index.html", "/missing", "/../index.html", "/ws", "/upload"]


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("query", ["", "?secret=", "?secret=a-secret-of-17-cH", "?secret=é%ff"])
def test_nothing_is_answered_without_the_secret(browse, path, query):
    async def visit(browser: Browser) -> None:
        for method in ("GET", "POST", "HEAD", "OPTIONS"):
            response = await browser.get(path + query, method)
            assert response.status == 403
            assert "Set-Cookie" not in response.headers
        with pytest.raises(WSServerHandshakeError, match="403"):
            await browser.talk()

    browse(visit)


def test_the_secret_opens_everything_and_leaves_the_address(browse):
    async def visit(browser: Browser) -> None:
        welcome = await browser.log_in()
        assert welcome.status == 200
        assert "url=/" in await welcome.text()
        assert SECRET not in await welcome.text()
        cookie = welcome.headers["Set-Cookie"]
        assert cookie.startswith(f"nexusinr-{browser.port}=")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert SECRET not in cookie
        assert (await browser.get("/index.html")).status == 200
        assert (await browser.get("/missing")).status == 404
        assert (await browser.get("/upload", "POST")).status == 200
        assert await browser.talk() == "hello"
        assert (await browser.get("/index.html?secret=another")).status == 403

    browse(visit)


def test_a_cookie_of_another_run_is_refused(browse):
    async def visit(browser: Browser) -> None:
        for value in ("", "x", SECRET, "é"):
            cookie = f"nexusinr-{browser.port}={value}"
            assert (await browser.get("/index.html", Cookie=cookie)).status == 403

    browse(visit)


@pytest.mark.parametrize(
    "name", ["evil.org", "127.0.0.1.evil.org", "10.0.0.1", "", "[::1", "a b", "localhost;"]
)
def test_other_names_of_this_machine_are_refused(browse, name):
    async def visit(browser: Browser) -> None:
        await browser.log_in()
        port = browser.port
        host = f"{name}:{port}"
        for headers in ({"Host": host}, {"Host": name}, {"Host": host, "Origin": f"http://{host}"}):
            response = await browser.get(
                "/index.html", Cookie=f"nexusinr-{port}=x; nexusinr-80=x", **headers
            )
            assert response.status in (400, 403)
            response = await browser.get(f"/?secret={SECRET}", **headers)
            assert response.status in (400, 403)
            assert "Set-Cookie" not in response.headers

    browse(visit)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "127.0.0.2"])
def test_a_tunnel_may_end_at_another_port(browse, name):
    async def visit(browser: Browser) -> None:
        response = await browser.get(f"/?secret={SECRET}", Host=f"{name}:9000")
        assert response.status == 200
        assert response.headers["Set-Cookie"].startswith("nexusinr-9000=")

    browse(visit)


@pytest.mark.parametrize(
    "origin", ["http://evil.org", "http://127.0.0.1:1", "http://127.0.0.1", "null", "http://[", ""]
)
def test_pages_of_others_are_refused(browse, origin):
    async def visit(browser: Browser) -> None:
        await browser.log_in()
        assert (await browser.get("/upload", "POST", Origin=origin)).status == 403
        assert (await browser.get("/index.html", Origin=origin)).status == 403
        with pytest.raises(WSServerHandshakeError, match="403"):
            await browser.talk(Origin=origin)

    browse(visit)


def test_its_own_page_may_talk(browse):
    async def visit(browser: Browser) -> None:
        await browser.log_in()
        own = f"http://127.0.0.1:{browser.port}"
        assert await browser.talk(Origin=own) == "hello"
        assert (await browser.get("/upload", "POST", Origin=own)).status == 200

    browse(visit)


def test_other_machines_by_number_or_by_the_name_that_was_given(browse):
    async def visit(browser: Browser) -> None:
        for name, status in (("10.1.2.3", 200), ("scanner.clinic", 200), ("evil.org", 403)):
            response = await browser.get(f"/?secret={SECRET}", Host=f"{name}:{browser.port}")
            assert response.status == status

    browse(visit, host="Scanner.clinic")


def test_every_answer_tells_the_browser_to_be_careful(browse):
    async def visit(browser: Browser) -> None:
        refused = await browser.get("/")
        await browser.log_in()
        for response in (refused, await browser.get("/index.html"), await browser.get("/missing")):
            headers = response.headers
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            policy = dict(
                part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; ")
            )
            assert policy["default-src"] == "'self'"
            assert policy["frame-ancestors"] == "'none'"
            assert f"ws://127.0.0.1:{browser.port}" in policy["connect-src"]
            scripts = policy["script-src"].split()
            assert "'unsafe-inline'" not in scripts
            assert sum(word.startswith("'sha256-") for word in scripts) == 1

    browse(visit)


def test_the_secret_is_in_no_log(browse, caplog):
    caplog.set_level(logging.DEBUG)

    async def visit(browser: Browser) -> None:
        await browser.log_in()
        await browser.get("/?secret=wrong")

    browse(visit)
    assert SECRET not in caplog.text
    assert "secret=" not in caplog.text
    assert SECRET not in repr(Guard(secret=SECRET))


def test_each_run_has_a_secret_of_its_own():
    addresses = {Guard().address(8080) for _ in range(20)}
    assert len(addresses) == 20
    assert all(a.startswith("http://127.0.0.1:8080/?secret=") for a in addresses)
    assert min(len(a.partition("=")[2]) for a in addresses) >= 43
    assert Guard("::1", SECRET).address(80) == f"http://[::1]:80/?secret={SECRET}"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "scanner", "::"])
def test_other_hosts_need_a_secret(host):
    with pytest.raises(InputError, match="choose a secret"):
        Guard(host)
    assert Guard(host, SECRET).secret == SECRET


@pytest.mark.parametrize("secret", ["short", "with a space in it", "ampersand&and=more", "ü" * 20])
def test_weak_secrets_are_refused_and_not_repeated(secret):
    with pytest.raises(InputError) as caught:
        Guard(secret=secret)
    assert secret not in str(caught.value)
