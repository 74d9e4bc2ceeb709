"""The web application: pages, HTTP API, webhooks and sign-in, over the same functions as the command line."""
