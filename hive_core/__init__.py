"""The host daemon hive-c0re and its CLI. Never imports the harness."""
