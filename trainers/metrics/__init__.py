"""One file per published metric of the tasks: plain Python over predictions and annotations, no tensors needed."""
