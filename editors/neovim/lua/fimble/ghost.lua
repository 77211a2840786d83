-- Ghost text: what it is, what is left of it, and how it is drawn.

local cursor = require("fimble.cursor")
local api = vim.api
local M = {}

local namespace = api.nvim_create_namespace("fimble")

---@class fimble.Ghost
---@field bufnr integer
---@field row integer from 0, where it was asked for
---@field before string the text before and after the cursor there
---@field after string
---@field text string what it adds
---@field covers integer how many bytes of `after` it brings itself
---@field command? lsp.Command tells the server that it was accepted

M.shown = nil ---@type fimble.Ghost?

-- What an item of the answer adds at the cursor; nil if it can't stand there.
function M.from(item, encoding)
  local bufnr, row, before, after = cursor.here()
  local text, covers, range = item.insertText, 0, item.range
  if range then
    local from = vim.str_byteindex(before .. after, encoding, range.start.character, false)
    local typed = before:sub(from + 1)
    covers = vim.str_byteindex(before .. after, encoding, range["end"].character, false) - #before
    local around = range.start.line == row and range["end"].line == row and from <= #before and covers >= 0
    if not around or not vim.startswith(text, typed) then
      return nil
    end
    text = text:sub(#typed + 1)
  end
  text = text:gsub("\r\n?", "\n")
  return { bufnr = bufnr, row = row, before = before, after = after, text = text, covers = covers, command = item.command }
end

-- The text between where the ghost text began and the cursor; nil if the line has changed before it.
local function typed_since(ghost, row, before)
  local lines = row > ghost.row and api.nvim_buf_get_lines(ghost.bufnr, ghost.row, row, true) or {}
  table.insert(lines, before)
  if not vim.startswith(lines[1], ghost.before) then
    return nil
  end
  lines[1] = lines[1]:sub(#ghost.before + 1)
  return table.concat(lines, "\n")
end

local function holds(text, parts)
  local at = 0
  for part in parts:gmatch(".") do
    at = text:find(part, at + 1, true)
    if not at then
      return false
    end
  end
  return true
end

-- What is left once the user has typed the beginning of it, also with brackets that the editor has closed by itself
-- or stepped over; nil if they typed something else.
function M.rest(ghost)
  local bufnr, row, before, after = cursor.here()
  local behind = ghost.after:sub(ghost.covers + 1)
  local covers = #after - #behind
  local far = bufnr ~= ghost.bufnr or row < ghost.row or row - ghost.row > select(2, ghost.text:gsub("\n", ""))
  if far or covers < 0 or not vim.endswith(after, behind) then
    return nil
  end
  local typed = typed_since(ghost, row, before)
  if not typed or not vim.startswith(ghost.text, typed) or #typed == #ghost.text then
    return nil
  end
  local left = ghost.text:sub(#typed + 1)
  if not holds(left, after:sub(1, covers)) then
    return nil
  end
  local now = { row = row, before = before, after = after, text = left, covers = covers }
  return vim.tbl_extend("force", ghost, now)
end

-- Puts a ghost text on the screen in place of the last: the lines look as they will once it is accepted. nil: none.
function M.show(ghost)
  if M.shown and api.nvim_buf_is_valid(M.shown.bufnr) then
    api.nvim_buf_clear_namespace(M.shown.bufnr, namespace, 0, -1)
  end
  M.shown = ghost
  if not ghost then
    return
  end
  local lines = vim.split(ghost.text, "\n")
  local first, hidden = lines[1], ghost.after -- which moves down behind the last of several lines
  if #lines == 1 then
    hidden = ghost.after:sub(1, ghost.covers)
    if vim.endswith(first, hidden) then
      first, hidden = first:sub(1, #first - #hidden), ""
      M.shown = first ~= "" and ghost or nil
    end
  end
  local below = vim.tbl_map(function(line)
    return { { line, "ComplHint" } }
  end, vim.list_slice(lines, 2))
  if #below > 0 then
    table.insert(below[#below], { ghost.after:sub(ghost.covers + 1) })
  end
  local text = first:gsub("\t", (" "):rep(vim.bo[ghost.bufnr].tabstop)) -- inline text does not expand them
  local blank = (" "):rep(vim.fn.strdisplaywidth(hidden, vim.fn.strdisplaywidth(ghost.before)))
  local function mark(options)
    api.nvim_buf_set_extmark(ghost.bufnr, namespace, ghost.row, #ghost.before, options)
  end
  -- In this order: the blanks then stand behind the text. "replace", or a bracket's MatchParen would colour all of it.
  mark({ virt_text = { { text, "ComplHint" } }, virt_text_pos = "inline", virt_lines = below, hl_mode = "replace" })
  mark({ virt_text = { { blank } }, virt_text_pos = "overlay", hl_mode = "combine" })
end

local function insert(text, covers)
  local bufnr, row, before = cursor.here()
  local lines, column = vim.split(text:gsub("\r\n?", "\n"), "\n"), #before
  vim.bo.undolevels = vim.bo.undolevels -- ends the undo step of what was typed
  api.nvim_buf_set_text(bufnr, row, column, row, column + covers, lines)
  api.nvim_win_set_cursor(0, { row + #lines, #lines[#lines] + (#lines == 1 and column or 0) })
  api.nvim_feedkeys(vim.keycode("<C-g>u"), "in", false) -- and this one
end

-- Puts `text` in place of `covers` bytes behind the cursor and the cursor behind it, as an undo step of its own.
function M.insert(text, covers)
  local done, problem = pcall(insert, text, covers)
  if not done and problem:find("E565") then -- an <expr> map may not change the text itself
    vim.schedule(function()
      insert(text, covers)
    end)
  elseif not done then
    error(problem, 0)
  end
end

return M
