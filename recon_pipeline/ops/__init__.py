"""Health, metrics and the order status page over HTTP: read-only, from one snapshot that is taken every few seconds."""
