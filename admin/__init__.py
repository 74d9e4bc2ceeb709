"""The command line (and the web application to come): the only place that wires the parts together."""
