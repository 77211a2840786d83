"""The language server: documents, syntax, prompts and edits. Never imports torch."""
