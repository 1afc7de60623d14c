"""How people and Prometheus see sidecar: page, metrics, webhooks, logs, open incidents."""
