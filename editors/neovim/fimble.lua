-- Ghost text from the fimble language server, for Neovim 0.11 and newer. One file, no dependencies:
--
--   dofile("/path/to/fimble.lua").setup({ cmd = { "fimble" } })
--
-- <Tab> accepts what is shown and <C-]> dismisses it; with nothing shown both do what they did before.

local M = {}

local METHOD = "textDocument/inlineCompletion"
local REST_MS = 100 -- the cursor rests: the server may compute the prompt there before the next key
local PAUSE_MS = 2000 -- before a server that ended is started again; twice as long each time
local ns = vim.api.nvim_create_namespace("fimble")

local defaults = {
  cmd = { "fimble" },
  keys = { accept = "<Tab>", dismiss = "<C-]>" }, -- false: no key
  filetypes = nil, -- a list of file types; nil: every ordinary buffer
  settings = vim.empty_dict(), -- the server's settings, its section `fimble`
}

local config = defaults
local client_id ---@type integer?
local not_before, pause = 0, PAUSE_MS -- when the server may be started again
local breaks = {} ---@type table<string, integer> line breaks in each document, as the server has it
local progress = "" -- of the model's loading, for the status line
local shown ---@type { bufnr: integer, row: integer, before: string, after: string, lines: string[], covers: integer }?
local asked ---@type { place: string, id: integer?, done: boolean? }?
local rest_timer = assert(vim.uv.new_timer())

local function tell(message)
  vim.schedule(function()
    vim.notify_once("fimble: " .. message, vim.log.levels.WARN)
  end)
end

---@return vim.lsp.Client? # the running server; with a buffer: only if it knows that
local function server(bufnr)
  local client = client_id and vim.lsp.get_client_by_id(client_id)
  local serves = client and not client:is_stopped()
  return serves and (not bufnr or client.initialized and client.attached_buffers[bufnr]) and client or nil
end

local function inserting()
  return vim.api.nvim_get_mode().mode:sub(1, 1) == "i" and vim.fn.pumvisible() == 0
end

-- Buffer, row from 0, and the line's text before and after the cursor.
local function here()
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  local line = vim.api.nvim_get_current_line()
  return vim.api.nvim_get_current_buf(), row - 1, line:sub(1, col), line:sub(col + 1)
end

