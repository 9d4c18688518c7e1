"""Queues that others rely on, each behind the few calls that `bench_peers.py` measures."""
