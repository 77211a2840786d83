-- Ghost text from the fimble language server, for Neovim 0.11 and newer. One file, no dependencies:
--
--   dofile("/path/to/fimble.lua").setup({ cmd = { "fimble" } })
--
-- <Tab> accepts what is shown and <C-]> dismisses it; with nothing shown both do what they did before.

local api, lsp = vim.api, vim.lsp
local M = {}

local defaults = {
  cmd = { "fimble" },
  keys = { accept = "<Tab>", dismiss = "<C-]>" }, -- false: no key
  filetypes = nil, -- a list of file types; nil: every ordinary buffer
  settings = vim.empty_dict(), -- the server's settings, its section `fimble`
}

local METHOD = "textDocument/inlineCompletion"
local REST_MS = 100 -- the cursor rests: the server may compute the prompt there before the next key
local PAUSE_MS = 2000 -- before a server that ended is started again; twice as long each time
local ghosts, notices = api.nvim_create_namespace("fimble"), api.nvim_create_namespace("fimble.notices")
local resting = assert(vim.uv.new_timer())

local config = defaults
local client_id ---@type integer?
local not_before, pause = 0, PAUSE_MS -- when the server may be started again
local breaks = {} ---@type table<string, integer> line breaks in each document, as the server has it
local progress = "" -- of the model's loading
local noticed ---@type integer? the buffer with a notice in it
local shown ---@type { bufnr: integer, row: integer, before: string, after: string, lines: string[], covers: integer }?
local asked ---@type { place: string, id: integer?, done: boolean? }?

---@return vim.lsp.Client? # the running server; with a buffer: only if it knows that
local function server(bufnr)
  local client = client_id and lsp.get_client_by_id(client_id)
  local serves = client and not client:is_stopped()
  return serves and (not bufnr or client.initialized and client.attached_buffers[bufnr]) and client or nil
end

local function inserting()
  return api.nvim_get_mode().mode:sub(1, 1) == "i" and vim.fn.pumvisible() == 0
end

-- Buffer, row from 0, and the line's text before and after the cursor.
local function here()
  local row, col = unpack(api.nvim_win_get_cursor(0))
  local line = api.nvim_get_current_line()
  return api.nvim_get_current_buf(), row - 1, line:sub(1, col), line:sub(col + 1)
end

