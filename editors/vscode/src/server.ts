// Where the server is: the setting, the workspace's own environment if it is trusted, the PATH, the one installed here.

import { existsSync, statSync } from "fs";
import { homedir } from "os";
import { delimiter, isAbsolute, join, relative } from "path";
import { ExtensionContext, workspace } from "vscode";

const WINDOWS = process.platform === "win32";

/** The command in a virtual environment. */
export function commandIn(environment: string): string {
  return WINDOWS ? join(environment, "Scripts", "fimble.exe") : join(environment, "bin", "fimble");
}

/** The environment that `fimble: Install the Server` makes. */
export function ownEnvironment(context: ExtensionContext): string {
  return join(context.globalStorageUri.fsPath, "server");
}

/** The server's full path, undefined if there is none. Throws with the reason if the setting names none. */
export function findServer(context: ExtensionContext): string | undefined {
  const wanted = workspace.getConfiguration("fimble").get("command", "").trim();
  if (wanted) {
    const path = wanted.startsWith("~/") ? join(homedir(), wanted.slice(2)) : wanted;
    if (!isAbsolute(path) || !isFile(path)) {
      throw new Error(`The setting fimble.command must be the full path of the command; there is no ${path}.`);
    }
    return path;
  }
  const folders = (workspace.workspaceFolders ?? []).filter((folder) => folder.uri.scheme === "file");
  const inside = workspace.isTrusted ? folders.flatMap(({ uri }) => environments(uri.fsPath)) : [];
  return [...inside, ...onPath(), commandIn(ownEnvironment(context))].find(isFile);
}

function environments(folder: string): string[] {
  return [".venv", "venv"].map((name) => commandIn(join(folder, name)));
}

// Relative entries would name the working folder, and an entry inside an untrusted folder its own programs.
function onPath(): string[] {
  const entries = (process.env.PATH ?? "").split(delimiter).filter(isAbsolute);
  const untrusted = workspace.isTrusted ? [] : (workspace.workspaceFolders ?? []).map(({ uri }) => uri.fsPath);
  const outside = entries.filter((entry) => !untrusted.some((folder) => isInside(folder, entry)));
  return outside.map((entry) => join(entry, WINDOWS ? "fimble.exe" : "fimble"));
}

function isInside(folder: string, path: string): boolean {
  const way = relative(folder, path);
  return !way.startsWith("..") && !isAbsolute(way);
}

function isFile(path: string): boolean {
  return existsSync(path) && statSync(path).isFile();
}
