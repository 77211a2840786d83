-- Ghost text from the fimble language server, for Neovim 0.11 and newer. One file, no dependencies:
--
--   dofile("/path/to/fimble.lua").setup({ cmd = { "fimble" } })
--
-- <Tab> accepts what is shown, <C-]> dismisses it; see `defaults` below.

local M = {}

local METHOD = "textDocument/inlineCompletion"
local REST_MS = 100 -- the cursor has rested: the server may warm the model there
local ns = vim.api.nvim_create_namespace("fimble")

local defaults = {
  cmd = { "fimble" },
  keys = { accept = "<Tab>", dismiss = "<C-]>" },
  filetypes = nil, -- a list, or nil for every ordinary buffer
  settings = vim.empty_dict(), -- the section `fimble` of the server's settings
}

local config = defaults
local client_id ---@type integer?
local shown ---@type { bufnr: integer, tick: integer, cursor: integer[], item: table, encoding: string }?
local asked ---@type { key: string, request: integer }?
local rest_timer = assert(vim.uv.new_timer())

---@return vim.lsp.Client?
local function client_of(bufnr)
  local client = client_id and vim.lsp.get_client_by_id(client_id)
  return client and client.attached_buffers[bufnr] and not client:is_stopped() and client or nil
end

local function inserting()
  return vim.api.nvim_get_mode().mode:sub(1, 1) == "i"
end

function M.clear()
  if shown and vim.api.nvim_buf_is_valid(shown.bufnr) then
    vim.api.nvim_buf_clear_namespace(shown.bufnr, ns, 0, -1)
  end
  shown = nil
end

-- Forgets the request in hand too: its answer would come too late.
local function drop()
  M.clear()
  local client = client_id and vim.lsp.get_client_by_id(client_id)
  if asked and client then
    client:cancel_request(asked.request)
  end
  asked = nil
end

-- The item's range as 0-based row and byte columns.
local function byte_range(item, bufnr, encoding, cursor)
  if not item.range then
    return cursor[1], cursor[2], cursor[2]
  end
  local row = item.range.start.line
  local line = vim.api.nvim_buf_get_lines(bufnr, row, row + 1, false)[1] or ""
  local first = vim.str_byteindex(line, encoding, item.range.start.character, false)
  local last = vim.str_byteindex(line, encoding, item.range["end"].character, false)
  return row, first, last
end

local function draw(bufnr, cursor, item, encoding)
  local _, _, last = byte_range(item, bufnr, encoding, cursor)
  local lines = vim.split(item.insertText, "\r?\n")
  local line = vim.api.nvim_buf_get_lines(bufnr, cursor[1], cursor[1] + 1, false)[1] or ""
  local covered = line:sub(cursor[2] + 1, last)
  -- What the answer writes again stays as it stands in the buffer; the rest is ghost text before it.
  if covered ~= "" and vim.endswith(lines[1], covered) then
    lines[1] = lines[1]:sub(1, -#covered - 1)
  end
  local mark = { virt_text = { { lines[1], "ComplHint" } }, virt_text_pos = "inline", hl_mode = "combine" }
  if #lines > 1 then
    mark.virt_lines = vim.tbl_map(function(text)
      return { { text, "ComplHint" } }
    end, vim.list_slice(lines, 2))
  end
  vim.api.nvim_buf_set_extmark(bufnr, ns, cursor[1], cursor[2], mark)
end

local function show(bufnr, tick, cursor, item, encoding)
  M.clear()
  draw(bufnr, cursor, item, encoding)
  shown = { bufnr = bufnr, tick = tick, cursor = cursor, item = item, encoding = encoding }
end

local function place()
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  return { row - 1, col }
end

-- Asks for a completion at the cursor; what was asked before is cancelled.
function M.request()
  local bufnr = vim.api.nvim_get_current_buf()
  local client = client_of(bufnr)
  if not client or not inserting() then
    return drop()
  end
  local tick, cursor = vim.api.nvim_buf_get_changedtick(bufnr), place()
  local key = ("%d %d %d %d"):format(bufnr, tick, cursor[1], cursor[2])
  if asked and asked.key == key then
    return -- TextChangedI and CursorMovedI both fire for one key
  end
  drop()
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = 2 }
  -- The buffer's real number: with 0 pending changes would not be sent first.
  local ok, request = client:request(METHOD, params, function(err, result)
    if not asked or asked.key ~= key or err or not result then
      return
    end
    local item = (result.items or result)[1]
    local same = bufnr == vim.api.nvim_get_current_buf()
      and tick == vim.api.nvim_buf_get_changedtick(bufnr)
      and vim.deep_equal(cursor, place())
    if item and same and inserting() then
      show(bufnr, tick, cursor, item, client.offset_encoding)
    end
  end, bufnr)
  asked = ok and { key = key, request = request } or nil
