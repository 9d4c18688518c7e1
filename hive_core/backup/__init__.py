"""A hive in one file, and back: `hive-c0re backup` and `hive-c0re restore`.

What is in the file is the hive as it was at one moment (`moment`): what a start of the daemon would have
found if it had been killed then. Agents' own files follow as they are read, a little later.
"""
