"""Celery's settings, as a function of the broker's URL. Each deviation from a default has its reason."""

from typing import Any

from kombu import Queue

_OF_REDIS = {
    "visibility_timeout": 600,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_keepalive": True,
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "health_check_interval": 15,
    "retry_on_timeout": True,
    "client_name": "dispatcher",
}
_OF_RABBITMQ = {"confirm_publish": True}


def broker_url(url: str) -> str:
    """Celery's spelling of a broker's URL: sockets of Redis are redis+socket://PATH?virtual_host=N."""
    if not url.startswith("unix://"):
        return url
    path, _, query = url.removeprefix("unix://").partition("?")
    number = next((q.removeprefix("db=") for q in query.split("&") if q.startswith("db=")), "0")
    return f"redis+socket://{path}?virtual_host={number}"


def celery_settings(broker: str, queues: list[str], beat: dict[str, Any]) -> dict[str, Any]:
    """Messages are hints: PostgreSQL redelivers, so nothing here retries, delays or keeps results."""
    return {
        "broker_url": broker_url(broker),
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_serializer": "json",
        "task_queues": [Queue(name) for name in queues],
        "task_default_queue": queues[0],
        "task_create_missing_queues": False,
        # a late ack would only add duplicates and poison loops: rows, not messages, are redelivered
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_max_memory_per_child": 400_000,
        "worker_send_task_events": True,
        # one more label for each producer process in flower's metrics, for nothing
        "task_send_sent_event": False,
        "task_track_started": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_limit": 10,
        "broker_transport_options": _OF_RABBITMQ if broker.startswith("amqp") else _OF_REDIS,
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2},
        "event_queue_ttl": 10.0,
        "event_queue_expires": 60.0,
        "enable_utc": True,
        "timezone": "UTC",
        "beat_schedule": beat,
        # a name, because settings import nothing of ours: it sends no tick while nobody takes them
        "beat_scheduler": "tasks.beat:BoundedScheduler",
        "beat_max_loop_interval": 1.0,
    }
