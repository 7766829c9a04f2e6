"""The two transformer layers of this project's models and the attention inside them."""
