-- The keys of insert mode: each acts where fimble has something to act on, else does what it did before.

local config = require("fimble.config")
local M = {}

-- What each key needs to act: ghost text on the screen, or a server that can be asked.
local NEEDS = {
  accept = "visible",
  accept_word = "visible",
  accept_line = "visible",
  dismiss = "visible",
  next = "serves",
  previous = "serves",
  trigger = "serves",
}

local function plug(name)
  return ("<Plug>(fimble-%s)"):format(name:gsub("_", "-"))
end

-- Defines `<Plug>(fimble-accept)` and so on, for maps of the user's own.
function M.plugs()
  for name in pairs(NEEDS) do
    vim.keymap.set("i", plug(name), function()
      require("fimble")[name]()
    end, { desc = "fimble: " .. name })
  end
end

-- Maps a key to `name` where that can act, else to what it was mapped to before.
local function map(key, name)
  local otherwise = ("<Plug>(fimble-no-%s)"):format(name)
  local old = vim.fn.maparg(key, "i", false, true)
  if (old.desc or ""):find("^fimble") then
    return
  elseif next(old) then
    old.lhs, old.lhsraw, old.lhsrawalt = otherwise, vim.keycode(otherwise), nil
    vim.fn.mapset("i", false, old)
  else
    vim.keymap.set("i", otherwise, key)
  end
  vim.keymap.set("i", key, function()
    return require("fimble")[NEEDS[name]]() and plug(name) or otherwise
  end, { expr = true, remap = true, desc = "fimble: " .. name })
end

-- Maps the keys of the options.
function M.map()
  for name, key in pairs(config.options.keys) do
    if key then
      map(key, name)
    end
  end
end

return M
