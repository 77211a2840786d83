-- The options of setup(), and what is switched on.

local M = {}

M.defaults = {
  cmd = { "fimble" }, -- the language server
  settings = vim.empty_dict(), -- the server's settings, its section `fimble`
  filetypes = nil, ---@type string[]? nil: every ordinary buffer
  ghost_text = "own", -- "own": fimble's; "builtin": Neovim's where it has one (0.12), else fimble's
  keys = { -- false: no key
    accept = "<Tab>",
    accept_word = "<M-Right>",
    accept_line = "<M-C-Right>",
    dismiss = "<C-]>",
    next = "<M-]>",
    previous = "<M-[>",
    trigger = "<M-Bslash>",
  },
}
M.options = vim.deepcopy(M.defaults)
M.ready = false -- setup() has run

-- Takes over the user's options. Raises an error that names one that is unknown or of the wrong type.
function M.set(options)
  options = options or {}
  local types = { cmd = "table", settings = "table", filetypes = "table", ghost_text = "string", keys = "table" }
  for name, value in pairs(options) do
    assert(types[name], ("fimble: setup() has no option `%s`; see :help fimble-options"):format(name))
    vim.validate("fimble: " .. name, value, types[name])
  end
  local ghost_text = options.ghost_text or M.defaults.ghost_text
  assert(ghost_text == "own" or ghost_text == "builtin", 'fimble: `ghost_text` must be "own" or "builtin"')
  for name, key in pairs(options.keys or {}) do
    assert(M.defaults.keys[name], ("fimble: `keys` has no `%s`; see :help fimble-keys"):format(name))
    assert(not key or type(key) == "string", ("fimble: `keys.%s` must be a key or false"):format(name))
  end
  M.options = vim.tbl_deep_extend("force", M.defaults, options)
  if next(M.options.settings) == nil then
    M.options.settings = vim.empty_dict() -- or JSON would have a list of it
  end
  M.ready = true
end

-- Whether Neovim shows the ghost text by its own means.
function M.builtin()
  return M.options.ghost_text == "builtin" and vim.lsp.inline_completion ~= nil
end

-- Whether completions are switched on for a buffer, and if not, by what.
function M.enabled(bufnr)
  local settings = M.options.settings
  local languages = settings.disabledLanguages or {}
  if settings.enabled == false then
    return false, "everywhere"
  elseif vim.tbl_contains(languages, vim.bo[bufnr].filetype) then
    return false, "for " .. vim.bo[bufnr].filetype
  elseif vim.b[bufnr].fimble_disabled then
    return false, "in this buffer"
  end
  return true
end

return M