-- Names a text and a place in it: an answer for another one is not shown.
local function place()
  local bufnr, row, before = here()
  return ("%d %d %d %d"):format(bufnr, api.nvim_buf_get_changedtick(bufnr), row, #before)
end

-- Shows a line, "" for none. In insert mode `-- INSERT --` would hide it on the command line.
local function say(text)
  if noticed and api.nvim_buf_is_valid(noticed) then
    api.nvim_buf_clear_namespace(noticed, notices, 0, -1)
  end
  if vim.fn.strdisplaywidth(text) > vim.v.echospace then
    text = vim.fn.strcharpart(text, 0, vim.v.echospace - 13) .. "… (:messages)"
  end
  local bufnr, row = here()
  noticed = inserting() and text ~= "" and bufnr or nil
  if noticed then
    api.nvim_buf_set_extmark(bufnr, notices, row, 0, { virt_text = { { "  " .. text, "Comment" } } })
  elseif vim.o.cmdheight > 0 and api.nvim_get_mode().mode == "n" then
    api.nvim_echo({ { text } }, false, {})
  end
end

-- Tells what the user must know, without a prompt that would take the next key.
local tell = vim.schedule_wrap(function(message)
  message = "fimble: " .. message:gsub("^fimble: ", "")
  local usual = vim.o.messagesopt
  vim.o.messagesopt = usual:gsub("hit%-enter", "wait:0")
  vim.notify_once(message, vim.log.levels.WARN)
  vim.o.messagesopt = usual
  say(message)
end)

-- Ghost text ---------------------------------------------------------------------------------------------------------

-- What an item of the answer adds at the cursor; nil if it can't stand there.
local function ghost_from(item, encoding)
  local bufnr, row, before, after = here()
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
  local lines = vim.split(text:gsub("\r\n?", "\n"), "\n")
  return { bufnr = bufnr, row = row, before = before, after = after, lines = lines, covers = covers }
end

-- What is left of the ghost text once the user has typed the beginning of it; nil if they typed something else.
local function rest_of(ghost)
  local bufnr, row, before, after = here()
  local typed = before:sub(#ghost.before + 1)
  local moved = bufnr ~= ghost.bufnr or row ~= ghost.row or after ~= ghost.after
  if moved or not (vim.startswith(before, ghost.before) and vim.startswith(ghost.lines[1], typed)) then
    return nil
  end
  local lines = { ghost.lines[1]:sub(#typed + 1), unpack(ghost.lines, 2) }
  return vim.tbl_extend("force", ghost, { before = before, lines = lines })
end

-- Puts a ghost text on the screen in place of the last: the lines look as they will once it is accepted. nil: none.
local function show(ghost)
  if shown and api.nvim_buf_is_valid(shown.bufnr) then
    api.nvim_buf_clear_namespace(shown.bufnr, ghosts, 0, -1)
  end
  shown = ghost
  if not ghost then
    return
  end
  local first, hidden = ghost.lines[1], ghost.after -- which moves down behind the last of several lines
  if #ghost.lines == 1 then
    hidden = ghost.after:sub(1, ghost.covers)
    if vim.endswith(first, hidden) then
      first, hidden = first:sub(1, #first - #hidden), ""
      shown = first ~= "" and ghost or nil
    end
  end
  local below = vim.tbl_map(function(line)
    return { { line, "ComplHint" } }
  end, vim.list_slice(ghost.lines, 2))
  if #below > 0 then
    table.insert(below[#below], { ghost.after:sub(ghost.covers + 1) })
  end
  local text = first:gsub("\t", (" "):rep(vim.bo[ghost.bufnr].tabstop)) -- inline text does not expand them
  local blank = (" "):rep(vim.fn.strdisplaywidth(hidden, vim.fn.strdisplaywidth(ghost.before)))
  local function mark(options)
    api.nvim_buf_set_extmark(ghost.bufnr, ghosts, ghost.row, #ghost.before, options)
  end
  -- In this order: the blanks then stand behind the text. "replace", or a bracket's MatchParen would colour all of it.
  mark({ virt_text = { { text, "ComplHint" } }, virt_text_pos = "inline", virt_lines = below, hl_mode = "replace" })
  mark({ virt_text = { { blank } }, virt_text_pos = "overlay", hl_mode = "combine" })
end

local function cancel()
  if asked and asked.id and not asked.done and server() then
    server():cancel_request(asked.id)
  end
  asked = nil
end

local function drop()
  show(nil)
  cancel()
end

-- Asks for a completion at the cursor; what was asked before is cancelled.
function M.request()
  cancel()
  local bufnr = api.nvim_get_current_buf()
  local client = server(bufnr)
  if not client or not inserting() then
    return show(nil)
  end
  local ask = { place = place() }
  asked = ask
  local params = lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = 2 }
  -- The buffer's real number: with 0 Neovim would not send the pending changes first.
  _, ask.id = client:request(METHOD, params, function(err, result)
    ask.done = true
    if err then
      lsp.log.error("fimble", METHOD, err)
    end
    if ask == asked and ask.place == place() and inserting() then
      local item = type(result) == "table" and (result.items or result)[1]
      show(item and ghost_from(item, client.offset_encoding) or nil)
    end
  end, bufnr)
end

-- Whether ghost text is shown that can be accepted.
function M.visible()
  return shown ~= nil and rest_of(shown) ~= nil
end

-- Inserts what is shown, as an undo step of its own; false if nothing is.
function M.accept()
  local ghost = shown
  if not ghost or not M.visible() then
    return false
  end
  local lines, row, column = ghost.lines, ghost.row, #ghost.before
  drop()
  vim.bo.undolevels = vim.bo.undolevels -- ends the undo step of what was typed
  api.nvim_buf_set_text(ghost.bufnr, row, column, row, column + ghost.covers, lines)
  api.nvim_win_set_cursor(0, { row + #lines, #lines[#lines] + (#lines == 1 and column or 0) })
  api.nvim_feedkeys(vim.keycode("<C-g>u"), "in", false) -- and this one
  return true
end

-- The server ---------------------------------------------------------------------------------------------------------

local function line_breaks(text)
  return select(2, text:gsub("\r\n?", "\n"):gsub("\n", "\n"))
end

-- Neovim 0.11 miscounts lines in two places: its edits suppose a line break at the end of a file that has none, and
-- one that leaves nothing but an empty line forgets a break. Where the count is off the server gets the whole text.
local function keep_in_step(params)
  local uri, changes = params.textDocument.uri, params.contentChanges or {}
  breaks[uri] = params.textDocument.text and line_breaks(params.textDocument.text) or breaks[uri]
  for _, change in ipairs(changes) do
    breaks[uri] = breaks[uri] + line_breaks(change.text) - (change.range["end"].line - change.range.start.line)
  end
  for bufnr in pairs(changes[1] and server() and server().attached_buffers or {}) do
    if vim.uri_from_bufnr(bufnr) == uri and breaks[uri] ~= api.nvim_buf_line_count(bufnr) then
      local line_break = ({ unix = "\n", dos = "\r\n", mac = "\r" })[vim.bo[bufnr].fileformat]
      local text = table.concat(api.nvim_buf_get_lines(bufnr, 0, -1, true), line_break) .. line_break
      params.contentChanges, breaks[uri] = { { text = text } }, line_breaks(text)
    end
  end
end

-- Starts the server's process. Neovim's own words about one that ended are left out: they don't say what to do.
local function connect(dispatchers)
  local on_exit = dispatchers.on_exit
  dispatchers.on_exit = function(code, signal)
    on_exit(0, 0)
    if code ~= 0 or (signal ~= 0 and signal ~= 15) then
      local how = signal ~= 0 and "signal " .. signal or "status " .. code
      tell(("server ended (%s), will restart; try `fimble doctor`"):format(how))
    end
    vim.schedule(show)
  end
  local rpc = lsp.rpc.start(config.cmd, dispatchers)
  local notify = rpc.notify
  rpc.notify = function(method, params)
    if method == "textDocument/didOpen" or method == "textDocument/didChange" then
      keep_in_step(params)
    end
    return notify(method, params)
  end
  return rpc
end

-- An ordinary buffer; only one of those without a name, since they share one URI.
local function wanted(bufnr)
  local nameless = api.nvim_buf_get_name(bufnr) == ""
  for other in pairs(nameless and server() and server().attached_buffers or {}) do
    if other ~= bufnr and api.nvim_buf_get_name(other) == "" then
      return false
    end
  end
  local options = vim.bo[bufnr]
  local listed = not config.filetypes or vim.tbl_contains(config.filetypes, options.filetype)
  return options.buftype == "" and options.modifiable and listed
end

local handlers = {
  ["fimble/refresh"] = vim.schedule_wrap(M.request),
  ["window/showMessage"] = function(_, params)
    tell(params.message)
  end,
  -- Neovim would open a dialogue in the middle of typing, and take the next keys for the answer.
  ["window/showMessageRequest"] = function(_, params)
    tell((params.actions or {})[1] and params.message .. " (:FimbleRestart)" or params.message)
    return vim.NIL
  end,
}

-- Connects a buffer with the server, which is started if need be.
local function attach(bufnr)
  local client, now = server(), vim.uv.now()
  if client and client.attached_buffers[bufnr] or not client and now < not_before or not wanted(bufnr) then
    return
  elseif not client then
    not_before, pause = now + pause, 2 * pause
    if vim.fn.executable(config.cmd[1]) == 0 then
      return tell(("no command `%s`; see `cmd` in setup()"):format(config.cmd[1]))
    end
  end
  local capabilities = lsp.protocol.make_client_capabilities()
  capabilities.textDocument.inlineCompletion = { dynamicRegistration = false }
  capabilities.experimental = { fimble = { refresh = true } }
  client_id = lsp.start({
    name = "fimble",
    cmd = connect,
    capabilities = capabilities,
    settings = { fimble = config.settings },
    handlers = handlers,
    on_attach = vim.schedule_wrap(function()
      vim.cmd.redrawstatus()
    end),
  }, { bufnr = bufnr }) or client_id
end

local function on_progress(value)
  local ended = value.kind == "end"
  progress = not ended and value.percentage and (" %d%%"):format(value.percentage) or ""
  say(ended and "" or value.title .. progress)
  vim.cmd.redrawstatus()
end

-- For a status line: "" where there are no completions, else the name and how far the model is loaded.
function M.status()
  return server(api.nvim_get_current_buf()) and "fimble" .. progress or ""
end

-- Events -------------------------------------------------------------------------------------------------------------

-- The text or the cursor has changed: keeps showing what agrees with it, and asks again.
local function update()
  if asked and asked.place == place() then
    return -- TextChangedI and CursorMovedI both come for one key
  end
  show(shown and rest_of(shown))
  if noticed and progress == "" then
    say("")
  end
  if inserting() then
    attach(api.nvim_get_current_buf())
  end
  M.request()
end

-- Tells the server where the cursor rests, and in which version of the text.
local tell_place = vim.schedule_wrap(function()
  local bufnr = api.nvim_get_current_buf()
  local client = server(bufnr)
  if client then
    local params = lsp.util.make_position_params(0, client.offset_encoding)
    params.textDocument.version = lsp.util.buf_versions[bufnr]
    client:notify("fimble/cursor", params) -- pending changes go first
  end
end)

-- Maps a key to `act` while ghost text is shown, else to what it was mapped to before.
local function map(key, name, act)
  local plug, otherwise = ("<Plug>(fimble-%s)"):format(name), ("<Plug>(fimble-no-%s)"):format(name)
  vim.keymap.set("i", plug, act, { desc = "fimble: " .. name })
  local old = key and vim.fn.maparg(key, "i", false, true) or {}
  if not key or (old.desc or ""):find("^fimble") then
    return
  elseif next(old) then
    old.lhs, old.lhsraw, old.lhsrawalt = otherwise, vim.keycode(otherwise), nil
    vim.fn.mapset("i", false, old)
  else
    vim.keymap.set("i", otherwise, key)
  end
  vim.keymap.set("i", key, function()
    return M.visible() and plug or otherwise
  end, { expr = true, remap = true, desc = "fimble: " .. name })
end

function M.setup(options)
  config = vim.tbl_deep_extend("force", defaults, options or {})
  map(config.keys.accept, "accept", M.accept)
  map(config.keys.dismiss, "dismiss", drop)
  api.nvim_create_user_command("FimbleRestart", function()
    if server() then
      server():exec_cmd({ title = "restart", command = "fimble.restartWorker" })
    end
  end, { desc = "fimble: start the model's worker anew" })
  local group = api.nvim_create_augroup("fimble", {})
  local function on(events, callback)
    api.nvim_create_autocmd(events, { group = group, callback = callback })
  end
  local function set_colour() -- readable on any ground, unless the user, the colours or Neovim 0.12 have chosen
    api.nvim_set_hl(0, "ComplHint", { default = true, fg = "#808080", ctermfg = 244 })
  end
  set_colour()
  on("ColorScheme", set_colour)
  on("FileType", function(event)
    attach(event.buf)
  end)
  on({ "TextChangedI", "TextChangedP", "CursorMovedI" }, update)
  on({ "InsertEnter", "CompleteDone" }, vim.schedule_wrap(update)) -- both come before the mode has changed
  on({ "InsertLeave", "BufLeave", "CompleteChanged" }, drop)
  on({ "CursorMoved", "CursorMovedI", "InsertEnter" }, function()
    resting:start(REST_MS, 0, tell_place)
  end)
  on("LspProgress", function(event)
    if event.data.client_id == client_id then
      on_progress(event.data.params.value)
    end
  end)
  if vim.v.vim_did_enter == 1 then
    vim.cmd.doautoall("fimble FileType") -- the files that are open already
  end
end

return M
