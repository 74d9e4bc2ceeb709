"""Who is asking, and what they may do: sessions, passwords, OpenID Connect, API tokens."""
