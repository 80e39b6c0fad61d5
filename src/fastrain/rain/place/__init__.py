"""The task of one place: rain and heavy rain there, in each of the next hours, as the first work asked."""
