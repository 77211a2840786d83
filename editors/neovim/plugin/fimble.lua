-- The command and the <Plug> maps; everything else begins with require("fimble").setup({}).

if vim.g.loaded_fimble then
  return
end
vim.g.loaded_fimble = true

vim.api.nvim_create_user_command("Fimble", function(command)
  require("fimble.commands").run(command.fargs)
end, {
  nargs = "*",
  desc = "fimble: code completion",
  complete = function(lead, line)
    return require("fimble.commands").complete(lead, line)
  end,
})

require("fimble.keys").plugs()
