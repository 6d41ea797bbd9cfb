"""``stoa up``: all services and the broker on one machine, as processes of their own."""
