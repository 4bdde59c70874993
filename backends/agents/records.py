"""What is kept of agents, sessions and turns, in the form that the port `AgentStore` gives and takes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from generated.models import AgentConfig, InterleavedContent, Turn, TurnError

Purpose = Literal["file", "chunks"]
INTERRUPTED = TurnError(code="interrupted", message="the server process that ran this turn ended before the turn did")


@dataclass(frozen=True, slots=True)
class StoredAgent:
    """An agent: its id and what it was created with. owner: of the row."""

    agent_id: str
    config: AgentConfig
    owner: str


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session. expires_at: None for one that is kept until somebody deletes it. owner: of the row."""

    session_id: str
    agent_id: str
    name: str
    started_at: datetime
    owner: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A turn and what the model is told beside it.

    turn: as clients read it: without `completed_at` while it runs, with an `error` if it failed. document_context:
    text that the turn's documents add to its last user message, "" for none. retrieved: what retrieval added to it.
    """

    turn: Turn
    document_context: str = ""
    retrieved: InterleavedContent | None = None

    @property
    def completed(self) -> bool:
        """Whether it came to its end, and is part of the conversation."""
        return self.turn.completed_at is not None and self.turn.error is None


@dataclass(frozen=True, slots=True)
class SessionFile:
    """What a session keeps of a document, or a file that a tool made.

    name: without folders, unique in the session for its purpose. digest: SHA-256 of the document as it was sent, hex.
    purpose: `file` for the code interpreter; `chunks`: it is in the session's vector db, and `data` is empty.
    """

    name: str
    mime_type: str
    data: bytes
    digest: str
    purpose: Purpose = "file"
