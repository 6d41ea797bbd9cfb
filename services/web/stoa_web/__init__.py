"""The page in the browser and the gateway that puts all services under one address."""
