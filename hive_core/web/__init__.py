"""The operator's web: dashboard, agent pages, login."""

from hive_core.web.app import Web

__all__ = ["Web"]
