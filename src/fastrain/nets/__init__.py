"""Networks and their layers: tensors in, tensors out; they know neither rain nor images."""
