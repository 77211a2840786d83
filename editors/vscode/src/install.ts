// Installs the server into the extension's own folder, from where the user says; never by a bare name from an index.

import { existsSync, mkdirSync, renameSync, rmSync, statSync } from "fs";
import { homedir } from "os";
import { dirname, isAbsolute, join } from "path";
import { pathToFileURL } from "url";
import { commands, ExtensionContext, LogOutputChannel, ProgressLocation, window, workspace } from "vscode";
import { run } from "./run";
import { ownEnvironment } from "./server";

const PYTHONS = ["python3.13", "python3.12", "python3.11", "python3", "python"];
const RECENT = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))";

/** What pip is to install: always a URL, so that no other project's name is ever asked for. Throws with the reason. */
export function requirement(from: string): string {
  const path = from.startsWith("~/") ? join(homedir(), from.slice(2)) : from;
  if (isAbsolute(path)) {
    const fits = statSync(path, { throwIfNoEntry: false });
    if (!fits || !(fits.isDirectory() || path.endsWith(".whl"))) {
      throw new Error(`The setting fimble.installFrom names ${path}, which is no wheel and no folder.`);
    }
    return `fimble @ ${pathToFileURL(path)}`;
  }
  if (/^git\+(https|ssh|file):\/\/\S+$/.test(from)) {
    return from; // without a name before it: some versions of pip refuse git+file:// with one
  }
  throw new Error("The setting fimble.installFrom must be the full path of a wheel or a URL that begins with git+https://.");
}

/** Asks for nothing more: the user has chosen to install. True once the server is there. */
export async function install(context: ExtensionContext, log: LogOutputChannel): Promise<boolean> {
  const from = workspace.getConfiguration("fimble").get("installFrom", "").trim();
  if (!from) {
    const choice = await window.showInformationMessage(
      "fimble: first say from where, in the setting fimble.installFrom: the path of a wheel, or a git URL.",
      "Open the setting",
    );
    if (choice) {
      await commands.executeCommand("workbench.action.openSettings", "fimble.installFrom");
    }
    return false;
  }
  try {
    const what = requirement(from);
    const options = { location: ProgressLocation.Notification, title: "fimble: installing the server", cancellable: true };
    await window.withProgress(options, async (progress, cancelled) => {
      const step = async (message: string, command: string, ...args: string[]) => {
        progress.report({ message });
        log.info(`${command} ${args.join(" ")}`);
        const status = await run(command, args, (text) => log.info(text.trimEnd()), cancelled);
        if (cancelled.isCancellationRequested) {
          throw new Error("The installation was cancelled.");
        }
        if (status !== 0) {
          throw new Error(`Installing ${message} failed: ${command} ended with status ${status}. The log says more.`);
        }
      };
      const folder = ownEnvironment(context);
      const python = await findPython();
      const last = `${folder}.last`;
      mkdirSync(dirname(folder), { recursive: true });
      if (existsSync(folder)) {
        remove(last);
        renameSync(folder, last);
      }
      try {
        await step("an environment of its own", python, "-m", "venv", folder);
        const scripts = join(folder, process.platform === "win32" ? "Scripts" : "bin");
        const pip = ["-m", "pip", "install", "--no-input", what];
        await step("fimble and its libraries, which are large", join(scripts, "python"), ...pip);
      } catch (error) {
        remove(folder); // half an installation would be taken for a server
        if (existsSync(last)) {
          renameSync(last, folder);
        }
        throw error;
      }
      remove(last);
    });
    return true;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.error(reason);
    if (await window.showErrorMessage(`fimble: ${reason}`, "Show the log")) {
      log.show();
    }
    return false;
  }
}

function remove(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

async function findPython(): Promise<string> {
  for (const name of PYTHONS) {
    const works = await run(name, ["-I", "-c", RECENT], () => {}).catch(() => 1);
    if (works === 0) {
      return name;
    }
  }
  throw new Error("Python 3.11 or newer, with its modules venv and ensurepip, was not found on the PATH.");
}