-- Names a text and a place in it: an answer for another one is not shown.
local function place()
  local bufnr, row, before = here()
  return ("%d %d %d %d"):format(bufnr, vim.api.nvim_buf_get_changedtick(bufnr), row, #before)
end

-- Ghost text -----------------------------------------------------------------------------------------------------------

-- What an item of the answer adds at the cursor; nil if it can't stand there.
local function ghost_from(item, encoding)
  local bufnr, row, before, after = here()
  local text, covers, range = item.insertText, 0, item.range
  if range then
    local from = vim.str_byteindex(before .. after, encoding, range.start.character, false)
    covers = vim.str_byteindex(before .. after, encoding, range["end"].character, false) - #before
    local typed = before:sub(from + 1)
    if range.start.line ~= row or range["end"].line ~= row or from > #before or covers < 0 then
      return nil
    elseif not vim.startswith(text, typed) then
      return nil
    end
    text = text:sub(#typed + 1)
  end
  local lines = vim.split(text:gsub("\r\n?", "\n"), "\n")
  return { bufnr = bufnr, row = row, before = before, after = after, lines = lines, covers = covers }
end

-- What is left of a ghost text once the user has typed the beginning of it; nil if they typed something else.
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

local function clear()
  if shown and vim.api.nvim_buf_is_valid(shown.bufnr) then
    vim.api.nvim_buf_clear_namespace(shown.bufnr, ns, 0, -1)
  end
  shown = nil
end

-- Puts a ghost text on the screen in place of the last: the lines look as they will once it is accepted.
local function show(ghost)
  clear()
  local first, covered, hidden = ghost.lines[1], ghost.after:sub(1, ghost.covers), ghost.after
  if #ghost.lines == 1 then
    local stays = vim.endswith(first, covered)
    first, hidden = stays and first:sub(1, #first - #covered) or first, stays and "" or covered
    if first == "" and hidden == "" then
      return
    end
  end
  first = first:gsub("\t", (" "):rep(vim.bo[ghost.bufnr].tabstop)) -- inline text does not expand them
  local below = vim.tbl_map(function(line)
    return { { line, "ComplHint" } }
  end, vim.list_slice(ghost.lines, 2))
  if #below > 0 then
    table.insert(below[#below], { ghost.after:sub(ghost.covers + 1) })
  end
  local blank = (" "):rep(vim.fn.strdisplaywidth(hidden, vim.fn.strdisplaywidth(ghost.before)))
  for position, text in pairs({ inline = { first, "ComplHint" }, overlay = { blank } }) do
    local lines = position == "inline" and below or nil
    local mark = { virt_text = { text }, virt_text_pos = position, virt_lines = lines, hl_mode = "combine" }
    vim.api.nvim_buf_set_extmark(ghost.bufnr, ns, ghost.row, #ghost.before, mark)
  end
  shown = ghost
end

local function cancel()
  local client = server()
  if asked and asked.id and not asked.done and client then
    client:cancel_request(asked.id)
  end
  asked = nil
end

local function drop()
  clear()
  cancel()
end

-- Asks for a completion at the cursor; what was asked before is cancelled.
function M.request()
  cancel()
  local bufnr = vim.api.nvim_get_current_buf()
  local client = server(bufnr)
  if not client or not inserting() then
    return clear()
  end
  local ask = { place = place() }
  asked = ask
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = 2 }
  -- The buffer's real number: with 0 Neovim would not send the pending changes first.
  _, ask.id = client:request(METHOD, params, function(err, result)
    ask.done = true
    if err then
      vim.lsp.log.error("fimble", METHOD, err)
    end
    if ask ~= asked or ask.place ~= place() or not inserting() then
      return
    end
    local item = type(result) == "table" and (result.items or result)[1]
    local ghost = item and ghost_from(item, client.offset_encoding)
    if ghost then
      show(ghost)
    else
      clear()
    end
  end, bufnr)
end

-- Whether ghost text is shown that can be accepted.
function M.visible()
  return shown ~= nil and rest_of(shown) ~= nil
end

-- Inserts what is shown, as an undo step of its own; false if nothing is.
function M.accept()
  if not M.visible() then
    return false
  end
  local ghost = assert(shown)
  local lines, row, column = ghost.lines, ghost.row, #ghost.before
  drop()
  vim.bo.undolevels = vim.bo.undolevels -- ends the undo step of what was typed
  vim.api.nvim_buf_set_text(ghost.bufnr, row, column, row, column + ghost.covers, lines)
  vim.api.nvim_win_set_cursor(0, { row + #lines, #lines[#lines] + (#lines == 1 and column or 0) })
  vim.api.nvim_feedkeys(vim.keycode("<C-g>u"), "in", false) -- and this one
  return true
end

-- The server -----------------------------------------------------------------------------------------------------------

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
    if vim.uri_from_bufnr(bufnr) == uri and breaks[uri] ~= vim.api.nvim_buf_line_count(bufnr) then
      local line_break = ({ unix = "\n", dos = "\r\n", mac = "\r" })[vim.bo[bufnr].fileformat]
      local text = table.concat(vim.api.nvim_buf_get_lines(bufnr, 0, -1, true), line_break) .. line_break
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
      local how = signal ~= 0 and "was killed by signal " .. signal or "ended with exit status " .. code
      tell(("the server %s and will be started again; `fimble doctor` looks for the cause"):format(how))
    end
    vim.schedule(clear)
  end
  local rpc = vim.lsp.rpc.start(config.cmd, dispatchers)
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
  local others = vim.api.nvim_buf_get_name(bufnr) == "" and server() and server().attached_buffers or {}
  for other in pairs(others) do
    if other ~= bufnr and vim.api.nvim_buf_get_name(other) == "" then
      return false
    end
  end
  local options = vim.bo[bufnr]
  local listed = not config.filetypes or vim.tbl_contains(config.filetypes, options.filetype)
  return options.buftype == "" and options.modifiable and listed
end

-- Connects a buffer with the server, which is started if need be.
local function attach(bufnr)
  local client, now = server(), vim.uv.now()
  if client and client.attached_buffers[bufnr] or not client and now < not_before or not wanted(bufnr) then
    return
  elseif not client then
    not_before, pause = now + pause, 2 * pause
    if vim.fn.executable(config.cmd[1]) == 0 then
      return tell(("no command `%s`: install fimble, or give the full path in setup()"):format(config.cmd[1]))
    end
  end
  local capabilities = vim.lsp.protocol.make_client_capabilities()
  capabilities.textDocument.inlineCompletion = { dynamicRegistration = false }
  capabilities.experimental = { fimble = { refresh = true } }
  client_id = vim.lsp.start({
    name = "fimble",
    cmd = connect,
    capabilities = capabilities,
    settings = { fimble = config.settings },
    handlers = {
      ["fimble/refresh"] = vim.schedule_wrap(M.request),
      -- Neovim would open a dialogue in the middle of typing, and take the next keys for the answer.
      ["window/showMessageRequest"] = function(_, params)
        tell(params.message:gsub("^fimble: ", "") .. (params.actions[1] and " (:FimbleRestart)" or ""))
        return vim.NIL
      end,
    },
  }, { bufnr = bufnr }) or client_id
end

-- Starts the model's worker anew, or the server if that has ended.
function M.restart()
  if server() then
    server():exec_cmd({ title = "restart", command = "fimble.restartWorker" })
  else
    not_before, pause = 0, PAUSE_MS
    attach(vim.api.nvim_get_current_buf())
  end
end

-- For a status line: "" where there are no completions, else the name and how far the model is loaded.
function M.status()
  return server(vim.api.nvim_get_current_buf()) and "fimble" .. progress or ""
end

local function on_progress(value)
  local ended = value.kind == "end"
  progress = not ended and value.percentage and (" %d%%"):format(value.percentage) or ""
  vim.cmd.redrawstatus()
  if vim.o.cmdheight > 0 and vim.api.nvim_get_mode().mode:find("^[niv]") then
    local text = ended and "fimble: " .. (value.message or "ready") or value.title .. progress
    vim.api.nvim_echo({ { vim.fn.strcharpart(text, 0, vim.v.echospace) } }, false, {})
  end
end

-- Events ---------------------------------------------------------------------------------------------------------------

-- The text or the cursor has changed: keeps showing what agrees with it, and asks again.
local function update()
  if asked and asked.place == place() then
    return -- TextChangedI and CursorMovedI both come for one key
  end
  local ghost = shown and rest_of(shown)
  if ghost then
    show(ghost)
  else
    clear()
  end
  if inserting() then
    attach(vim.api.nvim_get_current_buf())
  end
  M.request()
end

-- Tells the server where the cursor rests, and in which version of the text.
local function rest()
  rest_timer:start(REST_MS, 0, vim.schedule_wrap(function()
    local bufnr = vim.api.nvim_get_current_buf()
    local client = server(bufnr)
    if client then
      local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
      params.textDocument.version = vim.lsp.util.buf_versions[bufnr]
      client:notify("fimble/cursor", params) -- pending changes go first
    end
  end))
end

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
  vim.api.nvim_set_hl(0, "ComplHint", { default = true, link = "NonText" })
  vim.api.nvim_create_user_command("FimbleRestart", M.restart, { desc = "fimble: start the worker anew" })
  map(config.keys.accept, "accept", M.accept)
  map(config.keys.dismiss, "dismiss", drop)
  local group = vim.api.nvim_create_augroup("fimble", {})
  local function on(events, callback)
    vim.api.nvim_create_autocmd(events, { group = group, callback = callback })
  end
  on("FileType", function(event)
    attach(event.buf)
  end)
  on({ "TextChangedI", "TextChangedP", "CursorMovedI" }, update)
  on({ "InsertEnter", "CompleteDone" }, vim.schedule_wrap(update)) -- both come before the mode has changed
  on({ "CursorMoved", "CursorMovedI", "InsertEnter" }, rest)
  on({ "InsertLeave", "BufLeave", "CompleteChanged" }, drop)
  on("LspProgress", function(event)
    if event.data.client_id == client_id then
      on_progress(event.data.params.value)
    end
  end)
  for _, bufnr in ipairs(vim.api.nvim_list_bufs()) do
    if vim.api.nvim_buf_is_loaded(bufnr) and vim.bo[bufnr].filetype ~= "" then
      attach(bufnr)
    end
  end
end

return M
