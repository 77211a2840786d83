-- `:Fimble …`

local config = require("fimble.config")
local notice = require("fimble.notice")
local server = require("fimble.server")
local M = {}

local SCOPES = { "all", "buffer", "language" }

local function switch(on)
  return function(scope, name)
    if scope and not vim.tbl_contains(SCOPES, scope) then
      return notice.tell(("`%s` is none of: %s"):format(scope, table.concat(SCOPES, ", ")))
    end
    local fimble = require("fimble")
    local wanted = on
    if on == nil then
      wanted = not fimble.is_enabled(scope, name)
    end
    fimble.enable(wanted, scope, name)
    local enabled, where = config.enabled(vim.api.nvim_get_current_buf())
    notice.say("fimble: " .. (enabled and "on" or "off " .. where))
  end
end

-- Runs a command of fimble's in a terminal below.
local function in_terminal(command)
  return function()
    vim.cmd("botright new")
    vim.bo.bufhidden = "wipe"
    vim.fn.jobstart(vim.list_extend(vim.deepcopy(config.options.cmd), { command }), { term = true })
  end
end

local run = {
  enable = switch(true),
  disable = switch(false),
  toggle = switch(nil),
  restart = function()
    server.restart()
    notice.say("fimble: restarting")
  end,
  status = function()
    notice.say("fimble: " .. server.report())
  end,
  log = function()
    vim.cmd.split(vim.fn.fnameescape(vim.lsp.log.get_filename()))
    vim.cmd.normal({ "G", bang = true })
  end,
  stats = in_terminal("stats"),
  doctor = in_terminal("doctor"),
}

-- Runs `:Fimble {words}`.
function M.run(words)
  local name = words[1] or "status"
  if not config.ready then
    notice.tell('is not set up yet: require("fimble").setup({}) in init.lua; see :help fimble-setup')
  elseif run[name] then
    run[name](unpack(words, 2))
  else
    notice.tell(("there is no `:Fimble %s`; there are %s"):format(name, table.concat(M.names(), ", ")))
  end
end

-- The names of the commands.
function M.names()
  local names = vim.tbl_keys(run)
  table.sort(names)
  return names
end

-- What can follow on the command line.
function M.complete(lead, line)
  local words = vim.split(line, "%s+")
  local switches = vim.tbl_contains({ "enable", "disable", "toggle" }, words[2])
  local choices = {}
  if #words == 2 then
    choices = M.names()
  elseif #words == 3 and switches then
    choices = SCOPES
  elseif #words == 4 and switches and words[3] == "language" then
    choices = vim.fn.getcompletion(lead, "filetype")
  end
  return vim.tbl_filter(function(choice)
    return vim.startswith(choice, lead)
  end, choices)
end

return M
