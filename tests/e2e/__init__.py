"""The site in a real Chromium, before real processes: what a person does and sees."""
