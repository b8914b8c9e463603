"""The SDKs of Segment and RudderStack, unchanged, against towpath."""
