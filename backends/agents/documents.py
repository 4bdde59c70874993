"""What a turn does with the documents it is given: files for the code interpreter, chunks for retrieval, or context.

A client that runs tools itself sends the documents of a question again with each result. What the session has already,
by the SHA-256 of what was sent, is neither read nor indexed again.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from backends.agents.records import SessionFile, StoredSession, StoredTurn
from backends.config import AgentSettings
from backends.context import CallContext
from backends.errors import Unsupported
from backends.models.catalog import DEFAULT_EMBEDDING_MODEL
from backends.ports import AgentStore, Retrieval, ToolFile
from backends.resources import Models, VectorDbs
from generated.models import DocumentContent, RAGDocument, RegisterVectorDbRequest, TurnDocument

_UNSAFE = re.compile(r"[^\w.\-]+")
_MAX_NAME = 100


class Loaded(Protocol):
    """A document as read. text: None where it has none. name: what its source calls it, "" for nothing."""

    @property
    def text(self) -> str | None: ...
    @property
    def data(self) -> bytes: ...
    @property
    def mime_type(self) -> str: ...
    @property
    def name(self) -> str: ...


class DocumentReader(Protocol):
    """Reads what clients give as a document, wherever it lies."""

    def load(
        self, context: CallContext, content: DocumentContent, mime_type: str | None, *, where: str, text: bool = True
    ) -> Loaded:
        """Fetch the document, and read its text if it is wanted.

        Raises:
            BadRequest, Forbidden, PayloadTooLarge: with `where`. Unsupported: a type without text.
        """


@dataclass(frozen=True, slots=True)
class SessionDocuments:
    """The documents of sessions, and the files that their tools make."""

    store: AgentStore
    reader: DocumentReader
    models: Models
    vector_dbs: VectorDbs
    retrieval: Retrieval
    settings: AgentSettings

    def take(
        self,
        context: CallContext,
        session: StoredSession,
        turns: Sequence[StoredTurn],
        documents: Sequence[TurnDocument],
        *,
        as_files: bool,
        as_chunks: bool,
    ) -> str:
        """Put the documents where the turn's tools find them; what is to be added to the question, "" for nothing.

        turns: those of the session so far.

        Raises:
            BadRequest: a document that cannot be read, by its place. Forbidden, PayloadTooLarge.
        """
        added: list[str] = []
        if as_files and documents:
            added.append(self._as_files(context, session, documents))
        if as_chunks:
            self._as_chunks(context, session, documents)
        if not (as_files or as_chunks):
            known = "\n\n".join(stored.document_context for stored in turns if stored.completed)
            texts = (self._text(context, document, i) for i, document in enumerate(documents))
            added += [text for text in texts if text not in known]
        return "\n\n".join(added)

    def check_embedding_model(self, context: CallContext) -> None:
        """Return if documents can be indexed. Raises UnknownReference, BadRequest: the embedding model is missing."""
        self.models.embedder(context, self._embedding_model, where="/documents")

    def keep(self, context: CallContext, session: StoredSession, files: Sequence[ToolFile]) -> None:
        """Keep what a tool made for later calls of the session; a file replaces that of its name."""
        made = [
            SessionFile(_safe(file.name) or "file", file.mime_type, file.data, hashlib.sha256(file.data).hexdigest())
            for file in files
        ]
        self.store.put_files(context, session.session_id, made)

    def files(self, context: CallContext, session: StoredSession) -> list[ToolFile]:
        """All files of the session."""
        return [
            ToolFile(file.name, file.data, file.mime_type) for file in self.store.files(context, session.session_id)
        ]

    def vector_db(self, context: CallContext, session: StoredSession) -> str | None:
        """The vector db that holds the documents of the session, None if there is none."""
        name = vector_db_of(session)
        return name if self.vector_dbs.get(context, name) is not None else None

    @property
    def _embedding_model(self) -> str:
        return self.settings.embedding_model or DEFAULT_EMBEDDING_MODEL

    def _as_files(self, context: CallContext, session: StoredSession, documents: Sequence[TurnDocument]) -> str:
        known = self.store.digests(context, session.session_id, "file")
        names = []
        for position, document in enumerate(documents):
            digest = _digest(document)
            if digest not in known:
                where = f"/documents/{position}/content"
                loaded = self.reader.load(context, document.content, document.mime_type, where=where, text=False)
                name = _free_name(loaded, set(known.values()), len(known) + 1)
                file = SessionFile(name, loaded.mime_type, loaded.data, digest)
                self.store.put_files(context, session.session_id, [file])
                known[digest] = name
            names.append(known[digest])
        listed = ", ".join(f'"{name}"' for name in dict.fromkeys(names))
        return f"Files that the code interpreter finds in its working directory: {listed}"

    def _as_chunks(self, context: CallContext, session: StoredSession, documents: Sequence[TurnDocument]) -> None:
        known = self.store.digests(context, session.session_id, "chunks")
        for position, document in enumerate(documents):
            digest = _digest(document)
            if digest in known:
                continue
            vector_db = vector_db_of(session)
            if self.vector_dbs.get(context, vector_db) is None:
                request = RegisterVectorDbRequest(vector_db_id=vector_db, embedding_model=self._embedding_model)
                self.vector_dbs.register(context, request)
            document_id = f"document_{digest[:16]}"
            self.retrieval.insert(
                context,
                vector_db,
                [
                    RAGDocument(
                        document_id=document_id, content=document.content, mime_type=document.mime_type, metadata={}
                    )
                ],
                chunk_size_in_tokens=self.settings.chunk_tokens,
                where=f"/documents/{position}",
            )
            # After the chunks: a kill in between indexes again, which replaces the document of that id.
            kept = SessionFile(document_id, document.mime_type, b"", digest, "chunks")
            self.store.put_files(context, session.session_id, [kept])
            known[digest] = document_id

    def _text(self, context: CallContext, document: TurnDocument, position: int) -> str:
        where = f"/documents/{position}/content"
        try:
            loaded = self.reader.load(context, document.content, document.mime_type, where=where)
        except Unsupported as error:
            tip = "an agent with builtin::code_interpreter takes it as a file"
            raise Unsupported(f"{error.message}; {tip}", where=error.where, internal=error.internal) from error
        return loaded.text or ""


def vector_db_of(session: StoredSession) -> str:
    """The id of the vector db that is made for the documents of a session."""
    return f"vector_db_{session.session_id}"


def _digest(document: TurnDocument) -> str:
    return hashlib.sha256(json.dumps(document.model_dump(mode="json")).encode()).hexdigest()


def _free_name(loaded: Loaded, taken: set[str], number: int) -> str:
    suffix = mimetypes.guess_extension(loaded.mime_type) or ""
    name = _safe(loaded.name) or f"document_{number}{suffix}"
    if name not in taken:
        return name
    stem, dot, ending = name.rpartition(".")
    stem = stem if dot else ending
    ending = dot + ending if dot else ""
    return next(candidate for n in range(2, len(taken) + 3) if (candidate := f"{stem}_{n}{ending}") not in taken)


def _safe(name: str) -> str:
    """The name without folders and without characters that a shell or a file system might mind."""
    return _UNSAFE.sub("_", name.replace("\\", "/").rpartition("/")[2]).lstrip(".")[-_MAX_NAME:]
