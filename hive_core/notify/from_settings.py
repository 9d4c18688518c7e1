"""What the operator set up, as a notifier."""

import logging
from collections.abc import Callable
from importlib.util import find_spec

from hive_core.config import Settings
from hive_core.notify.courier import NOT_INSTALLED
from hive_core.notify.ledger import Ledger
from hive_core.notify.notifier import Manners, Notifier
from hive_core.notify.quiet import QuietHours
from hive_core.notify.targets import read_targets
from hive_core.waiting.queue import WaitingQueue

log = logging.getLogger(__name__)


def notifier_of(settings: Settings, queue: WaitingQueue, dashboard_url: Callable[[], str]) -> Notifier | None:
    """None where no notifications are wanted; raises `HiveError` if the file of targets cannot be used."""
    if settings.notify_urls_file is None:
        return None
    targets = read_targets(settings.notify_urls_file)
    if find_spec("apprise") is None:
        log.error("notifications cannot be sent: %s", NOT_INSTALLED)
    hours = settings.notify_quiet_hours
    manners = Manners(
        base_url=lambda: settings.notify_base_url or dashboard_url(),
        detail=settings.notify_detail,
        quiet=None if hours is None else QuietHours.parse(hours),
        pause_ms=int(settings.notify_pause_seconds * 1000),
    )
    return Notifier(queue, targets, Ledger(settings.paths.notify_ledger), manners)
