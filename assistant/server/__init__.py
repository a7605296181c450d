"""The HTTP API: OpenAI's, with citations, moderation, and every user apart from the others."""
