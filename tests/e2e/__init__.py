"""The site in a real Chromium, before real processes: what a person does, sees and is told."""
