"""What every service of Stoa needs: log, relay, follower, projections, bus, settings, logging, health."""
