-- The server's document is the buffer. Neovim 0.11 miscounts lines in two places: its edits suppose a line break at the
-- end of a file that has none, and one that leaves nothing but an empty line forgets a break.

local api = vim.api
local M = {}

local breaks = {} ---@type table<string, integer> line breaks in each document, as the server has it

local function line_breaks(text)
  return select(2, text:gsub("\r\n?", "\n"):gsub("\n", "\n"))
end

-- Counts the line breaks of a didOpen or didChange of one of `buffers`; where the count is off the server gets the whole text instead.
function M.keep(params, buffers)
  local uri, changes = params.textDocument.uri, params.contentChanges or {}
  breaks[uri] = params.textDocument.text and line_breaks(params.textDocument.text) or breaks[uri]
  for _, change in ipairs(changes) do
    breaks[uri] = breaks[uri] + line_breaks(change.text) - (change.range["end"].line - change.range.start.line)
  end
  for _, bufnr in ipairs(changes[1] and buffers or {}) do
    if vim.uri_from_bufnr(bufnr) == uri and breaks[uri] ~= api.nvim_buf_line_count(bufnr) then
      local line_break = ({ unix = "\n", dos = "\r\n", mac = "\r" })[vim.bo[bufnr].fileformat]
      local text = table.concat(api.nvim_buf_get_lines(bufnr, 0, -1, true), line_break) .. line_break
      params.contentChanges, breaks[uri] = { { text = text } }, line_breaks(text)
    end
  end
end

return M
