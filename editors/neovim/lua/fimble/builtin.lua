-- Suggestions as Neovim's own ghost text, `vim.lsp.inline_completion` of Neovim 0.12, by its public functions and events
-- alone, for those who choose it. Written from its documentation and source; not yet run in that version.

local cursor = require("fimble.cursor")
local ghost = require("fimble.ghost")
local notice = require("fimble.notice")
local server = require("fimble.server")
local api = vim.api
local M = {}

local function builtin(enable)
  vim.lsp.inline_completion.enable(enable, { client_id = server.client().id })
end

-- Has Neovim ask again, as it does when the cursor moves.
function M.request()
  if cursor.inserting() and server.client(api.nvim_get_current_buf()) then
    api.nvim_exec_autocmds("CursorMovedI", { buffer = api.nvim_get_current_buf() })
  end
end

-- Switches it on for the server, once that is there.
function M.update()
  if server.client() and not vim.lsp.inline_completion.is_enabled({ client_id = server.client().id }) then
    builtin(true)
  end
  if notice.standing() and not server.loading() then
    notice.say("")
  end
end

-- Neovim hides it by itself.
function M.hide() end

-- Whether ghost text is shown that can be accepted.
function M.visible()
  local namespace = api.nvim_create_namespace("nvim.lsp.inline_completion")
  return #api.nvim_buf_get_extmarks(0, namespace, 0, -1, { limit = 1 }) > 0
end

-- Inserts what is shown, and runs the item's command; false if nothing is shown.
function M.accept()
  return vim.lsp.inline_completion.get()
end

-- Inserts the next part of what is shown, as the server's command says; false if nothing is shown.
function M.accept_part(command)
  local bufnr = api.nvim_get_current_buf()
  local client = server.client(bufnr)
  if not client or not M.visible() then
    return false
  end
  local argument = vim.tbl_extend("force", cursor.params(client), { apply = false })
  local params = { command = command, arguments = { argument } }
  local reply = client:request_sync("workspace/executeCommand", params, 1000, bufnr)
  local part = reply and reply.result
  if type(part) == "table" then
    local _, _, before, after = cursor.here()
    local to = vim.str_byteindex(before .. after, client.offset_encoding, part.range["end"].character, false)
    ghost.insert(part.insertText, to - #before)
  end
  return true
end

-- Sends what is shown away; false if nothing is shown.
function M.dismiss()
  local client, visible = server.client(api.nvim_get_current_buf()), M.visible()
  if client and visible then
    server.run(client, "fimble.dismiss", cursor.params(client))
    builtin(false) -- the only way to forget the item
    builtin(true)
  end
  return visible
end

-- Shows another suggestion at the cursor: the server turns to it, and Neovim asks for it.
function M.cycle(back)
  local client = server.client(api.nvim_get_current_buf())
  if client then
    local argument = vim.tbl_extend("force", cursor.params(client), { back = back or false })
    server.run(client, "fimble.cycle", argument, M.request)
  end
end

-- Asks because the user wants a completion here: the server then knows one, and Neovim asks for it.
function M.trigger()
  local bufnr = api.nvim_get_current_buf()
  local client = server.client(bufnr)
  if client then
    local params = cursor.params(client)
    params.context = { triggerKind = 1 }
    client:request("textDocument/inlineCompletion", params, M.request, bufnr)
  end
end

return M
