"""What both sides of hyperhive speak: names, paths, the wire, events.

Imports neither the host daemon (`hive_core`) nor the harness (`hive_agent`).
"""

__version__ = "0.1.0"
