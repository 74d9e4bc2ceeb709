"""For operators: the checks of `bidden doctor`, and the consumer group's lag as the site shows it."""
