"""Where "once" is kept: payloads stored once by content, table rows merged once by key."""
