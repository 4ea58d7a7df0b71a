"""What `/metrics` shows. Labels are route templates and kinds, never ids, organizations or people."""

from __future__ import annotations

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

# From a cached read to the longest statement a request may run.
_REQUEST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

HTTP_SECONDS = Histogram(
    "hub_http_request_seconds", "Answering one request", ["route", "method", "code"], buckets=_REQUEST
)
REST_SECONDS = Histogram(
    "hub_rest_statement_seconds", "The one statement of a REST request", ["table", "verb"], buckets=_REQUEST
)
WS_SESSIONS = Gauge("hub_ws_sessions", "Live sessions of this process")
WS_FRAMES = Counter("hub_ws_frames_total", "Frames written to live sessions")
WS_DROPPED = Counter("hub_ws_dropped_total", "Live sessions closed by us", ["reason"])
INGEST_SECONDS = Histogram(
    "hub_ingest_seconds", "From a webhook's last byte to its commit", ["channel"], buckets=_REQUEST
)
EVENT_LAG = Histogram(
    "hub_event_lag_seconds", "From an event's commit to its offer to local sessions", buckets=_REQUEST
)
OUTBOUND_TOTAL = Counter("hub_outbound_total", "Sends settled", ["channel", "result"])
OUTBOUND_QUEUE = Gauge("hub_outbound_queue", "Rows of the outbox", ["state"])
OUTBOUND_OLDEST = Gauge("hub_outbound_oldest_seconds", "Age of the oldest row of the outbox", ["state"])
MEDIA_TOTAL = Counter(
    "hub_media_total", "Files fetched from providers (in) and given to them (out)", ["direction", "result"]
)
MEDIA_BYTES = Counter("hub_media_bytes_total", "Bytes of files that were transferred whole", ["direction"])
MEDIA_QUEUE = Gauge("hub_media_queue", "Files that wait to be fetched, by state", ["state"])
MEDIA_OLDEST = Gauge("hub_media_oldest_seconds", "Age of the oldest of them", ["state"])
POOL_WAIT = Histogram(
    "hub_pool_wait_seconds", "Waiting for a database connection", ["purpose"], buckets=_REQUEST
)
JOB_SECONDS = Histogram(
    "hub_job_seconds", "One piece of background work", ["kind"], buckets=(*_REQUEST, 30, 60)
)
WEBHOOK_REFUSED = Counter(
    "hub_webhook_refused_total", "Provider deliveries that were not applied", ["channel", "reason"]
)
WEBHOOK_KEPT = Counter(
    "hub_webhook_kept_total", "Parts of signed deliveries kept for an operator", ["channel", "reason"]
)
WEBHOOK_DELIVERY = Counter("hub_webhook_delivery_total", "Attempts of outgoing webhooks", ["result"])
SPOOLED = Counter("hub_spooled_total", "Deliveries kept in the spool while the database was away", ["result"])
DISK_FREE = Gauge("hub_disk_free_bytes", "Free bytes on the disk of the data folder")
DISK_LEVEL = Gauge("hub_disk_level", "0 enough room, 1 low, 2 full: nothing is written")
REDIS_AWAY = Gauge("hub_redis_away", "1 while this process cannot reach Redis")
CLOCK_OFFSET = Gauge("hub_clock_offset_seconds", "By how much the database's clock is ahead of this host's")
RATE_LIMITED = Counter("hub_rate_limited_total", "Requests refused by a rate limit", ["limit"])

CONTENT_TYPE = CONTENT_TYPE_LATEST


def render() -> bytes:
    """The text that Prometheus scrapes."""
    return generate_latest(REGISTRY)
