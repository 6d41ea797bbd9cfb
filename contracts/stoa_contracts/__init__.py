"""The language between the services of Stoa: events, job messages, subjects and the envelope."""
