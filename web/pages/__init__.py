"""One module per page or group of pages. Each reads the request, calls the parts, and renders a template."""
