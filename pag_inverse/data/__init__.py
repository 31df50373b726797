"""Files to tensors and back: images, arrays, data sets; the only place where [-1, 1] becomes 8 bits and back."""
