"""One FlowModel a network: its facts (ModelSpec) and its velocity; the method itself is elsewhere."""
