-- Where the cursor stands.

local api = vim.api
local M = {}

-- Whether keys go into the text: insert mode without an open menu.
function M.inserting()
  return api.nvim_get_mode().mode:sub(1, 1) == "i" and vim.fn.pumvisible() == 0
end

-- Buffer, row from 0, and the line's text before and after the cursor.
function M.here()
  local row, col = unpack(api.nvim_win_get_cursor(0))
  local line = api.nvim_get_current_line()
  return api.nvim_get_current_buf(), row - 1, line:sub(1, col), line:sub(col + 1)
end

-- Names a text and a place in it: an answer for another one is not shown.
function M.place()
  local bufnr, row, before = M.here()
  return ("%d %d %d %d"):format(bufnr, api.nvim_buf_get_changedtick(bufnr), row, #before)
end

-- The parameters of a request about the cursor's place.
function M.params(client)
  return vim.lsp.util.make_position_params(0, client.offset_encoding)
end

return M
