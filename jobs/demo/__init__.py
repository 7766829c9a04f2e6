"""The demo: a small rendered world in the original public formats, and the whole path over it."""
