"""The addresses of the tables service."""
