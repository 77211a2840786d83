-- Ghost text from the fimble language server: `require("fimble").setup({})`. See `:help fimble`.

local config = require("fimble.config")
local cursor = require("fimble.cursor")
local server = require("fimble.server")
local api = vim.api
local M = {}

local REST_MS = 100 -- the cursor rests: the server may compute the prompt there before the next key
local resting = assert(vim.uv.new_timer())

local function suggestions()
  return config.builtin() and require("fimble.builtin") or require("fimble.suggestion")
end

-- Whether ghost text is shown that can be accepted.
function M.visible()
  return config.ready and suggestions().visible()
end

-- Whether the current buffer has completions at all.
function M.serves()
  return server.client(api.nvim_get_current_buf()) ~= nil
end

-- Inserts what is shown; false if nothing is.
function M.accept()
  return M.visible() and suggestions().accept()
end

-- Inserts the next word of what is shown; false if nothing is.
function M.accept_word()
  return M.visible() and suggestions().accept_part("fimble.acceptWord")
end

-- Inserts the next line of what is shown; false if nothing is.
function M.accept_line()
  return M.visible() and suggestions().accept_part("fimble.acceptLine")
end

-- Sends what is shown away; false if nothing is.
function M.dismiss()
  return M.visible() and suggestions().dismiss()
end

-- Shows the next suggestion at the cursor.
function M.next()
  suggestions().cycle(false)
end

-- Shows the one before it.
function M.previous()
  suggestions().cycle(true)
end

-- Asks for a suggestion at the cursor, be it ever so doubtful.
function M.trigger()
  suggestions().trigger()
end

-- For a status line: "fimble", "fimble 40%" while the model is loaded, "fimble off", "fimble failed"; "" where there
-- are no completions.
function M.status()
  return server.status()
end

-- Switches completions on or off: `scope` "all", "language" (`name`: a file type, else the buffer's) or "buffer".
function M.enable(on, scope, name)
  local bufnr, settings = api.nvim_get_current_buf(), config.options.settings
  if scope == "buffer" then
    vim.b[bufnr].fimble_disabled = not on
    if config.builtin() then
      vim.lsp.inline_completion.enable(on, { bufnr = bufnr })
    end
  elseif scope == "language" then
    name = name or vim.bo[bufnr].filetype
    settings.disabledLanguages = vim.tbl_filter(function(other)
      return other ~= name
    end, settings.disabledLanguages or {})
    if not on then
      table.insert(settings.disabledLanguages, name)
    end
    server.configure()
  else
    settings.enabled = on
    server.configure()
  end
  suggestions().hide()
  if on then
    server.attach(bufnr)
    suggestions().request()
  end
  vim.cmd.redrawstatus()
end

-- Whether completions are on: `scope` and `name` as for enable().
function M.is_enabled(scope, name)
  local bufnr, settings = api.nvim_get_current_buf(), config.options.settings
  if scope == "buffer" then
    return not vim.b[bufnr].fimble_disabled
  elseif scope == "language" then
    return not vim.tbl_contains(settings.disabledLanguages or {}, name or vim.bo[bufnr].filetype)
  end
  return settings.enabled ~= false
end

-- Tells the server where the cursor rests, and in which version of the text.
local tell_place = vim.schedule_wrap(function()
  local bufnr = api.nvim_get_current_buf()
  local client = server.client(bufnr)
  if client then
    local params = cursor.params(client)
    params.textDocument.version = vim.lsp.util.buf_versions[bufnr]
    client:notify("fimble/cursor", params) -- pending changes go first
  end
end)

local function update()
  if cursor.inserting() then
    server.attach(api.nvim_get_current_buf())
  end
  suggestions().update()
end

local function set_colour() -- readable on any ground, unless the user, the colours or Neovim 0.12 have chosen
  api.nvim_set_hl(0, "ComplHint", { default = true, fg = "#808080", ctermfg = 244 })
end

local function follow_events()
  local group = api.nvim_create_augroup("fimble", {})
  local function on(events, callback)
    api.nvim_create_autocmd(events, { group = group, callback = callback })
  end
  on("ColorScheme", set_colour)
  on("FileType", function(event)
    server.attach(event.buf)
  end)
  on({ "TextChangedI", "TextChangedP", "CursorMovedI" }, update)
  on({ "InsertEnter", "CompleteDone" }, vim.schedule_wrap(update)) -- both come before the mode has changed
  on({ "InsertLeave", "BufLeave", "CompleteChanged" }, suggestions().hide)
  on({ "CursorMoved", "CursorMovedI", "InsertEnter" }, function()
    resting:start(REST_MS, 0, tell_place)
  end)
end

-- Starts fimble; called again, changes the options. They are described in `:help fimble-options`.
function M.setup(options)
  config.set(options)
  vim.cmd.runtime("plugin/fimble.lua") -- a plugin manager may have left it out
  require("fimble.keys").map()
  server.on_refresh = suggestions().request
  server.on_exit = suggestions().hide
  server.configure() -- of a server that runs already
  set_colour()
  follow_events()
  if vim.v.vim_did_enter == 1 then
    vim.cmd.doautoall("fimble FileType") -- the files that are open already
  end
end

return M
