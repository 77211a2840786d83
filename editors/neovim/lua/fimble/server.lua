-- The language server: started when a buffer needs it, and again after a pause if it has ended.

local config = require("fimble.config")
local in_step = require("fimble.in_step")
local notice = require("fimble.notice")
local api, lsp = vim.api, vim.lsp
local M = {}

local PAUSE_MS = 2000 -- before a server that ended is started again; twice as long each time

local client_id ---@type integer?
local not_before, pause = 0, PAUSE_MS -- when the server may be started again
local state = { state = "idle", message = "" } -- as `fimble/status` has it

M.on_refresh = function() end -- the server has more to say than when it was asked
M.on_exit = function() end

-- Whether the server answers for a buffer. One that is switched off stays attached: Neovim 0.11 no longer tells a server
-- of the changes once its last one was detached.
local function serves(client, bufnr)
  return client.initialized and client.attached_buffers[bufnr] and not vim.b[bufnr].fimble_disabled
end

---@return vim.lsp.Client? # the running server; with a buffer: only if it answers for that
function M.client(bufnr)
  local client = client_id and lsp.get_client_by_id(client_id)
  local runs = client and not client:is_stopped()
  return runs and (not bufnr or serves(client, bufnr)) and client or nil
end

-- The buffers that the server knows.
function M.buffers()
  local client = M.client()
  return vim.tbl_filter(api.nvim_buf_is_valid, client and vim.tbl_keys(client.attached_buffers) or {})
end

-- Whether the model is being loaded.
function M.loading()
  return state.state == "loading"
end

local function percent()
  return M.loading() and (" %d%%"):format((state.progress or 0) * 100) or ""
end

-- For a status line: "" where there are no completions, else the name, and how far the model is loaded, "off" or
-- "failed".
function M.status()
  local bufnr = api.nvim_get_current_buf()
  if not config.enabled(bufnr) then
    return M.client() and "fimble off" or ""
  elseif not M.client(bufnr) then
    return ""
  end
  return state.state == "error" and "fimble failed" or "fimble" .. percent()
end

-- The same as a sentence.
function M.report()
  local bufnr, client = api.nvim_get_current_buf(), M.client()
  local enabled, where = config.enabled(bufnr)
  if not client then
    return ("the server is not running (`%s`)"):format(table.concat(config.options.cmd, " "))
  elseif not enabled then
    return "switched off " .. where
  elseif not M.client(bufnr) then
    return "the server runs, but does not serve this buffer"
  elseif state.state == "error" then
    return state.message
  end
  return M.loading() and "loading the model," .. percent() or "ready"
end

local on_status = vim.schedule_wrap(function(status)
  local loaded = M.loading()
  state = status
  if M.loading() or loaded then
    notice.say(M.loading() and "fimble: loading the model" .. percent() or "")
  end
  vim.cmd.redrawstatus()
end)

local handlers = {
  ["fimble/status"] = function(_, params)
    on_status(params)
  end,
  ["fimble/refresh"] = vim.schedule_wrap(function()
    M.on_refresh()
  end),
  ["window/showMessage"] = function(_, params)
    notice.tell(params.message)
  end,
  -- Neovim would open a dialogue in the middle of typing, and take the next keys for the answer.
  ["window/showMessageRequest"] = function(_, params)
    notice.tell((params.actions or {})[1] and params.message .. " (:Fimble restart)" or params.message)
    return vim.NIL
  end,
}

-- Starts the server's process. Neovim's own words about one that ended are left out: they don't say what to do.
local function connect(dispatchers)
  local on_exit = dispatchers.on_exit
  dispatchers.on_exit = function(code, signal)
    on_exit(0, 0)
    state = { state = "idle", message = "" }
    if code ~= 0 or (signal ~= 0 and signal ~= 15) then
      local how = signal ~= 0 and "signal " .. signal or "status " .. code
      notice.tell(("server ended (%s), will restart; try :Fimble doctor"):format(how))
    end
    vim.schedule(M.on_exit)
  end
  local rpc = lsp.rpc.start(config.options.cmd, dispatchers)
  local notify, request = rpc.notify, rpc.request
  rpc.notify = function(method, params)
    if method == "textDocument/didOpen" or method == "textDocument/didChange" then
      in_step.keep(params, M.buffers())
    end
    return notify(method, params)
  end
  if config.builtin() then -- to which no answer means that the last one still holds
    rpc.request = function(method, params, callback, ...)
      return request(method, params, function(err, result, ...)
        local none = method == "textDocument/inlineCompletion" and not err and (result == nil or result == vim.NIL)
        return callback(err, none and { items = {} } or result, ...)
      end, ...)
    end
  end
  return rpc
end

-- An ordinary buffer; only one of those without a name, since they share one URI.
local function wanted(bufnr)
  local nameless = api.nvim_buf_get_name(bufnr) == ""
  for _, other in ipairs(nameless and M.buffers() or {}) do
    if other ~= bufnr and api.nvim_buf_get_name(other) == "" then
      return false
    end
  end
  local options, filetypes = vim.bo[bufnr], config.options.filetypes
  local listed = not filetypes or vim.tbl_contains(filetypes, options.filetype)
  return options.buftype == "" and options.modifiable and listed and not vim.b[bufnr].fimble_disabled
end

-- Connects a buffer with the server, which is started if need be.
function M.attach(bufnr)
  local client, now = M.client(), vim.uv.now()
  if client and client.attached_buffers[bufnr] or not client and now < not_before or not wanted(bufnr) then
    return
  elseif not client then
    not_before, pause = now + pause, 2 * pause
    local command = config.options.cmd[1]
    if vim.fn.executable(command) == 0 then
      return notice.tell(("no command `%s`; see `cmd` in setup()"):format(command))
    end
  end
  local capabilities = lsp.protocol.make_client_capabilities()
  capabilities.textDocument.inlineCompletion = { dynamicRegistration = false }
  capabilities.experimental = { fimble = { refresh = true, status = true } }
  client_id = lsp.start({
    name = "fimble",
    cmd = connect,
    capabilities = capabilities,
    settings = { fimble = config.options.settings },
    handlers = handlers,
    on_attach = vim.schedule_wrap(function()
      vim.cmd.redrawstatus()
    end),
  }, { bufnr = bufnr }) or client_id
end

-- Sends the settings as they are now.
function M.configure()
  local client = M.client()
  if client then
    client.settings = { fimble = config.options.settings }
    client:notify("workspace/didChangeConfiguration", { settings = client.settings })
  end
end

-- Starts the model's worker anew, or the server if that has ended.
function M.restart()
  local client = M.client()
  not_before, pause = 0, PAUSE_MS
  if client then
    M.run(client, "fimble.restartWorker")
  else
    M.attach(api.nvim_get_current_buf())
  end
end

-- Runs one of the server's commands; what it returns goes to `callback`.
function M.run(client, command, argument, callback)
  local params = { command = command, arguments = argument and { argument } }
  client:request("workspace/executeCommand", params, function(err, result)
    if err then
      lsp.log.error("fimble", command, err)
    elseif callback then
      callback(result)
    end
  end, api.nvim_get_current_buf())
end

return M
