"""What the tests share: servers to talk to, and how they are told apart."""
