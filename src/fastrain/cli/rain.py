"""The verbs train, verify and forecast."""
def train(): pass
def verify(): pass
def forecast(): pass