end

-- Inserts what is shown; false if nothing is.
function M.accept()
  local s = shown
  if not s or s.tick ~= vim.api.nvim_buf_get_changedtick(s.bufnr) then
    return false
  end
  M.clear()
  local row, first, last = byte_range(s.item, s.bufnr, s.encoding, s.cursor)
  local lines = vim.split(s.item.insertText, "\r?\n")
  vim.api.nvim_buf_set_text(s.bufnr, row, first, row, last, lines)
  local column = #lines == 1 and first + #lines[1] or #lines[#lines]
  vim.api.nvim_win_set_cursor(0, { row + #lines, column })
  return true
end

function M.visible()
  return shown ~= nil
end

-- Tells the server where the cursor rests, so that it can compute the prompt before the next key.
local function rest()
  rest_timer:stop()
  rest_timer:start(REST_MS, 0, vim.schedule_wrap(function()
    local bufnr = vim.api.nvim_get_current_buf()
    local client = client_of(bufnr)
    local version = vim.lsp.util.buf_versions[bufnr]
    if client and version then
      local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
      params.textDocument.version = version
      client:notify("fimble/cursor", params)
    end
  end))
end

local function attach(bufnr)
  local wanted = vim.bo[bufnr].buftype == "" and vim.api.nvim_buf_get_name(bufnr) ~= ""
  if config.filetypes then
    wanted = wanted and vim.tbl_contains(config.filetypes, vim.bo[bufnr].filetype)
  end
  if not wanted then
    return
  end
  local capabilities = vim.lsp.protocol.make_client_capabilities()
  capabilities.textDocument.inlineCompletion = { dynamicRegistration = false }
  capabilities.experimental = { fimble = { refresh = true } }
  client_id = vim.lsp.start({
    name = "fimble",
    cmd = config.cmd,
    capabilities = capabilities,
    settings = { fimble = config.settings },
    handlers = { ["fimble/refresh"] = vim.schedule_wrap(M.request) },
  }, { bufnr = bufnr }) or client_id
end

function M.setup(options)
  config = vim.tbl_deep_extend("force", defaults, options or {})
  vim.api.nvim_set_hl(0, "ComplHint", { default = true, link = "Comment" })
  local group = vim.api.nvim_create_augroup("fimble", {})
  local function on(events, callback)
    vim.api.nvim_create_autocmd(events, { group = group, callback = callback })
  end
  on({ "FileType", "BufReadPost", "BufNewFile" }, function(event)
    attach(event.buf)
  end)
  on({ "InsertEnter", "TextChangedI", "CursorMovedI" }, M.request)
  on({ "CursorMoved", "CursorMovedI", "InsertEnter" }, rest)
  on({ "InsertLeave", "BufLeave" }, drop)
  vim.keymap.set("i", config.keys.accept, function()
    if not M.visible() then
      return vim.api.nvim_replace_termcodes(config.keys.accept, true, true, true)
    end
    vim.schedule(M.accept) -- the buffer may not change inside an expression mapping
    return ""
  end, { expr = true, replace_keycodes = false, desc = "fimble: accept" })
  vim.keymap.set("i", config.keys.dismiss, drop, { desc = "fimble: dismiss" })
  for _, bufnr in ipairs(vim.api.nvim_list_bufs()) do
    if vim.api.nvim_buf_is_loaded(bufnr) then
      attach(bufnr)
    end
  end
end

return M
