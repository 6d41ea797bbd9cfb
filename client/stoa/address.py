"""Where Stoa answers if nobody says otherwise."""

__all__ = ["DEFAULT_URL"]

DEFAULT_URL = "http://127.0.0.1:8500"
