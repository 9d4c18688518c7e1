"""The files of the assets directory, and nothing else.

The directory is listed once; a request is looked up in that list, so no path it can name leads
anywhere else. Files that change on disk are read again, for whoever works on the front end.
"""

import gzip
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Request
from fastapi import Path as PathPart
from starlette.responses import Response

from hive_core.web.refusals import WebRefusal

log = logging.getLogger(__name__)

DASHBOARD_PAGE: Final = "dashboard.html"
LOGIN_PAGE: Final = "login.html"
AGENT_PAGE: Final = "agent.html"
STATS_PAGE: Final = "stats.html"
AGENT_STATS_PAGE: Final = "agent_stats.html"

FILE_MAX_BYTES: Final = 8 * 1024 * 1024
ALREADY_PACKED: Final = frozenset({"image/png", "font/woff2"})
PACKED_SHARE: Final = 0.9  # of the file's size: what is hardly smaller is not worth unpacking
_NEVER: Final = re.compile(r"q=0(\.0*)?\Z")

CONTENT_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}


def assets_directory() -> Path:
    """The assets of the installed package, or of the checkout it runs from."""
    packaged = Path(__file__).parent / "assets"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "assets"


@dataclass
class Asset:
    """One file as it is sent."""

    body: bytes
    content_type: str
    digest: str
    modified_ns: int

    @cached_property
    def packed(self) -> bytes | None:
        """The same compressed; None where that is no gain. No file has a secret that its size could tell."""
        if self.content_type in ALREADY_PACKED:
            return None
        packed = gzip.compress(self.body, mtime=0)
        return packed if len(packed) < PACKED_SHARE * len(self.body) else None


class Assets:
    """Every servable file beneath a directory, by its path there."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or assets_directory()
        self._assets = dict(_listed(self.directory))

    def get(self, name: str) -> Asset | None:
        """The file of that name, as it is now; None if it was not there when the daemon started."""
        held = self._assets.get(name)
        if held is None:
            return None
        try:
            changed = (self.directory / name).stat().st_mtime_ns != held.modified_ns
            if changed:
                held = self._assets[name] = _read(self.directory / name)
        except OSError as error:
            log.info("asset %s: %s; the copy in memory is sent", name, error.strerror)
        return held


def routes(assets: Assets) -> APIRouter:
    """The shells and `/static/`."""
    router = APIRouter()

    def shell(path: str, name: str) -> None:
        @router.api_route(path, methods=["GET", "HEAD"])
        async def page(request: Request) -> Response:
            return _reply(assets, name, request)

    shell("/", DASHBOARD_PAGE)
    shell("/login", LOGIN_PAGE)
    shell("/agents/{name}/", AGENT_PAGE)
    shell("/stats", STATS_PAGE)
    shell("/agents/{name}/stats", AGENT_STATS_PAGE)

    @router.api_route("/agents/{name}", methods=["GET", "HEAD"])
    async def without_slash(
        name: Annotated[str, PathPart(pattern=r"^[a-z0-9-]{1,9}$")], request: Request
    ) -> Response:
        base_path = request.scope["state"]["base_path"]
        return Response(status_code=308, headers={"location": f"{base_path}agents/{name}/"})

    @router.api_route("/static/{path:path}", methods=["GET", "HEAD"])
    async def static(path: str, request: Request) -> Response:
        return _reply(assets, path, request)

    @router.api_route("/favicon.ico", methods=["GET", "HEAD"])
    async def favicon(request: Request) -> Response:
        return _reply(assets, "favicon.ico", request)

    return router


def _reply(assets: Assets, name: str, request: Request) -> Response:
    asset = assets.get(name)
    if asset is None:
        raise WebRefusal(404, "not_found", "there is no such file")
    packed = asset.packed if _takes_gzip(request) else None
    etag = f'"{asset.digest}"' if packed is None else f'"{asset.digest}-gzip"'  # each form has its own
    headers = {"etag": etag, "cache-control": "no-cache", "vary": "accept-encoding"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if packed is not None:
        headers["content-encoding"] = "gzip"
    return Response(packed or asset.body, headers={**headers, "content-type": asset.content_type})


def _takes_gzip(request: Request) -> bool:
    offered = request.headers.get("accept-encoding", "").lower().split(",")
    codings = [each.replace(" ", "").partition(";") for each in offered]
    return any(name == "gzip" and not _NEVER.match(quality) for name, _, quality in codings)


def _listed(directory: Path) -> Iterator[tuple[str, Asset]]:
    for folder, subfolders, files in os.walk(directory, followlinks=False):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            path = Path(folder) / name
            if name.startswith(".") or path.suffix not in CONTENT_TYPES or path.is_symlink():
                continue
            yield path.relative_to(directory).as_posix(), _read(path)


def _read(path: Path) -> Asset:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        body = file.read(FILE_MAX_BYTES)
        modified_ns = os.fstat(descriptor).st_mtime_ns
    return Asset(body, CONTENT_TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:32], modified_ns)
