"""Networks that turn images into features and binary codes."""
