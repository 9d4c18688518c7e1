"""Reverse proxies before the hive: a small one of our own, and nginx."""

import asyncio
import contextlib
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

PREFIX = "/hive"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Upstream:
    """Where the hive is, for a proxy: a Unix socket, or a port of 127.0.0.1."""

    socket_path: Path | None = None
    port: int | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.socket_path is not None:
            return await asyncio.open_unix_connection(self.socket_path)
        return await asyncio.open_connection("127.0.0.1", self.port)


@dataclass
class OwnProxy:
    """HTTP/1.1, a connection for each request, nothing held back. Only `PREFIX` leads to the hive."""

    upstream: Upstream
    port: int
    strips: bool
    tls: ssl.SSLContext | None = None
    outside: list[str] = field(default_factory=list)  # requests that did not stay below the prefix
    _server: asyncio.Server | None = None
    _talks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port, ssl=self.tls)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._talks):
            task.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._pass_on(reader, writer)
        finally:
            self._talks.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, version = first.split(" ")
        if not target.startswith(PREFIX):
            self.outside.append(target)
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
            return
        if self.strips:
            target = target.removeprefix(PREFIX) or "/"
        from_hive, to_hive = await self.upstream.connect()
        try:
            fields = [*self._headers(lines, writer), "connection: close"]
            to_hive.write("\r\n".join([f"{method} {target} {version}", *fields, "", ""]).encode("latin-1"))
            back = asyncio.create_task(_copy(from_hive, writer))
            forth = asyncio.create_task(_copy(reader, to_hive))
            try:
                await asyncio.wait([back, forth], return_when=asyncio.FIRST_COMPLETED)
            finally:
                back.cancel()
                forth.cancel()
                await asyncio.gather(back, forth, return_exceptions=True)
        finally:
            to_hive.close()

    def _headers(self, lines: list[str], writer: asyncio.StreamWriter) -> list[str]:
        """As nginx sets them: the client's address is added to what the client wrote there."""
        kept = [
            line
            for line in lines
            if line.partition(":")[0].lower() not in ("connection", "x-forwarded-proto")
        ]
        written = [
            line.partition(":")[2].strip() for line in kept if line.lower().startswith("x-forwarded-for:")
        ]
        kept = [line for line in kept if not line.lower().startswith("x-forwarded-for:")]
        hops = ", ".join([*written, _address(writer)])
        return [*kept, f"X-Forwarded-For: {hops}", f"X-Forwarded-Proto: {'https' if self.tls else 'http'}"]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(64 * 1024):
        writer.write(piece)
        await writer.drain()


@contextlib.asynccontextmanager
async def own_proxy(
    upstream: Upstream, port: int, *, strips: bool, tls: ssl.SSLContext | None = None
) -> AsyncIterator[OwnProxy]:
    proxy = OwnProxy(upstream, port, strips, tls)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()


NGINX = """\
daemon off;
master_process off;
pid {work}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi;
  scgi_temp_path {work}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location {prefix}/ {{
      proxy_pass {upstream}{path};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_buffering off;
      proxy_read_timeout 1h;
    }}
  }}
}}
"""


def find_nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextlib.asynccontextmanager
async def nginx(work: Path, upstream: Upstream, port: int, *, strips: bool) -> AsyncIterator[None]:
    """nginx with the configuration that docs/operating.md shows."""
    program = find_nginx()
    assert program is not None
    work.mkdir()
    where = (
        f"http://unix:{upstream.socket_path}:"
        if upstream.socket_path
        else f"http://127.0.0.1:{upstream.port}"
    )
    path = "/" if strips else ""
    text = NGINX.format(work=work, port=port, prefix=PREFIX, upstream=where, path=path)
    (work / "nginx.conf").write_text(text)
    arguments = ["-p", str(work), "-c", str(work / "nginx.conf"), "-e", "stderr"]
    process = await asyncio.create_subprocess_exec(program, *arguments)
    try:
        async with asyncio.timeout(30):
            while process.returncode is None and not await _answers(port):
                await asyncio.sleep(0.02)
        assert process.returncode is None, "nginx did not start"
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _address(client: asyncio.StreamWriter) -> str:
    """The client's address; a browser that left while it was served has none any more."""
    peer = client.get_extra_info("peername")
    if peer is None:
        raise ConnectionResetError("the client left before its request was passed on")
    return str(peer[0])
