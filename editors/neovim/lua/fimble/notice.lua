-- What the user is told: at the end of the line in insert mode, else on the command line.

local cursor = require("fimble.cursor")
local api = vim.api
local M = {}

local notices = api.nvim_create_namespace("fimble.notices")
local noticed ---@type integer? the buffer with a notice in it

-- Whether a notice stands in a buffer.
function M.standing()
  return noticed ~= nil
end

-- Shows a line, "" for none. In insert mode `-- INSERT --` would hide it on the command line.
function M.say(text)
  if noticed and api.nvim_buf_is_valid(noticed) then
    api.nvim_buf_clear_namespace(noticed, notices, 0, -1)
  end
  if vim.fn.strdisplaywidth(text) > vim.v.echospace then
    text = vim.fn.strcharpart(text, 0, vim.v.echospace - 13) .. "… (:messages)"
  end
  local bufnr, row = cursor.here()
  noticed = cursor.inserting() and text ~= "" and bufnr or nil
  if noticed then
    api.nvim_buf_set_extmark(bufnr, notices, row, 0, { virt_text = { { "  " .. text, "Comment" } } })
  elseif vim.o.cmdheight > 0 and api.nvim_get_mode().mode == "n" then
    api.nvim_echo({ { text } }, false, {})
  end
end

-- Tells what the user must know, without a prompt that would take the next key.
M.tell = vim.schedule_wrap(function(message)
  message = "fimble: " .. message:gsub("^fimble: ", "")
  local usual = vim.o.messagesopt
  vim.o.messagesopt = usual:gsub("hit%-enter", "wait:0")
  vim.notify_once(message, vim.log.levels.WARN)
  vim.o.messagesopt = usual
  M.say(message)
end)

return M
