"""The LSP client of `evaluation`, under the name that it had."""

from evaluation.lsp_client import CAPABILITIES, SERVER, LspClient, LspError

__all__ = ["CAPABILITIES", "SERVER", "LspClient", "LspError"]
