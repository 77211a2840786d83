-- Suggestions as fimble's own ghost text: asked for at each key, kept while the keys agree, accepted, turned through.

local cursor = require("fimble.cursor")
local ghost = require("fimble.ghost")
local notice = require("fimble.notice")
local server = require("fimble.server")
local api, lsp = vim.api, vim.lsp
local M = {}

local METHOD = "textDocument/inlineCompletion"
local INVOKED, AUTOMATIC = 1, 2 -- why it is asked
local PART_MS = 1000 -- most that a key waits for the server to say what the next word is

local asked ---@type { place: string, id: integer?, done: boolean? }?

local function cancel()
  if asked and asked.id and not asked.done and server.client() then
    server.client():cancel_request(asked.id)
  end
  asked = nil
end

-- Takes the ghost text away.
function M.hide()
  ghost.show(nil)
  cancel()
end

-- Puts the first of the answer's items on the screen, if the text and the place are still those that were asked for.
local function answer(ask, result, encoding)
  if ask ~= asked or ask.place ~= cursor.place() or not cursor.inserting() then
    return
  end
  local item = type(result) == "table" and (result.items or result)[1]
  ghost.show(item and ghost.from(item, encoding) or nil)
end

local function request(kind)
  cancel()
  local bufnr = api.nvim_get_current_buf()
  local client = server.client(bufnr)
  if not client or not cursor.inserting() then
    return ghost.show(nil)
  end
  local ask = { place = cursor.place() }
  asked = ask
  local params = cursor.params(client)
  params.context = { triggerKind = kind }
  -- The buffer's real number: with 0 Neovim would not send the pending changes first.
  _, ask.id = client:request(METHOD, params, function(err, result)
    ask.done = true
    if err then
      lsp.log.error("fimble", METHOD, err)
    end
    answer(ask, result, client.offset_encoding)
  end, bufnr)
end

-- Asks for a completion at the cursor, as each key does; what was asked before is cancelled.
function M.request()
  request(AUTOMATIC)
end

-- Asks because the user wants a completion here: also for a doubtful one.
function M.trigger()
  request(INVOKED)
end

-- The text or the cursor has changed: keeps showing what agrees with it, and asks again.
function M.update()
  if asked and asked.place == cursor.place() then
    return -- TextChangedI and CursorMovedI both come for one key
  end
  ghost.show(ghost.shown and ghost.rest(ghost.shown))
  if notice.standing() and not server.loading() then
    notice.say("")
  end
  M.request()
end

-- Whether ghost text is shown that can be accepted.
function M.visible()
  return ghost.shown ~= nil and ghost.rest(ghost.shown) ~= nil
end

-- Inserts what is shown; false if nothing is.
function M.accept()
  local left = ghost.shown and ghost.rest(ghost.shown)
  if not left then
    return false
  end
  M.hide()
  ghost.insert(left.text, left.covers)
  local client = server.client(left.bufnr)
  if client and left.command then
    server.run(client, left.command.command, left.command.arguments[1])
  end
  return true
end

-- Inserts the next part of what is shown, as the server's command says; false if nothing is. Waits for the answer, so
-- that keys keep their order.
function M.accept_part(command)
  local left = ghost.shown and ghost.rest(ghost.shown)
  local bufnr = api.nvim_get_current_buf()
  local client = server.client(bufnr)
  if not left or not client then
    return false
  end
  local argument = vim.tbl_extend("force", cursor.params(client), { apply = false })
  local params = { command = command, arguments = { argument } }
  local reply = client:request_sync("workspace/executeCommand", params, PART_MS, bufnr)
  local part = reply and reply.result
  if type(part) ~= "table" then
    M.request() -- the server knows of no such suggestion any more
    return true
  end
  local _, _, before, after = cursor.here()
  local to = vim.str_byteindex(before .. after, client.offset_encoding, part.range["end"].character, false)
  M.hide()
  ghost.insert(part.insertText, to - #before)
  ghost.show(ghost.rest(left))
  return true
end

-- Sends what is shown away: the server does not offer it here again. False if nothing is shown.
function M.dismiss()
  local client = server.client(api.nvim_get_current_buf())
  local visible = M.visible()
  if visible and client then
    server.run(client, "fimble.dismiss", cursor.params(client))
  end
  M.hide()
  return visible
end

-- Shows another suggestion at the cursor; the server looks for some where it knows only one.
function M.cycle(back)
  cancel()
  local client = server.client(api.nvim_get_current_buf())
  if not client or not cursor.inserting() then
    return
  end
  local ask = { place = cursor.place(), done = true }
  asked = ask
  local was = ghost.shown and ghost.shown.text
  local argument = vim.tbl_extend("force", cursor.params(client), { back = back or false })
  server.run(client, "fimble.cycle", argument, function(result)
    if ask == asked and type(result) == "table" then
      answer(ask, result, client.offset_encoding)
    end
    if ask == asked and (ghost.shown and ghost.shown.text) == was then
      notice.say("fimble: no other suggestion")
    end
  end)
end

return M
