"""Delivers one notification by Apprise, as a process of its own: `python -P -m hive_core.notify.courier`.

Reads `{"url", "title", "body"}` from standard input and prints `{"ok", "note"}`. Whatever a server on the
other side does (hangs, sends without end, sends rubbish) happens to this process, which core gives little
memory and little time. The note holds nothing of the URL and nothing that the server sent but its status.
"""

import json
import logging
import sys
from typing import Any

CONNECT_SECONDS = 8.0
READ_SECONDS = 12.0
NOT_INSTALLED = "Apprise is not installed; install hyperhive[notify]"


class _Watched:
    """How the HTTP requests of a service ended. They follow no redirects: only what was named is called."""

    def __init__(self) -> None:
        self.note = ""

    def watch(self) -> None:
        import requests

        send = requests.Session.send

        def watched(session: Any, request: Any, **how: Any) -> Any:
            how.update(allow_redirects=False, timeout=(CONNECT_SECONDS, READ_SECONDS))
            try:
                response = send(session, request, **how)
            except requests.RequestException as error:
                self.note = _cause(error)
                raise
            self.note = "" if response.ok else f"the server answered {response.status_code}"
            if response.is_redirect:
                self.note = f"the server answered {response.status_code}: redirects are not followed"
            return response

        requests.Session.send = watched  # type: ignore[method-assign,assignment]


def _cause(error: Exception) -> str:
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not valid"
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.ConnectionError):
        return "the server cannot be reached, or ended the connection"
    return "the server's answer makes no sense"


def deliver(url: str, title: str, body: str) -> dict[str, Any]:
    """Send it, and tell what became of it."""
    try:
        import apprise
    except ImportError:
        return {"ok": False, "note": NOT_INSTALLED}
    logging.disable(logging.CRITICAL)  # its log lines name addresses
    watched = _Watched()
    watched.watch()
    sender = apprise.Apprise()
    if not sender.add(url):
        return {"ok": False, "note": "Apprise does not understand this URL"}
    ok = bool(sender.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT))
    return {"ok": ok, "note": "" if ok else watched.note or "it was not delivered"}


def main() -> None:
    """One delivery."""
    order = json.loads(sys.stdin.buffer.read())
    answer = deliver(order["url"], order["title"], order["body"])
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
