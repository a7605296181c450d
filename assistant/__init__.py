"""The assistant: one conversation turn, and its faces."""

from assistant.build import build_assistant
from assistant.config import Settings, load
from assistant.dialogue import Assistant
from assistant.schema import Reply

__all__ = ["Assistant", "Reply", "Settings", "build_assistant", "load"]
