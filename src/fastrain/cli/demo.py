"""The verb demo."""
def demo(): pass
