-- `:checkhealth fimble`

local config = require("fimble.config")
local server = require("fimble.server")
local health = vim.health
local M = {}

local function check_neovim()
  if vim.fn.has("nvim-0.11") == 1 then
    health.ok("Neovim " .. tostring(vim.version()))
  else
    health.error("Neovim " .. tostring(vim.version()) .. " is too old", { "install Neovim 0.11 or newer" })
  end
  health.info("ghost text: " .. (config.builtin() and "Neovim's own (vim.lsp.inline_completion)" or "fimble's own"))
end

local function check_command()
  local command = config.options.cmd
  if vim.fn.executable(command[1]) == 0 then
    local advice = "give its full path in setup(): cmd = { \"/path/to/fimble\" }; see :help fimble-install"
    return health.error(("no command `%s`"):format(command[1]), { advice })
  end
  local done = vim.system(vim.list_extend(vim.deepcopy(command), { "--version" }), { text = true }):wait(20000)
  if done.code == 0 then
    health.ok(("%s (`%s`)"):format(vim.trim(done.stdout), vim.fn.exepath(command[1])))
  else
    local why = vim.trim(done.stderr ~= "" and done.stderr or "status " .. done.code)
    health.error(("`%s --version`: %s"):format(table.concat(command, " "), why), { "run `fimble doctor` in a terminal" })
  end
end

local function check_server()
  if not server.client() then
    return health.warn("the server is not running", { "open a file and press i; it starts with the first one" })
  end
  local buffers = #server.buffers()
  health.ok(("the server runs and serves %d buffer%s"):format(buffers, buffers == 1 and "" or "s"))
  health.info("its messages: " .. vim.lsp.log.get_filename() .. " (:Fimble log)")
  health.info("model, worker and device: :Fimble doctor")
end

local function check_keys()
  for name, key in vim.spairs(config.options.keys) do
    local mapped = key and vim.fn.maparg(key, "i", false, true)
    if not mapped then
      health.info(("%s: no key; map <Plug>(fimble-%s)"):format(name, (name:gsub("_", "-"))))
    elseif mapped.desc == "fimble: " .. name then
      health.ok(("%s: %s"):format(name, key))
    else
      local by = mapped.desc or mapped.rhs or "something else"
      health.warn(("%s: %s is mapped by %s"):format(name, key, by), { "see :help fimble-completion-plugins" })
    end
  end
end

function M.check()
  health.start("fimble")
  check_neovim()
  if not config.ready then
    return health.error("not set up", { 'put require("fimble").setup({}) into init.lua; see :help fimble-setup' })
  end
  check_command()
  check_server()
  health.start("fimble: keys of insert mode")
  check_keys()
end

return M
