"""safety: text in, verdict out."""

from safety.guard import Guard, build_guard
from safety.schema import Context, Verdict

__all__ = ["Context", "Guard", "Verdict", "build_guard"]
