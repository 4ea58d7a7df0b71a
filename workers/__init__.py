"""Processes that claim work, talk to the slow world and write facts. They answer no requests."""
