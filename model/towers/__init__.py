"""Encoders built from layers: a picture tower, a text tower, and the fusion tower in which text attends to a picture."""
