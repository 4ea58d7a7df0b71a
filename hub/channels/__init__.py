"""Channels: one adapter per provider, and the door their webhooks come in by."""
