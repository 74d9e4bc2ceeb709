"""The command line and the web application: the only place that wires the parts together."""
