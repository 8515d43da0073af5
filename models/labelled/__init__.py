"""Labelled images: what they are, how they are read, and what a network says of them."""
