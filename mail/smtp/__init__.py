"""The sender for SMTP: a pool of connections, the session that opens one, and the dialogue about each mail."""
