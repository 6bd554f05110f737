"""What the server counts, for Prometheus: ``GET /metrics``."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server; a registry of its own, so that several fit into one process."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "vla_requests",
            "Requests for actions, by protocol and HTTP status",
            ["protocol", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "vla_request_seconds",
            "From the decoded request to its answer, queueing included",
            ["protocol"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.errors = Counter("vla_policy_errors", "Questions on which the policy raised", registry=self.registry)
        self.queue = Gauge("vla_queue_length", "Questions that wait for the policy", registry=self.registry)
        self.sessions = Gauge("vla_sessions", "Episodes whose memory is kept", registry=self.registry)
        self.batch_size = Histogram(
            "vla_batch_size", "Questions answered in one call of the policy", buckets=_BATCHES, registry=self.registry
        )
        self.wait_seconds = Histogram(
            "vla_queue_seconds", "A question's time in the queue", buckets=_SECONDS, registry=self.registry
        )
        self.inference_seconds = Histogram(
            "vla_inference_seconds", "A call of the policy", buckets=_SECONDS, registry=self.registry
        )

    def text(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return generate_latest(self.registry)
