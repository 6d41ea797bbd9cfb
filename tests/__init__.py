"""Tests of Stoa. The folders mirror those of the services."""
